//! Finds fields that nobody here reads: misspelt ones, and those of newer versions.

use serde_json::{Map, Value};
use std::sync::Arc;

/// The fields that the specs of a kind have.
#[derive(Clone, Debug)]
pub struct KnownFields {
    schema: Arc<Value>,
}

impl KnownFields {
    /// How many others are named where somebody is told of them: a document may have thousands.
    pub const TOLD: usize = 10;

    pub(crate) fn new(schema: schemars::Schema) -> Self {
        Self { schema: Arc::new(schema.to_value()) }
    }

    /// The paths of the other fields of `document`, which stands at `path`, in its order. What has a
    /// wrong type is not looked into.
    #[must_use]
    pub fn others(&self, document: &Value, path: &str) -> Vec<String> {
        let definitions = self.schema.get("$defs").and_then(Value::as_object);
        let mut found = Vec::new();
        Finder { definitions }.look(&[&self.schema], document, path, &mut found);
        found
    }
}

#[derive(Clone, Copy)]
struct Finder<'a> {
    definitions: Option<&'a Map<String, Value>>,
}

impl<'a> Finder<'a> {
    /// A field is known if one of `schemas` has it, of which any may be meant.
    fn look(self, schemas: &[&'a Value], document: &Value, path: &str, found: &mut Vec<String>) {
        let mut forms = Vec::new();
        for schema in schemas {
            self.add_forms(schema, &mut forms);
        }
        match document {
            Value::Array(items) => {
                let schemas: Vec<_> = forms.iter().filter_map(|form| form.get("items")).collect();
                for (i, item) in items.iter().enumerate() {
                    self.look(&schemas, item, &format!("{path}[{i}]"), found);
                }
            }
            Value::Object(fields) => {
                // Nothing is said about what stands here.
                let says = |form: &&Value| {
                    form.get("properties").is_some() || form.get("additionalProperties").is_some()
                };
                let forms: Vec<_> = forms.into_iter().filter(says).collect();
                if forms.is_empty() {
                    return;
                }
                for (field, value) in fields {
                    let known = |form: &&'a Value| form.get("properties")?.get(field);
                    let named: Vec<_> = forms.iter().filter_map(known).collect();
                    if !named.is_empty() {
                        self.look(&named, value, &super::schema::below(path, field), found);
                        continue;
                    }
                    let any = forms.iter().filter_map(|form| form.get("additionalProperties"));
                    let any: Vec<_> = any.filter(|it| **it != Value::Bool(false)).collect();
                    if any.is_empty() {
                        found.push(super::schema::below(path, field));
                    } else {
                        self.look(&any, value, &format!("{path}[{field:?}]"), found);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn add_forms(self, schema: &'a Value, forms: &mut Vec<&'a Value>) {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let name = name.rsplit('/').next().unwrap_or_default();
            if let Some(schema) = self.definitions.and_then(|it| it.get(name)) {
                self.add_forms(schema, forms);
            }
        }
        for word in ["anyOf", "oneOf", "allOf"] {
            let choices = schema.get(word).and_then(Value::as_array);
            choices.into_iter().flatten().for_each(|it| self.add_forms(it, forms));
        }
        forms.push(schema);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn others_are_found_wherever_they_stand() {
        let schema = json!({
            "$defs": {
                "Rule": {
                    "type": "object",
                    "properties": { "wait": { "type": "string" }, "rules": { "$ref": "#/$defs/Rules" } },
                },
                "Rules": { "type": "array", "items": { "$ref": "#/$defs/Rule" } },
            },
            "type": "object",
            "properties": {
                "to": { "anyOf": [{ "$ref": "#/$defs/Rules" }, { "type": "null" }] },
                "labels": { "type": "object", "additionalProperties": { "$ref": "#/$defs/Rule" } },
                "anything": true,
                "closed": { "additionalProperties": false },
                "backend": { "oneOf": [
                    { "properties": { "file": { "properties": { "path": {} } } } },
                    { "properties": { "tcp": { "properties": { "address": {} } } } },
                ] },
            },
        });
        let fields = KnownFields::new(schema.try_into().unwrap());
        let document = json!({
            "to": [{ "wait": "1s" }, { "wiat": "1s", "rules": [{ "wait": "1s", "weight": 1 }] }],
            "labels": { "a": { "wait": "1s", "x": 1 } },
            "anything": { "x": [{ "y": 1 }] },
            "closed": { "x": 1 },
            "backend": { "file": { "path": "a", "address": "b" }, "tcp": { "address": "c" }, "udp": {} },
            "too": [],
        });
        let expected = [
            "spec.to[1].wiat",
            "spec.to[1].rules[0].weight",
            r#"spec.labels["a"].x"#,
            "spec.closed.x",
            "spec.backend.file.address",
            "spec.backend.udp",
            "spec.too",
        ];
        let mut found = fields.others(&document, "spec");
        found.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(fields.others(&json!([1]), ""), Vec::<String>::new());
        assert_eq!(fields.others(&json!({ "too": 1 }), ""), ["too"]);
    }
}
