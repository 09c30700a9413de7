//! Compares the schemas of all kinds with the lists in `testdata/fields`, which say what fields
//! Kuma 3 has: one a line, with `!` after the path where it is required.

use super::all;
use resource::Kind;
use serde_json::{Map, Value};
use std::{collections::BTreeSet, fs};

/// Where ours differ, with all that is below, and why. A path that ends with a colon is about
/// nothing but that field.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("MeshAccessLog", "spec.to[].default:", "as in other policies; refused without backends"),
    ("MeshAccessLog", "spec.rules[].default:", "as in other policies; refused without backends"),
    ("MeshCircuitBreaker", "spec.rules[].matches", "as in other policies; refused where set"),
    ("MeshFaultInjection", "spec.rules[].default:", "as in other policies; then there is no fault"),
    ("MeshTLS", "spec.rules[].matches", "as in other policies; refused where set"),
    (
        "MeshTrafficPermission",
        "spec.rules[].default",
        "may be left out, as in other policies; then it is refused for allowing nobody",
    ),
    ("MeshTrafficPermission", "spec.rules[].matches", "as in other policies; refused where set"),
    ("MeshTrust", "status.conditions", "says why it is not relayed to other zones"),
];

/// Words of a schema that bound what stands in a field.
const BOUNDS: [&str; 7] =
    ["minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern"];

/// Finds the fields of a schema.
struct Walk<'a> {
    definitions: Value,
    listed: &'a BTreeSet<String>,
    found: BTreeSet<String>,
}

impl Walk<'_> {
    /// A schema without references and without being optional.
    fn resolved(&self, schema: &Value) -> Map<String, Value> {
        let mut fields = schema.as_object().cloned().unwrap_or_default();
        loop {
            let inner = if let Some(name) = fields.remove("$ref") {
                let name = name.as_str().unwrap().rsplit('/').next().unwrap();
                self.definitions[name].clone()
            } else if let Some(one) = only_choice(&fields) {
                fields.remove("anyOf");
                one
            } else {
                return fields;
            };
            let mut inner = inner.as_object().unwrap().clone();
            inner.extend(fields);
            fields = inner;
        }
    }

    fn properties(&mut self, schema: &Map<String, Value>, path: &str) {
        let required = schema.get("required").and_then(Value::as_array);
        let required: Vec<&str> =
            required.into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, schema) in properties.into_iter().flatten() {
            let mark = if required.contains(&&**name) { "!" } else { "" };
            self.field(schema, &format!("{path}.{name}"), mark);
        }
    }

    fn field(&mut self, schema: &Value, path: &str, mark: &str) {
        let schema = self.resolved(schema);
        let mut kind = kind_of(&schema);
        let mut bounds = self.bounds(&schema, &format!("{path}{mark}: "));
        if kind == "array" {
            let items = self.resolved(schema.get("items").unwrap_or(&Value::Null));
            if items.contains_key("properties") {
                kind = "list".into();
                self.properties(&items, &format!("{path}[]"));
            } else {
                kind = format!("list of {}", kind_of(&items));
                bounds.extend(self.bounds(&items, ""));
            }
        }
        self.properties(&schema, path);
        bounds.sort();
        bounds.insert(0, kind);
        self.found.insert(format!("{path}{mark}: {}", bounds.join(" ")));
    }

    fn bounds(&self, schema: &Map<String, Value>, start: &str) -> Vec<String> {
        let mut bounds = Vec::new();
        let values = values(schema);
        if !values.is_empty() {
            bounds.push(format!("enum={}", values.join(",")));
        }
        // What is nothing by default is not in the lists.
        let with_default =
            self.listed.iter().any(|line| line.starts_with(start) && line.contains(" default="));
        let nothing = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Bool(true) => false,
            Value::Number(number) => number.as_i64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
        };
        if let Some(default) = schema.get("default")
            && (with_default || !nothing(default))
        {
            bounds.push(format!("default={}", text(default)));
        }
        let unsigned = schema.get("format").is_some_and(|it| text(it).starts_with("uint"));
        for word in BOUNDS {
            let unbound = unsigned && word == "minimum" && !schema.contains_key("maximum");
            let implied = |value: &&Value| unbound && value.as_i64() == Some(0);
            if let Some(value) = schema.get(word).filter(|value| !implied(value)) {
                bounds.push(format!("{word}={}", text(value)));
            }
        }
        bounds
    }
}

fn only_choice(schema: &Map<String, Value>) -> Option<Value> {
    let choices = schema.get("anyOf")?.as_array()?;
    let mut others = choices.iter().filter(|choice| choice["type"] != "null");
    let one = others.next()?;
    others.next().is_none().then(|| one.clone())
}

/// What a field may be, if that is one of a few things.
fn values(schema: &Map<String, Value>) -> Vec<String> {
    let mut values: Vec<String> = if let Some(values) = schema.get("enum") {
        values.as_array().unwrap().iter().filter(|it| !it.is_null()).map(text).collect()
    } else {
        let choices = schema.get("oneOf").and_then(Value::as_array);
        let choices = choices.into_iter().flatten();
        choices.flat_map(|choice| values(choice.as_object().unwrap())).collect()
    };
    values.extend(schema.get("const").map(text));
    values.sort();
    values
}

fn kind_of(schema: &Map<String, Value>) -> String {
    let types: Vec<String> = match schema.get("type") {
        Some(Value::Array(types)) => types.iter().map(text).filter(|it| it != "null").collect(),
        Some(one) => vec![text(one)],
        None => Vec::new(),
    };
    match &types[..] {
        [one] if one == "object" && schema.contains_key("additionalProperties") => "map".into(),
        [one] => one.clone(),
        _ if !values(schema).is_empty() => "string".into(),
        _ if schema.contains_key("anyOf") => "int|string".into(),
        _ => "any".into(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn fields(kind: &Kind, listed: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let status = kind.has_status.then(|| kind.status_schema());
    for (path, schema) in [("spec", Some(kind.schema())), ("status", status)] {
        let Some(schema) = schema else { continue };
        let schema = schema.to_value();
        let mut walk = Walk { definitions: schema["$defs"].clone(), listed, found };
        walk.properties(schema.as_object().unwrap(), path);
        found = walk.found;
    }
    found
}

/// Whether a kind is one of Kuma's whose specs have a schema.
fn is_listed(kind: &Kind) -> bool {
    !kind.inline && kind.flow.only_with().is_none()
}

#[test]
fn every_kind_has_the_fields_of_the_field() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/fields");
    let mut wrong = Vec::new();
    for kind in all().filter(is_listed) {
        let name = kind.name;
        let listed = fs::read_to_string(format!("{folder}/{name}.txt")).unwrap_or_default();
        let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
        let found = fields(&kind, &listed);
        let differs = |line: &str| {
            let below = |path: &str| match path.strip_suffix(':') {
                Some(field) => {
                    let rest = line.strip_prefix(field).unwrap_or_default();
                    rest.starts_with(':') || rest.starts_with("!:")
                }
                None => {
                    line.strip_prefix(path).is_some_and(|it| !it.starts_with(char::is_alphabetic))
                }
            };
            DIFFERENCES.iter().any(|(kind, path, _)| *kind == name && below(path))
        };
        let missing = listed.difference(&found).filter(|line| !differs(line));
        wrong.extend(missing.map(|line| format!("{name}: lacks {line}")));
        let more = found.difference(&listed).filter(|line| !differs(line));
        wrong.extend(more.map(|line| format!("{name}: has   {line}")));
    }
    assert_eq!(wrong, [""; 0], "{wrong:#?}");
}

#[test]
fn every_list_of_fields_belongs_to_a_kind() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/fields");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let files: BTreeSet<String> = files.map(|name| name.into_string().unwrap()).collect();
    let kinds = all().filter(is_listed).map(|kind| format!("{}.txt", kind.name));
    assert_eq!(files, kinds.collect());
}
