//! Finds where a document breaks its schema.
//!
//! Asked only when a document could not be read: the parser knows that something is wrong, the
//! schema knows where, and it finds all of it.

use super::{GoDuration, Violations};
use serde_json::{Map, Value};

/// Adds every place where `document`, which stands at `path`, breaks `schema`.
pub(crate) fn check(schema: &Value, document: &Value, path: &str, violations: &mut Violations) {
    let definitions = schema.get("$defs").and_then(Value::as_object);
    Checker { definitions }.check(schema, document, path, violations);
}

#[derive(Clone, Copy)]
struct Checker<'a> {
    definitions: Option<&'a Map<String, Value>>,
}

impl Checker<'_> {
    fn check(self, schema: &Value, document: &Value, path: &str, violations: &mut Violations) {
        let Some(schema) = schema.as_object() else { return };
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let name = name.rsplit('/').next().unwrap_or_default();
            if let Some(schema) = self.definitions.and_then(|it| it.get(name)) {
                self.check(schema, document, path, violations);
            }
            return;
        }
        for word in ["anyOf", "oneOf"] {
            if let Some(choices) = schema.get(word).and_then(Value::as_array) {
                self.check_choices(choices, document, path, violations);
            }
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array)
            && !values.contains(document)
        {
            one_of(values.iter(), path, violations);
            return;
        }
        if let Some(types) = schema.get("type")
            && !is_any_of(types, document)
        {
            violations.add(path, mistyped(types, document));
            return;
        }
        check_number(schema, document, path, violations);
        let format = schema.get("format").and_then(Value::as_str);
        match (format, document.as_str()) {
            (Some("duration"), Some(text)) => {
                if let Err(error) = text.parse::<GoDuration>() {
                    violations.add(path, error);
                }
            }
            (Some("byte"), Some(text)) if !is_base64(text) => {
                violations.add(path, "must be base64");
            }
            _ => {}
        }
        self.check_parts(schema, document, path, violations);
    }

    /// One of several forms. Where none fits, the one that is not nothing says what is wrong.
    fn check_choices(
        self,
        choices: &[Value],
        document: &Value,
        path: &str,
        violations: &mut Violations,
    ) {
        let tried = choices.iter().map(|choice| {
            let mut found = Violations::default();
            self.check(choice, document, path, &mut found);
            if choice.get("const").is_some_and(|value| value != document) {
                found.add(path, "differs");
            }
            found
        });
        let tried: Vec<Violations> = tried.collect();
        if tried.iter().any(Violations::is_empty) {
            return;
        }
        let values: Vec<&Value> = choices.iter().filter_map(|it| it.get("const")).collect();
        if values.len() == choices.len() {
            return one_of(values.into_iter(), path, violations);
        }
        let nothing = |choice: &Value| choice.get("type").is_some_and(|it| it == "null");
        let mut others = choices.iter().zip(&tried).filter(|(choice, _)| !nothing(choice));
        match (others.next(), others.next()) {
            (Some((_, found)), None) => {
                found.iter().for_each(|it| violations.add(&it.path, &it.reason));
            }
            _ => violations.add(path, format_args!("in body has a wrong type: {}", name(document))),
        }
    }

    fn check_parts(
        self,
        schema: &Map<String, Value>,
        document: &Value,
        path: &str,
        violations: &mut Violations,
    ) {
        match document {
            Value::Array(items) => {
                let Some(schema) = schema.get("items") else { return };
                for (i, item) in items.iter().enumerate() {
                    self.check(schema, item, &format!("{path}[{i}]"), violations);
                }
            }
            Value::Object(fields) => {
                let required = schema.get("required").and_then(Value::as_array);
                let required = required.into_iter().flatten().filter_map(Value::as_str);
                for field in required.filter(|field| !fields.contains_key(*field)) {
                    violations.add(below(path, field), "in body is required");
                }
                let known = schema.get("properties").and_then(Value::as_object);
                let others = schema.get("additionalProperties");
                for (field, value) in fields {
                    if let Some(schema) = known.and_then(|it| it.get(field)) {
                        self.check(schema, value, &below(path, field), violations);
                    } else if let Some(schema) = others {
                        self.check(schema, value, &format!("{path}[{field:?}]"), violations);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// The path of a field of what stands at `path`, which is empty for the document itself.
pub(crate) fn below(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

fn check_number(
    schema: &Map<String, Value>,
    document: &Value,
    path: &str,
    violations: &mut Violations,
) {
    let Some(number) = document.as_f64() else { return };
    let bound = |word: &str| schema.get(word).and_then(Value::as_f64);
    if let Some(least) = bound("minimum").filter(|least| number < *least) {
        let reason = format_args!("in body should be greater than or equal to {least}");
        return violations.add(path, reason);
    }
    if let Some(most) = bound("maximum").filter(|most| number > *most) {
        let reason = format_args!("in body should be less than or equal to {most}");
        return violations.add(path, reason);
    }
    let (low, high) = match schema.get("format").and_then(Value::as_str) {
        Some("int32") => (f64::from(i32::MIN), f64::from(i32::MAX)),
        Some("uint32") => (0.0, f64::from(u32::MAX)),
        _ => return,
    };
    if number < low || number > high {
        violations.add(path, format_args!("in body should be between {low} and {high}"));
    }
}

fn one_of<'a>(values: impl Iterator<Item = &'a Value>, path: &str, violations: &mut Violations) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let values: Vec<String> = values.map(text).collect();
    violations.add(path, format_args!("in body should be one of [{}]", values.join(" ")));
}

/// Whether it is text of one of the two alphabets, padded or not.
fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let of =
        |more: &[u8]| digits.bytes().all(|it| it.is_ascii_alphanumeric() || more.contains(&it));
    text.len() - digits.len() <= 2 && digits.len() % 4 != 1 && (of(b"+/") || of(b"-_"))
}

fn is_any_of(types: &Value, document: &Value) -> bool {
    match types {
        Value::Array(types) => types.iter().any(|it| is_any_of(it, document)),
        Value::String(wanted) => match wanted.as_str() {
            "integer" => document.is_i64() || document.is_u64(),
            wanted => name(document) == wanted,
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
    }
}

fn mistyped(types: &Value, document: &Value) -> String {
    let types = types.as_array().map_or_else(|| std::slice::from_ref(types), Vec::as_slice);
    let types = types.iter().filter_map(Value::as_str).filter(|it| *it != "null");
    let wanted = types.collect::<Vec<_>>().join(" or ");
    format!("in body must be of type {wanted}: \"{}\"", name(document))
}

const fn name(document: &Value) -> &'static str {
    match document {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::JsonSchema;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema matters")]
    #[schemars(rename_all = "camelCase")]
    struct Sample {
        port: u32,
        offset: Option<i32>,
        mode: Option<Mode>,
        either: Option<Either>,
        wait: Option<GoDuration>,
        parts: Vec<Part>,
        labels: Option<BTreeMap<String, String>>,
        anything: Option<Value>,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema matters")]
    struct Part {
        name: String,
        inner: Option<Box<Self>>,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema matters")]
    enum Mode {
        /// This.
        Fast,
        /// That.
        Slow,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema matters")]
    #[schemars(untagged)]
    enum Either {
        Int(i32),
        String(String),
    }

    fn wrong(document: Value) -> Vec<String> {
        let schema = schemars::schema_for!(Sample).to_value();
        let mut violations = Violations::default();
        check(&schema, &document, "spec", &mut violations);
        violations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_document_that_fits_breaks_nothing() {
        let full = json!({
            "port": 80, "offset": -1, "mode": "Fast", "either": "x", "wait": "1m30s",
            "parts": [{ "name": "a", "inner": { "name": "b", "inner": null } }],
            "labels": { "a": "b" }, "anything": [1], "unknown": {},
        });
        assert_eq!(wrong(full), [""; 0]);
        assert_eq!(wrong(json!({ "port": 80, "parts": [], "either": 7, "mode": null })), [""; 0]);
    }

    #[test]
    fn bytes_are_base64() {
        let schema = json!({ "type": "string", "format": "byte" });
        let fits = |text: &str| {
            let mut violations = Violations::default();
            check(&schema, &json!(text), "data", &mut violations);
            let found: Vec<String> = violations.iter().map(ToString::to_string).collect();
            assert!(found.is_empty() || found == ["data: must be base64"], "{found:?}");
            found.is_empty()
        };
        for text in ["", "aGk=", "aGk", "+/+/", "-_-_", "aGVsbG8="] {
            assert!(fits(text), "{text:?}");
        }
        for text in ["a", "a b=", "+_+_", "=aGk", "aGk===", "\u{e9}\u{e9}"] {
            assert!(!fits(text), "{text:?}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_found_with_its_place() {
        let document = json!({
            "port": -1, "offset": 1.5, "mode": "Slower", "either": true, "wait": "1 day",
            "parts": [{ "name": 1 }, { "inner": { "name": "b", "inner": [] } }, "c"],
            "labels": { "a": 1 },
        });
        let mut found = wrong(document);
        found.sort();
        assert_eq!(
            found,
            [
                "spec.either: in body has a wrong type: boolean",
                "spec.labels[\"a\"]: in body must be of type string: \"number\"",
                "spec.mode: in body should be one of [Fast Slow]",
                "spec.offset: in body must be of type integer: \"number\"",
                "spec.parts[0].name: in body must be of type string: \"number\"",
                "spec.parts[1].inner.inner: in body must be of type object: \"array\"",
                "spec.parts[1].name: in body is required",
                "spec.parts[2]: in body must be of type object: \"string\"",
                "spec.port: in body should be greater than or equal to 0",
                "spec.wait: unknown unit \" day\" in duration \"1 day\"",
            ]
        );
        assert_eq!(
            wrong(json!({ "port": 1, "parts": "x" })),
            ["spec.parts: in body must be of type array: \"string\""]
        );
        assert_eq!(wrong(json!("x")), ["spec: in body must be of type object: \"string\""]);
    }
}
