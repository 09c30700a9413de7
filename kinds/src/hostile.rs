//! Documents of any shape: they are refused or taken, and what is taken is read again as the same.

use crate::all;
use proptest::prelude::*;
use resource::Kind;
use serde_json::{Map, Value, json};

/// Strings that mean something somewhere, or ought to mean nothing.
const TEXTS: [&str; 24] = [
    "",
    "a",
    "*",
    "Mesh",
    "MeshService",
    "Exact",
    "Prefix",
    "0s",
    "-1s",
    "5s",
    "99999999999h",
    "http",
    "10.0.0.0/8",
    "10.0.0.0/33",
    "::1",
    "spiffe://a/b",
    "spiffe://",
    "{{ .Mesh }}",
    "{{",
    "/a",
    "[",
    "50%",
    "é\u{0}\n",
    "https://a:99999/ü",
];

/// What decides, byte by byte, how a document looks.
struct Choices<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Choices<'_> {
    fn next(&mut self) -> usize {
        self.at += 1;
        usize::from(self.bytes[self.at % self.bytes.len()])
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.next() % all.len()].clone()
    }

    fn text(&mut self) -> Value {
        self.of(&TEXTS).into()
    }

    fn number(&mut self) -> Value {
        self.of(&[
            json!(0),
            json!(1),
            json!(-1),
            json!(80),
            json!(100),
            json!(65536),
            json!(i64::MIN),
            json!(u64::MAX),
            json!(0.5),
            json!(1e308),
        ])
    }

    fn anything(&mut self) -> Value {
        match self.next() % 7 {
            0 => Value::Null,
            1 => json!(true),
            2 => json!([[], {}]),
            3 => json!({ "kind": "Mesh", "": {} }),
            4 => self.number(),
            _ => self.text(),
        }
    }

    /// A document that has the shape of `schema`, nearly.
    fn document(&mut self, schema: &Value, root: &Value, depth: usize) -> Value {
        if self.next().is_multiple_of(24) || depth > 12 {
            return self.anything();
        }
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let name = name.rsplit('/').next().unwrap();
            return self.document(&root["$defs"][name], root, depth + 1);
        }
        for word in ["anyOf", "oneOf", "enum"] {
            if let Some(choices) = schema.get(word).and_then(Value::as_array) {
                let choice = self.of(choices);
                let is_schema = word != "enum";
                return if is_schema { self.document(&choice, root, depth + 1) } else { choice };
            }
        }
        if let Some(value) = schema.get("const") {
            return value.clone();
        }
        let types = match schema.get("type") {
            Some(Value::Array(types)) => self.of(types),
            Some(one) => one.clone(),
            None => Value::Null,
        };
        match types.as_str() {
            Some("object") => self.object(schema, root, depth),
            Some("array") => {
                let items = schema.get("items").unwrap_or(&Value::Null);
                (0..self.next() % 3).map(|_| self.document(items, root, depth + 1)).collect()
            }
            Some("string") => self.text(),
            Some("integer" | "number") => self.number(),
            Some("boolean") => json!(self.next().is_multiple_of(2)),
            _ => self.anything(),
        }
    }

    fn object(&mut self, schema: &Value, root: &Value, depth: usize) -> Value {
        let mut fields = Map::new();
        for (name, field) in
            schema.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            if !self.next().is_multiple_of(3) {
                fields.insert(name.clone(), self.document(field, root, depth + 1));
            }
        }
        if let Some(other) = schema.get("additionalProperties") {
            for _ in 0..self.next() % 3 {
                let name = self.of(&TEXTS).to_owned();
                fields.insert(name, self.document(other, root, depth + 1));
            }
        }
        fields.into()
    }
}

fn is_stable(kind: &Kind, document: Value) -> Result<bool, TestCaseError> {
    let Ok(spec) = kind.from_json(document.clone()) else { return Ok(false) };
    let bytes = kind.encode(&spec).unwrap();
    let again = kind.decode(&bytes).map_err(|error| {
        TestCaseError::fail(format!(
            "{kind:?} takes {document} and not what it makes of it: {error}"
        ))
    })?;
    prop_assert_eq!(kind.encode(&again).unwrap(), bytes, "{:?} {}", kind, document);
    let shown = kind.to_json(&kind.encode(&again).unwrap()).unwrap();
    let back = kind.from_json(shown.clone()).map_err(|error| {
        TestCaseError::fail(format!("{kind:?} shows {shown} and does not take it: {error}"))
    })?;
    prop_assert_eq!(kind.encode(&back).unwrap(), kind.encode(&again).unwrap(), "{:?}", kind);
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn no_document_can_do_harm(bytes in prop::collection::vec(any::<u8>(), 1..400)) {
        let mut choices = Choices { bytes: &bytes, at: 0 };
        for kind in all() {
            let schema = kind.schema();
            let document = choices.document(schema.as_value(), schema.as_value(), 0);
            is_stable(&kind, document)?;
        }
    }

    #[test]
    fn no_bytes_can_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for kind in all() {
            if let Ok(spec) = kind.decode(&bytes) {
                let written = kind.encode(&spec).unwrap();
                let again = kind.decode(&written).unwrap();
                prop_assert_eq!(kind.encode(&again).unwrap(), written, "{:?}", kind);
            }
        }
    }
}

/// The documents above are not all nonsense: of most kinds some are taken.
#[test]
fn some_documents_are_taken() {
    let mut refused = Vec::new();
    for kind in all() {
        let schema = kind.schema();
        let taken = (0..4000_u32).any(|seed| {
            let bytes: Vec<u8> = (0..64_u32)
                .map(|i| (seed.wrapping_mul(2_654_435_761).wrapping_add(i * 40_503) >> 11) as u8)
                .collect();
            let mut choices = Choices { bytes: &bytes, at: 0 };
            let document = choices.document(schema.as_value(), schema.as_value(), 0);
            kind.from_json(document).is_ok()
        });
        if !taken {
            refused.push(kind.name);
        }
    }
    assert!(refused.len() * 2 < all().count(), "{refused:?}");
}
