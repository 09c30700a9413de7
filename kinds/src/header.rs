//! Headers, as policies compare and change them.

use crate::{regex, rule};
use resource::Violations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a header is called: of lower case, as HTTP/2 has it.
pub(crate) const NAME: &str = r"^[a-z0-9!#$%&'*+\-.^_\x60|~]+$";

/// Compares a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeaderMatch {
    /// Its name.
    #[schemars(length(min = 1, max = 256), regex(pattern = NAME))]
    pub name: String,
    /// How it is compared.
    #[serde(default)]
    pub r#type: HeaderMatchType,
    /// With what, where it is compared with something.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// How headers are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HeaderMatchType {
    /// It has this value.
    #[default]
    Exact,
    /// It is there.
    Present,
    /// Its value fits a regular expression.
    RegularExpression,
    /// It is not there.
    Absent,
    /// Its value begins with this.
    Prefix,
}

impl HeaderMatch {
    /// Reports what is wrong with it at `path`.
    pub(crate) fn check(&self, path: &str, violations: &mut Violations) {
        check_name(&format!("{path}.name"), &self.name, violations);
        let alone = matches!(self.r#type, HeaderMatchType::Present | HeaderMatchType::Absent);
        if alone && !self.value.is_empty() {
            violations.add(format_args!("{path}.value"), "must not be defined");
        }
        if self.r#type == HeaderMatchType::RegularExpression {
            regex::check(format_args!("{path}.value"), &self.value, violations);
        }
    }
}

/// A header and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    /// Its name.
    #[schemars(length(min = 1, max = 256), regex(pattern = NAME))]
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Changes headers; of one name there can be one change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeaderModifier {
    /// Puts them in place of those with their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub set: Vec<Header>,
    /// Adds them to those with their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub add: Vec<Header>,
    /// Takes away those with these names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub remove: Vec<String>,
}

impl HeaderModifier {
    /// Reports what is wrong with it at `path`.
    pub(crate) fn check(&self, path: &str, violations: &mut Violations) {
        if self.set.is_empty() && self.add.is_empty() && self.remove.is_empty() {
            violations.add(path, "must have at least one defined: set, add, remove");
        }
        let mut taken = BTreeSet::new();
        for (field, headers) in [("set", &self.set), ("add", &self.add)] {
            check_headers(&format!("{path}.{field}"), headers, &mut taken, violations);
        }
        let path = format!("{path}.remove");
        rule::items(&path, self.remove.len(), 0..=16, violations);
        for (i, name) in self.remove.iter().enumerate() {
            once(&format!("{path}[{i}].name"), name, &mut taken, violations);
        }
    }
}

/// Reports what is wrong with a list of at most 16 headers, none of which may be in `taken`.
pub(crate) fn check_headers<'a>(
    path: &str,
    headers: &'a [Header],
    taken: &mut BTreeSet<&'a str>,
    violations: &mut Violations,
) {
    rule::items(path, headers.len(), 0..=16, violations);
    for (i, header) in headers.iter().enumerate() {
        let path = format!("{path}[{i}].name");
        check_name(&path, &header.name, violations);
        once(&path, &header.name, taken, violations);
    }
}

/// Reports what is wrong with the name of a header.
pub(crate) fn check_name(path: &str, name: &str, violations: &mut Violations) {
    rule::length(path, name, 1..=256, violations);
    let is_part =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !name.is_empty() && !name.bytes().all(is_part) {
        violations.add(path, format_args!("in body should match '{NAME}'"));
    }
}

fn once<'a>(path: &str, name: &'a str, taken: &mut BTreeSet<&'a str>, violations: &mut Violations) {
    if !taken.insert(name) {
        violations.add(path, "duplicate header name");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn wrong(check: impl FnOnce(&mut Violations)) -> Vec<String> {
        let mut violations = Violations::default();
        check(&mut violations);
        violations.iter().map(ToString::to_string).collect()
    }

    fn header(json: Value) -> Vec<String> {
        let header: HeaderMatch = serde_json::from_value(json).unwrap();
        wrong(|violations| header.check("h", violations))
    }

    fn modifier(json: Value) -> Vec<String> {
        let modifier: HeaderModifier = serde_json::from_value(json).unwrap();
        wrong(|violations| modifier.check("m", violations))
    }

    #[test]
    fn a_header_is_compared_by_its_name() {
        assert_eq!(header(json!({ "name": "x-a`|~", "value": "1" })), [""; 0]);
        assert_eq!(header(json!({ "name": "x", "type": "Absent" })), [""; 0]);
        assert_eq!(
            header(json!({ "name": "" })),
            ["h.name: in body should be at least 1 chars long"]
        );
        assert_eq!(
            header(json!({ "name": "X".repeat(257), "type": "Present", "value": "1" })),
            [
                "h.name: in body should be at most 256 chars long",
                r"h.name: in body should match '^[a-z0-9!#$%&'*+\-.^_\x60|~]+$'",
                "h.value: must not be defined",
            ]
        );
        let read: HeaderMatch = serde_json::from_value(json!({ "name": "x" })).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), json!({ "name": "x", "type": "Exact" }));
    }

    #[test]
    fn a_header_is_changed_once() {
        let set = |name: &str| json!({ "name": name, "value": "1" });
        assert_eq!(modifier(json!({ "set": [set("a")], "remove": ["B"] })), [""; 0]);
        assert_eq!(modifier(json!({})), ["m: must have at least one defined: set, add, remove"]);
        let many: Vec<_> = (0..17).map(|i| format!("x{i}")).collect();
        assert_eq!(
            modifier(json!({ "remove": many })),
            ["m.remove: in body should have at most 16 items"]
        );
        assert_eq!(
            modifier(json!({ "set": [set("a"), set("a")], "add": [set("a")], "remove": ["a"] })),
            [
                "m.set[1].name: duplicate header name",
                "m.add[0].name: duplicate header name",
                "m.remove[0].name: duplicate header name",
            ]
        );
    }
}
