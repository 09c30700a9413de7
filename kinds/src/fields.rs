//! Compares the custom resource definitions of all kinds with the lists in `testdata/fields`, which
//! say what fields Kuma 3 has: one a line, with `!` after the path where it is required.

use super::{all, crd};
use resource::Kind;
use serde_json::Value;
use std::{collections::BTreeSet, fs};

/// Where ours differ, with all that is below, and why. A path that ends with a colon is about
/// nothing but that field.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("MeshAccessLog", "spec.to[].default:", "as in other policies; refused without backends"),
    ("MeshAccessLog", "spec.rules[].default:", "as in other policies; refused without backends"),
    ("MeshCircuitBreaker", "spec.rules[].matches", "as in other policies; refused where set"),
    ("MeshFaultInjection", "spec.rules[].default:", "as in other policies; then there is no fault"),
    ("MeshService", "status.dataplaneProxies", "counts of 32 bits, as those of a Workload"),
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
const BOUNDS: [&str; 9] = [
    "default",
    "format",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
];

/// The fields of the definition of `kind`, one a line.
fn fields(kind: &Kind) -> BTreeSet<String> {
    let definition = crd::definition(kind).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut found = BTreeSet::new();
    for path in ["spec", "status"] {
        below(&schema["properties"][path], path, &mut found);
    }
    found
}

fn below(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let required = schema["required"].as_array().into_iter().flatten();
    let required: Vec<&str> = required.filter_map(Value::as_str).collect();
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let mark = if required.contains(&&**name) { "!" } else { "" };
        field(schema, &format!("{path}.{name}"), mark, found);
    }
}

fn field(schema: &Value, path: &str, mark: &str, found: &mut BTreeSet<String>) {
    let mut kind = kind_of(schema);
    let mut bounds = bounds(schema);
    if kind == "array" {
        let items = &schema["items"];
        if items["properties"].is_object() {
            kind = "list".into();
            below(items, &format!("{path}[]"), found);
        } else {
            kind = format!("list of {}", kind_of(items));
            // The lists do not say how many bits the numbers of a list have.
            let of_items = self::bounds(items).into_iter().filter(|it| !it.starts_with("format="));
            bounds.extend(of_items);
        }
    }
    below(schema, path, found);
    bounds.sort();
    bounds.insert(0, kind);
    found.insert(format!("{path}{mark}: {}", bounds.join(" ")));
}

fn bounds(schema: &Value) -> Vec<String> {
    let mut bounds = Vec::new();
    if let Some(values) = schema["enum"].as_array() {
        let mut values: Vec<String> = values.iter().map(text).collect();
        values.sort();
        bounds.push(format!("enum={}", values.join(",")));
    }
    for word in BOUNDS {
        let Some(value) = schema.get(word) else { continue };
        // Kuma's numbers without a sign are not said to have none, and its durations are any text;
        // it refuses those that are wrong later.
        let unsigned = word == "minimum" && *value == 0 && schema.get("maximum").is_none();
        let duration = word == "format" && value == "duration";
        if !unsigned && !duration {
            bounds.push(format!("{word}={}", text(value)));
        }
    }
    bounds
}

fn kind_of(schema: &Value) -> String {
    match schema["type"].as_str() {
        Some("object") if schema.get("additionalProperties").is_some() => "map".into(),
        Some(kind) => kind.into(),
        None if schema["x-kubernetes-int-or-string"] == true => "int|string".into(),
        None => "any".into(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
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
        let found = fields(&kind);
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
