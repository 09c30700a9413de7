//! Turns the schemas of our types into what Kubernetes takes: structural schemas.
//!
//! There are no references, no `null`, and no choice between forms but the one between a number and
//! a text. Whatever is not understood is refused, so that no rule of a type gets lost on the way.

use serde_json::{Map, Value, json};

/// A schema that Kubernetes would not take.
#[derive(Debug, thiserror::Error)]
#[error("{path}: no structural schema says {what}")]
pub(crate) struct NotStructural {
    path: String,
    what: String,
}

/// What bounds a value, and is the same in both.
const KEPT: [&str; 11] = [
    "description",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "pattern",
    "x-kubernetes-validations",
];

/// What is turned into something else, or says nothing about a value.
const TURNED: [&str; 10] = [
    "$defs",
    "$schema",
    "additionalProperties",
    "const",
    "default",
    "enum",
    "format",
    "oneOf",
    "title",
    "type",
];

const FREE: &str = "x-kubernetes-preserve-unknown-fields";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// The structural schema of what `schema` describes and stands at `path`.
pub(crate) fn structural(schema: &Value, path: &str) -> Result<Value, NotStructural> {
    Converter { definitions: schema.get("$defs") }.convert(schema, path).map(Value::Object)
}

#[derive(Clone, Copy)]
struct Converter<'a> {
    definitions: Option<&'a Value>,
}

impl Converter<'_> {
    fn convert(self, schema: &Value, path: &str) -> Result<Map<String, Value>, NotStructural> {
        let mut schema = self.resolved(schema, path)?;
        let mut made = Map::new();
        for word in KEPT {
            if let Some(value) = schema.remove(word) {
                made.insert(word.into(), value);
            }
        }
        if let Some(text) = made.get_mut("description") {
            *text = plain(text.as_str().unwrap_or_default()).into();
        }
        if let Some(choices) = schema.remove("anyOf") {
            if !is_int_or_string(&choices) {
                return Err(refused(path, &choices));
            }
            made.insert("anyOf".into(), json!([{ "type": "integer" }, { "type": "string" }]));
            made.insert(INT_OR_STRING.into(), true.into());
            return Ok(made);
        }
        if let Some(default) = schema.get("default").filter(|value| says_something(value)) {
            made.insert("default".into(), default.clone());
        }
        let values = values(&schema);
        if let Some(Value::Array(choices)) = schema.get("oneOf")
            && choices.len() > values.len()
        {
            return Err(refused(path, choices));
        }
        let kinds: Vec<&str> = match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(kind)) => vec![kind],
            _ if values.first().is_some_and(Value::is_string) => vec!["string"],
            _ => Vec::new(),
        };
        let kinds: Vec<&str> = kinds.into_iter().filter(|kind| *kind != "null").collect();
        match kinds[..] {
            [] => made.insert(FREE.into(), true.into()),
            [kind] => made.insert("type".into(), kind.into()),
            _ => return Err(refused(path, &kinds)),
        };
        if !values.is_empty() {
            made.insert("enum".into(), values.into());
        }
        if let Some(format) = format(&schema, &made) {
            made.insert("format".into(), format.into());
        }
        self.parts(&mut schema, &mut made, path)?;
        match schema.keys().find(|word| !TURNED.contains(&word.as_str())) {
            Some(word) => Err(refused(path, word)),
            None => Ok(made),
        }
    }

    /// What stands in an object or a list.
    fn parts(
        self,
        schema: &mut Map<String, Value>,
        made: &mut Map<String, Value>,
        path: &str,
    ) -> Result<(), NotStructural> {
        if let Some(Value::Object(fields)) = schema.remove("properties") {
            let convert = |(name, field): (&String, &Value)| {
                let field = self.convert(field, &format!("{path}.{name}"))?;
                Ok((name.clone(), Value::Object(field)))
            };
            let fields = fields.iter().map(convert).collect::<Result<Map<_, _>, _>>()?;
            made.insert("properties".into(), Value::Object(fields));
        }
        if let Some(Value::Array(mut names)) = schema.remove("required") {
            names.sort_unstable_by(|one, other| one.as_str().cmp(&other.as_str()));
            made.insert("required".into(), Value::Array(names));
        }
        if let Some(items) = schema.remove("items") {
            let items = self.convert(&items, &format!("{path}[]"))?;
            made.insert("items".into(), Value::Object(items));
        }
        // `false` takes away what is not known. Kubernetes does so anyway.
        if let Some(others @ Value::Object(_)) = schema.get("additionalProperties") {
            let others = self.convert(others, &format!("{path}[\"\"]"))?;
            made.insert("additionalProperties".into(), Value::Object(others));
        }
        Ok(())
    }

    /// A schema without references and without being optional. What it says itself goes before what
    /// it refers to says.
    fn resolved(self, schema: &Value, path: &str) -> Result<Map<String, Value>, NotStructural> {
        // `true` is anything.
        let anything = (*schema == Value::Bool(true)).then(Map::new);
        let fields = schema.as_object().cloned().or(anything);
        let mut fields = fields.ok_or_else(|| refused(path, schema))?;
        loop {
            let inner = if let Some(name) = fields.remove("$ref") {
                let name = name.as_str().and_then(|name| name.rsplit('/').next());
                let found = self.definitions.zip(name).and_then(|(all, name)| all.get(name));
                found.cloned().ok_or_else(|| refused(path, &name))?
            } else if let Some(one) = only_choice(&fields) {
                fields.remove("anyOf");
                one
            } else {
                return Ok(fields);
            };
            let Value::Object(mut inner) = inner else { return Ok(fields) };
            inner.append(&mut fields);
            fields = inner;
        }
    }
}

fn refused(path: &str, what: &impl std::fmt::Debug) -> NotStructural {
    NotStructural { path: path.to_owned(), what: format!("{what:?}") }
}

/// What a schema describes where that may only be left out.
fn only_choice(schema: &Map<String, Value>) -> Option<Value> {
    let choices = schema.get("anyOf")?.as_array()?;
    let mut others = choices.iter().filter(|choice| !is_of(choice, "null"));
    let one = others.next()?;
    others.next().is_none().then(|| one.clone())
}

fn is_of(schema: &Value, kind: &str) -> bool {
    schema.get("type").is_some_and(|it| it == kind)
}

fn is_int_or_string(choices: &Value) -> bool {
    let choices = choices.as_array().map_or(&[][..], Vec::as_slice);
    matches!(choices, [one, other] if is_of(one, "integer") && is_of(other, "string"))
}

/// What a value may be, if that is one of a few things.
fn values(schema: &Map<String, Value>) -> Vec<Value> {
    let listed = |word| schema.get(word).and_then(Value::as_array).into_iter().flatten();
    let named = listed("enum").filter(|value| !value.is_null()).cloned();
    let choices = listed("oneOf").filter_map(Value::as_object).flat_map(values);
    named.chain(choices).chain(schema.get("const").cloned()).collect()
}

/// Whether a default has to be written down. Kubernetes writes defaults into what it stores, and
/// there nothing has to stand for nothing.
fn says_something(default: &Value) -> bool {
    match default {
        Value::Bool(_) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// The format of a value, in words that Kubernetes knows. It has no unsigned numbers; what goes
/// beyond 32 bits has 64 without saying so.
fn format(schema: &Map<String, Value>, made: &Map<String, Value>) -> Option<String> {
    let most = made.get("maximum").and_then(Value::as_f64).unwrap_or_default();
    let format = schema.get("format")?.as_str()?;
    match format {
        "int32" | "uint32" if most > f64::from(i32::MAX) => None,
        "uint32" => Some("int32".into()),
        "uint64" => Some("int64".into()),
        other => Some(other.into()),
    }
}

/// A comment without what only the documentation of our code understands.
fn plain(comment: &str) -> String {
    let unlinked = comment.replace("[`", "`").replace("`]", "`");
    unlinked.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::JsonSchema;
    use std::collections::BTreeMap;

    fn of(schema: &Value) -> Result<Value, String> {
        structural(schema, "spec").map_err(|error| error.to_string())
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema matters")]
    struct Sample {
        /// Some text, as [`Other`]
        /// has it.
        text: Option<Other>,
        #[schemars(range(max = 4_294_967_295_u32))]
        share: u32,
        port: u32,
        either: Option<Either>,
        mode: Mode,
        labels: BTreeMap<String, String>,
        list: Vec<Other>,
        anything: Option<Value>,
    }

    /// Never shown.
    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema matters")]
    struct Other {
        #[schemars(length(min = 1))]
        name: String,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema matters")]
    #[schemars(untagged)]
    enum Either {
        Int(i32),
        String(String),
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema matters")]
    enum Mode {
        /// This.
        Fast,
        /// That.
        Slow,
    }

    #[test]
    fn types_have_structural_schemas() {
        let name = json!({ "type": "string", "minLength": 1 });
        let other =
            json!({ "type": "object", "properties": { "name": name }, "required": ["name"] });
        let with = |description: &str| {
            let mut described = other.clone();
            described["description"] = description.into();
            described
        };
        let expected = json!({
            "type": "object",
            "properties": {
                "text": with("Some text, as `Other` has it."),
                "share": { "type": "integer", "minimum": 0, "maximum": 4_294_967_295_u32 },
                "port": { "type": "integer", "minimum": 0, "format": "int32" },
                "either": {
                    "anyOf": [{ "type": "integer" }, { "type": "string" }],
                    "x-kubernetes-int-or-string": true,
                },
                "mode": { "type": "string", "enum": ["Fast", "Slow"] },
                "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                "list": { "type": "array", "items": with("Never shown.") },
                "anything": { "x-kubernetes-preserve-unknown-fields": true },
            },
            "required": ["labels", "list", "mode", "port", "share"],
        });
        assert_eq!(of(schemars::schema_for!(Sample).as_value()), Ok(expected));
    }

    #[test]
    fn what_is_nothing_is_no_default() {
        for (default, expected) in [
            (json!("x"), Some(json!("x"))),
            (json!(false), Some(json!(false))),
            (json!(2), Some(json!(2))),
            (json!(0), None),
            (json!(""), None),
            (json!(null), None),
            (json!([]), None),
            (json!({ "a": 1 }), None),
        ] {
            let made = of(&json!({ "type": "string", "default": default })).unwrap();
            assert_eq!(made.get("default"), expected.as_ref());
        }
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        for (schema, expected) in [
            (json!({ "type": "string", "contentEncoding": "x" }), r#""contentEncoding""#),
            (json!({ "type": ["string", "boolean"] }), r#"["string", "boolean"]"#),
            (json!({ "$ref": "#/$defs/None" }), r#"Some("None")"#),
            (json!(false), "Bool(false)"),
        ] {
            let field = json!({ "type": "object", "properties": { "a": schema } });
            assert_eq!(of(&field), Err(format!("spec.a: no structural schema says {expected}")));
        }
        let two = json!({ "anyOf": [{ "type": "boolean" }, { "type": "string" }] });
        assert!(of(&json!({ "oneOf": [{ "const": "a" }, { "type": "object" }] })).is_err());
        assert!(of(&two).unwrap_err().starts_with("spec: no structural schema says Array"));
    }
}
