//! JSON schemas of protobuf messages: what their canonical JSON mapping reads.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use schemars::Schema;
use serde_json::{Map, Value, json};

/// The schema of `message`.
pub(crate) fn of(message: &MessageDescriptor) -> Schema {
    let mut definitions = Map::new();
    let mut schema = object(message, &mut definitions);
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("$defs".into(), Value::Object(definitions));
    }
    Schema::try_from(schema).expect("an object is a schema")
}

fn object(message: &MessageDescriptor, definitions: &mut Map<String, Value>) -> Value {
    let mut properties = Map::new();
    for field in message.fields() {
        let schema = of_field(&field, definitions);
        // Both of its names are read.
        properties.insert(field.name().into(), schema.clone());
        properties.insert(field.json_name().into(), schema);
    }
    json!({ "type": "object", "properties": properties })
}

fn of_field(field: &FieldDescriptor, definitions: &mut Map<String, Value>) -> Value {
    let kind = field.kind();
    if field.is_map() {
        let entry = kind.as_message().expect("a map is a list of messages");
        let value = of_kind(&entry.map_entry_value_field().kind(), definitions);
        json!({ "type": ["object", "null"], "additionalProperties": value })
    } else if field.is_list() {
        json!({ "type": ["array", "null"], "items": of_kind(&kind, definitions) })
    } else {
        json!({ "anyOf": [of_kind(&kind, definitions), { "type": "null" }] })
    }
}

fn of_kind(kind: &Kind, definitions: &mut Map<String, Value>) -> Value {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::String => json!({ "type": "string" }),
        Kind::Bytes => bytes(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => integer("int32"),
        Kind::Uint32 | Kind::Fixed32 => integer("uint32"),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => {
            json!({ "type": ["integer", "string"] })
        }
        Kind::Float | Kind::Double => json!({ "type": ["number", "string"] }),
        Kind::Enum(values) => {
            let values: Vec<_> = values.values().map(|value| json!(value.name())).collect();
            json!({ "enum": values })
        }
        Kind::Message(message) => of_message(message, definitions),
    }
}

/// Bytes in base64.
fn bytes() -> Value {
    json!({ "type": "string", "format": "byte" })
}

fn integer(format: &str) -> Value {
    json!({ "type": "integer", "format": format })
}

fn of_message(message: &MessageDescriptor, definitions: &mut Map<String, Value>) -> Value {
    let name = message.full_name();
    match name.strip_prefix("google.protobuf.") {
        Some("BoolValue") => return json!({ "type": "boolean" }),
        Some("UInt32Value") => return integer("uint32"),
        Some("Duration" | "Timestamp" | "StringValue") => return json!({ "type": "string" }),
        Some("BytesValue") => return bytes(),
        Some(_) => return json!({}),
        None => {}
    }
    if !definitions.contains_key(name) {
        // It may contain itself.
        definitions.insert(name.into(), Value::Null);
        let schema = object(message, definitions);
        definitions.insert(name.into(), schema);
    }
    json!({ "$ref": format!("#/$defs/{name}") })
}

#[cfg(test)]
mod tests {
    use crate::{dataplane, mesh_insight, secret, zone};
    use resource::Kind;
    use serde_json::{Value, json};

    fn wrong(kind: Kind, document: Value) -> Vec<String> {
        let error = kind.from_json(document).unwrap_err().to_string();
        error.split("; ").map(str::to_owned).collect()
    }

    #[test]
    fn what_is_no_message_is_answered_with_its_place() {
        let document = json!({ "networking": {
            "address": 1,
            "inbound": [{ "port": "http", "state": "Sleeping" }, { "servicePort": -1 }],
            "outbound": { "port": 1 },
            "transparent_proxying": { "ipFamilyMode": "IPv5" },
            "gateway": { "tags": { "a": 1 } },
            "admin": [],
        } });
        let mut found = wrong(dataplane::KIND, document);
        found.sort();
        assert_eq!(
            found,
            [
                "networking.address: in body must be of type string: \"number\"",
                "networking.admin: in body must be of type object: \"array\"",
                "networking.gateway.tags[\"a\"]: in body must be of type string: \"number\"",
                "networking.inbound[0].port: in body must be of type integer: \"string\"",
                "networking.inbound[0].state: in body should be one of [Ready NotReady Ignored]",
                "networking.inbound[1].servicePort: in body should be between 0 and 4294967295",
                "networking.outbound: in body must be of type array: \"object\"",
                "networking.transparent_proxying.ipFamilyMode: in body should be one of [UnSpecified DualStack IPv4 IPv6]",
            ]
        );
        assert_eq!(
            wrong(zone::KIND, json!({ "enabled": "yes" })),
            ["enabled: in body must be of type boolean: \"string\""]
        );
        assert_eq!(
            wrong(secret::KIND, json!({ "data": 1 })),
            ["data: in body must be of type string: \"number\""]
        );
        assert_eq!(
            wrong(mesh_insight::KIND, json!({ "resources": { "Mesh": { "total": "many" } } })),
            ["resources[\"Mesh\"].total: in body must be of type integer: \"string\""]
        );
    }
}
