//! What the custom resource definitions make of manifests as users of Kuma 3 write them.
//!
//! This reads a definition as an API server does. The manifests can be put to a real one: it takes
//! those of `good.yaml`, and of each in `bad.yaml` it names the places that its annotation lists.

use super::{all, crd};
use cel::{Context, Program};
use regex::Regex;
use resource::{Kind, RejectedSpec};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

const GOOD: &str = include_str!("../testdata/manifests/good.yaml");
const BAD: &str = include_str!("../testdata/manifests/bad.yaml");

fn documents(yaml: &str) -> Vec<(Kind, Value)> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    let kinds: BTreeMap<&str, Kind> = all().map(|kind| (kind.name, kind)).collect();
    let kind_of = |document: &Value| kinds[document["kind"].as_str().unwrap()];
    documents.into_iter().map(|document| (kind_of(&document), document)).collect()
}

fn schema(kind: Kind) -> Value {
    let definition = crd::definition(&kind).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Reads documents by a schema.
#[derive(Default)]
struct Reader {
    /// Where a document is wrong.
    wrong: BTreeSet<String>,
    /// The rules of the schema that it breaks.
    broken: BTreeSet<String>,
}

impl Reader {
    fn of(kind: Kind, document: &Value) -> Self {
        let (mut reader, schema, mut document) = (Self::default(), schema(kind), document.clone());
        fill(&schema, &mut document);
        reader.check(&schema, &document, "");
        // What has not the form of its schema is not asked for more.
        if reader.wrong.is_empty() {
            reader.all_rules(&schema, &document, "");
        }
        reader
    }

    fn is_wrong(&mut self, path: &str, wrong: bool) {
        if wrong {
            self.wrong.insert(path.trim_start_matches('.').to_owned());
        }
    }

    fn check(&mut self, schema: &Value, document: &Value, path: &str) {
        let kind = schema["type"].as_str();
        let either = schema["x-kubernetes-int-or-string"] == true;
        let fits = match document {
            Value::String(_) => kind.is_none_or(|kind| kind == "string"),
            Value::Number(number) if number.is_f64() => kind.is_none() && !either,
            Value::Number(_) => kind.is_none_or(|kind| kind == "integer"),
            Value::Bool(_) => kind.map_or(!either, |kind| kind == "boolean"),
            Value::Array(_) => kind.map_or(!either, |kind| kind == "array"),
            Value::Object(_) => kind.map_or(!either, |kind| kind == "object"),
            Value::Null => false,
        };
        self.is_wrong(path, !fits);
        if !fits || kind.is_none() {
            return;
        }
        self.bounds(schema, document, path);
        if let Some(fields) = document.as_object() {
            self.object(schema, fields, path);
        }
        for (i, item) in document.as_array().into_iter().flatten().enumerate() {
            self.check(&schema["items"], item, &format!("{path}[{i}]"));
        }
    }

    fn bounds(&mut self, schema: &Value, document: &Value, path: &str) {
        let text = document.as_str().unwrap_or_default();
        let size = match document {
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            Value::String(text) => text.chars().count(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        };
        let limit =
            |word: &'static str| schema[word].as_u64().map(|limit| usize::try_from(limit).unwrap());
        let all = |words: [&'static str; 3]| words.into_iter().filter_map(limit);
        let few = all(["minLength", "minItems", "minProperties"]).any(|it| size < it);
        let many = all(["maxLength", "maxItems", "maxProperties"]).any(|it| size > it);
        let number = document.as_i64().unwrap_or_default();
        let low = schema["minimum"].as_i64().is_some_and(|least| number < least);
        let high = schema["maximum"].as_i64().is_some_and(|most| number > most);
        let other = schema["enum"].as_array().is_some_and(|values| !values.contains(document));
        let pattern = schema["pattern"].as_str().map(|pattern| Regex::new(pattern).unwrap());
        let unlike = pattern.is_some_and(|pattern| !pattern.is_match(text));
        let format = schema["format"].as_str();
        let wide = format == Some("int32") && i32::try_from(number).is_err();
        let no_time = format == Some("duration") && text.parse::<resource::GoDuration>().is_err();
        self.is_wrong(path, few || many || low || high || other || unlike || wide || no_time);
    }

    fn object(&mut self, schema: &Value, fields: &Map<String, Value>, path: &str) {
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap();
            self.is_wrong(&format!("{path}.{name}"), !fields.contains_key(name));
        }
        for (name, field) in fields {
            let path = format!("{path}.{name}");
            let (known, other) = (&schema["properties"][name], &schema["additionalProperties"]);
            if known.is_object() {
                self.check(known, field, &path);
            } else if other.is_object() {
                self.check(other, field, &path);
            } else {
                // What belongs to every object stands in no schema.
                self.is_wrong(&path, !path.starts_with(".metadata."));
            }
        }
    }

    fn all_rules(&mut self, schema: &Value, document: &Value, path: &str) {
        self.rules(schema, document, path);
        for (name, field) in document.as_object().into_iter().flatten() {
            let (known, other) = (&schema["properties"], &schema["additionalProperties"]);
            self.all_rules(known.get(name).unwrap_or(other), field, &format!("{path}.{name}"));
        }
        for (i, item) in document.as_array().into_iter().flatten().enumerate() {
            self.all_rules(&schema["items"], item, &format!("{path}[{i}]"));
        }
    }

    fn rules(&mut self, schema: &Value, document: &Value, path: &str) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let text = rule["rule"].as_str().unwrap();
            let mut context = Context::default();
            context.add_variable("self", document).unwrap();
            let program = Program::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            match program.execute(&context) {
                Ok(cel::Value::Bool(true)) => {}
                Ok(cel::Value::Bool(false)) => {
                    let field = rule["fieldPath"].as_str().unwrap_or_default();
                    self.is_wrong(&format!("{path}{field}"), true);
                    self.broken.insert(text.to_owned());
                }
                other => panic!("{path}: {text}: {other:?}"),
            }
        }
    }
}

/// Writes the defaults of a schema into a document.
fn fill(schema: &Value, document: &mut Value) {
    if let Some(fields) = document.as_object_mut() {
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(default) = schema.get("default") {
                fields.entry(name.clone()).or_insert_with(|| default.clone());
            }
            if let Some(field) = fields.get_mut(name) {
                fill(schema, field);
            }
        }
    }
    for item in document.as_array_mut().into_iter().flatten() {
        fill(&schema["items"], item);
    }
}

/// Where our type says that something is wrong with the spec of a manifest.
fn wrong_for_us(kind: Kind, document: &Value) -> Vec<String> {
    let content = document[kind.custom.unwrap().content].clone();
    match kind.from_json(content) {
        Ok(_) => Vec::new(),
        Err(RejectedSpec::Invalid { violations, .. }) => {
            violations.iter().map(|violation| violation.path.clone()).collect()
        }
        Err(malformed) => panic!("{malformed:?} in {document}"),
    }
}

#[test]
fn manifests_of_the_field_are_taken_as_they_are() {
    let mut seen = BTreeSet::new();
    for (kind, document) in documents(GOOD) {
        seen.insert(kind.name);
        let name = &document["metadata"]["name"];
        assert_eq!(Reader::of(kind, &document).wrong, BTreeSet::new(), "{kind:?} {name}");
        assert_eq!(wrong_for_us(kind, &document), [""; 0], "{kind:?} {name}");
    }
    let kinds = all().filter(|kind| kind.custom.is_some()).map(|kind| kind.name);
    assert_eq!(seen, kinds.collect());
}

/// What a definition refuses our types refuse too, at the same place: a definition is never more
/// strict, so nothing that comes from other control planes is refused by a Kubernetes zone alone.
#[test]
fn what_a_definition_refuses_is_wrong_for_us_too() {
    let mut broken = BTreeSet::new();
    for (kind, document) in documents(BAD) {
        let expected = document["metadata"]["annotations"]["wrong"].as_str().unwrap();
        let expected: BTreeSet<String> = expected.split(' ').map(str::to_owned).collect();
        let found = Reader::of(kind, &document);
        assert_eq!(found.wrong, expected, "{document}");
        let ours = wrong_for_us(kind, &document);
        for path in &expected {
            let near = |it: &String| it.starts_with(&**path) || path.starts_with(&**it);
            assert!(ours.iter().any(near), "{path} of {document}: {ours:?}");
        }
        broken.extend(found.broken);
    }
    let mut rules = BTreeSet::new();
    for kind in all().filter(|kind| kind.custom.is_some()) {
        collect(&schema(kind), 0, &mut rules);
    }
    let rules: BTreeSet<String> = rules.into_iter().map(|(rule, _)| rule).collect();
    let kept: Vec<&String> = rules.difference(&broken).collect();
    assert_eq!(kept, [""; 0], "no manifest breaks these rules");
}

/// All rules of a schema, each with how many lists without a bound it stands in.
fn collect(schema: &Value, lists: usize, rules: &mut BTreeSet<(String, usize)>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        rules.insert((rule["rule"].as_str().unwrap().to_owned(), lists));
    }
    let fields = schema["properties"].as_object();
    fields.into_iter().flatten().for_each(|(_, field)| collect(field, lists, rules));
    for (inner, bound) in [("items", "maxItems"), ("additionalProperties", "maxProperties")] {
        if schema[inner].is_object() {
            collect(&schema[inner], lists + usize::from(schema[bound].is_null()), rules);
        }
    }
}

/// An API server refuses a definition whose rules could cost too much: it counts a list without a
/// bound as long as a request can be, and multiplies.
#[test]
fn no_rule_looks_into_lists_of_lists() {
    for kind in all().filter(|kind| kind.custom.is_some()) {
        let mut rules = BTreeSet::new();
        collect(&schema(kind), 0, &mut rules);
        for (rule, lists) in rules {
            let looks = [".all(", ".exists(", ".filter(", ".map("];
            let over: usize = looks.iter().map(|it| rule.matches(it).count()).sum();
            assert!(lists + over <= 1, "{kind:?}: {rule}");
        }
    }
}
