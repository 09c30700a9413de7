//! Resources out of objects, and objects out of resources.
//!
//! What a view holds is what is read of an object, also of one that was just written: the API server
//! drops what its definition does not know, and adds defaults. So a restart changes nothing.

use super::{
    place::{KIND_LABEL, NAME_ANNOTATION, ObjectName, Place, Unreadable},
    problems::Problem,
};
use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::{DynamicObject, TypeMeta};
use resource::{KnownFields, Labels, NameRule, RejectedSpec, Resource, ResourceKey, Times, label};
use serde_json::Value;
use std::{collections::BTreeMap, error::Error};

/// As who we write, so that the API server remembers what of an object is ours.
pub(crate) const MANAGER: &str = "atoll";

/// Labels whose values may be longer than Kubernetes allows: they are annotations there.
const ANNOTATED: [&str; 3] = [label::DISPLAY_NAME, label::SERVICE_ACCOUNT, label::WORKLOAD];

/// Other labels that Kubernetes does not take, as JSON.
const LABELS_ANNOTATION: &str = "atoll.io/labels";

/// What others keep on an object of ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Foreign {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    finalizers: Vec<String>,
    owners: Vec<OwnerReference>,
}

impl Foreign {
    /// `None` if there is nothing.
    pub(crate) fn of(meta: &ObjectMeta) -> Option<Box<Self>> {
        let labels = meta.labels.iter().flatten();
        let labels = labels.filter(|(key, _)| {
            !label::is_reserved(key) && *key != KIND_LABEL && !is_written_by_us(meta, key)
        });
        let annotations = meta.annotations.iter().flatten();
        let annotations = annotations.filter(|(key, _)| {
            let key = key.as_str();
            ![NAME_ANNOTATION, LABELS_ANNOTATION].contains(&key) && !ANNOTATED.contains(&key)
        });
        let owned = |(key, value): (&String, &String)| (key.clone(), value.clone());
        let this = Self {
            labels: labels.map(owned).collect(),
            annotations: annotations.map(owned).collect(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
        };
        (this != Self::default()).then(|| Box::new(this))
    }
}

/// Who wrote what of an object stands in it.
fn is_written_by_us(meta: &ObjectMeta, label: &str) -> bool {
    let ours = meta.managed_fields.iter().flatten();
    let ours = ours.filter(|entry| entry.manager.as_deref() == Some(MANAGER));
    let field = format!("f:{label}");
    ours.filter_map(|entry| entry.fields_v1.as_ref()).any(|fields| {
        let labels = fields.0.get("f:metadata").and_then(|meta| meta.get("f:labels"));
        labels.is_some_and(|labels| labels.get(&field).is_some())
    })
}

/// A resource as it will be read of its object, and what goes into that.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) row: Resource,
    pub(crate) content: Value,
    status: Option<Value>,
}

impl Place {
    /// The resource that an object is.
    pub(crate) fn read(
        &self,
        key: &ResourceKey,
        object: &DynamicObject,
    ) -> Result<Resource, Unreadable> {
        let rejected = |error: RejectedSpec| self.unreadable(&error);
        let meta = &object.metadata;
        let labels = self.labels(key, meta)?;
        let spec = self.encode(self.content(&object.data)).map_err(rejected)?.1;
        let status = object.data.get("status").filter(|_| self.has_status());
        let status = self
            .status(status.cloned())
            .map_err(|error| Unreadable::at("status", chain(&error)))?;
        let row = self.kind.resource(key.clone(), labels, spec, status, self.peer);
        Ok(row.map_err(rejected)?.written(times(meta)))
    }

    /// The content of an object, if that says more than was read. Looked at where users write what a
    /// control plane reports on: nothing else is written by both.
    pub(crate) fn more(&self, read: &Resource, object: &DynamicObject) -> Option<Box<Value>> {
        let raw = self.has_status().then(|| self.content(&object.data))?;
        let known = self.kind.to_json(&read.spec).ok()?;
        (raw != known).then(|| Box::new(raw))
    }

    /// What of an object that can be read nobody here reads.
    pub(crate) fn unknown_fields(&self, object: &DynamicObject) -> Option<Problem> {
        let mut fields = self.fields.others(&self.content(&object.data), self.content_field());
        let more = fields.len().saturating_sub(KnownFields::TOLD);
        fields.truncate(KnownFields::TOLD);
        fields.extend((more > 0).then(|| format!("and {more} more")));
        (!fields.is_empty()).then(|| Problem::UnknownFields(fields.join(", ").into()))
    }

    /// What stands for an object that cannot be read.
    pub(crate) fn placeholder(&self, key: &ResourceKey, object: &DynamicObject) -> Resource {
        let labels = self.labels(key, &object.metadata).unwrap_or_default();
        let spec = serde_json::to_vec(&self.content(&object.data)).unwrap_or_default().into();
        let audience = resource::Audience { hidden: true, ..resource::Audience::default() };
        let row = Resource::new(key.clone(), labels, spec, Bytes::new(), audience);
        row.unreadable().written(times(&object.metadata))
    }

    /// `row` with all that an object called `at` adds to it.
    pub(crate) fn settle(
        &self,
        row: &Resource,
        at: &ObjectName,
        foreign: Option<&Foreign>,
    ) -> Result<Settled, RejectedSpec> {
        let (key, peer) = (&row.head.key, self.peer);
        let mut labels: BTreeMap<&str, &str> = row.head.labels.iter().collect();
        for (key, value) in foreign.iter().flat_map(|foreign| &foreign.labels) {
            labels.entry(key).or_insert(value);
        }
        self.complete(&mut labels, key, at.namespace.as_deref(), self.base(key, at));
        let labels: Labels = labels.into_iter().collect();
        let (content, spec) = self.encode(self.kind.to_json(&row.spec)?)?;
        let status = if self.has_status() { row.status.clone() } else { Bytes::new() };
        let status = if status.is_empty() {
            Bytes::new()
        } else {
            self.status(serde_json::from_slice(&status).ok())?
        };
        let shown = serde_json::from_slice(&status).ok();
        let settled = self.kind.resource(key.clone(), labels, spec, status, peer)?;
        // Who writes may have decided who sees it; otherwise that follows from what is said now.
        let usual = row.head.audience == settled.head.audience || {
            let (labels, spec) = (row.head.labels.clone(), row.spec.clone());
            let derived =
                self.kind.resource(key.clone(), labels, spec, row.status.clone(), peer)?;
            derived.head.audience == row.head.audience
        };
        let row = if usual { settled } else { settled.shown_to(row.head.audience.clone()) };
        Ok(Settled { row, content, status: shown })
    }

    /// The object of a resource. `replaced` is the id and the version of the one that it replaces.
    pub(crate) fn object(
        &self,
        Settled { row, content, status }: Settled,
        at: &ObjectName,
        foreign: Option<&Foreign>,
        replaced: Option<(&str, &str)>,
    ) -> DynamicObject {
        let key = &row.head.key;
        let foreign = foreign.cloned().unwrap_or_default();
        let (mut labels, mut annotations) = (foreign.labels, foreign.annotations);
        let mut held: BTreeMap<&str, &str> = BTreeMap::new();
        for (label, value) in row.head.labels.iter() {
            if ANNOTATED.contains(&label) {
                annotations.insert(label.to_owned(), value.to_owned());
            } else if is_label(label, value) {
                labels.insert(label.to_owned(), value.to_owned());
            } else {
                held.insert(label, value);
            }
        }
        labels.extend(self.own_label().map(|(key, value)| (key.to_owned(), value.to_owned())));
        if !held.is_empty() {
            let held = serde_json::to_string(&held).unwrap_or_default();
            annotations.insert(LABELS_ANNOTATION.into(), held);
        }
        let name = self.base(key, at);
        if name != &*at.name {
            annotations.insert(NAME_ANNOTATION.into(), name.to_owned());
        }
        let metadata = ObjectMeta {
            name: Some(at.name.to_string()),
            namespace: at.namespace.as_ref().map(ToString::to_string),
            uid: replaced.map(|(uid, _)| uid.to_owned()),
            resource_version: replaced.map(|(_, version)| version.to_owned()),
            labels: Some(labels).filter(|it| !it.is_empty()),
            annotations: Some(annotations).filter(|it| !it.is_empty()),
            finalizers: Some(foreign.finalizers).filter(|it| !it.is_empty()),
            owner_references: Some(foreign.owners).filter(|it| !it.is_empty()),
            ..ObjectMeta::default()
        };
        let (api_version, kind) = (self.api.api_version.clone(), self.api.kind.clone());
        let data = self.data(key, content, status);
        DynamicObject { types: Some(TypeMeta { api_version, kind }), metadata, data }
    }

    /// The labels of the resource `key`.
    fn labels(&self, key: &ResourceKey, meta: &ObjectMeta) -> Result<Labels, Unreadable> {
        let annotation = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key));
        let held: BTreeMap<String, String> = match annotation(LABELS_ANNOTATION) {
            Some(held) => serde_json::from_str(held)
                .map_err(|error| Unreadable::at("metadata.annotations[atoll.io/labels]", error))?,
            None => BTreeMap::new(),
        };
        let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
        for (key, value) in meta.labels.iter().flatten().chain(&held) {
            labels.insert(key, value);
        }
        labels.remove(KIND_LABEL);
        labels.extend(ANNOTATED.iter().filter_map(|key| Some((*key, annotation(key)?.as_str()))));
        self.complete(&mut labels, key, meta.namespace.as_deref(), self.name(meta));
        Ok(labels.into_iter().collect())
    }

    /// Adds what follows from where an object is.
    #[expect(clippy::unused_self, reason = "beside its sisters")]
    fn complete<'a>(
        &self,
        labels: &mut BTreeMap<&'a str, &'a str>,
        key: &'a ResourceKey,
        namespace: Option<&'a str>,
        name: &'a str,
    ) {
        labels.entry(label::DISPLAY_NAME).or_insert(name);
        if let Some(mesh) = &key.mesh {
            labels.insert(label::MESH, mesh.as_str());
        }
        // A copy from elsewhere says where the original is.
        let copied = labels.get(label::ORIGIN) == Some(&label::ORIGIN_GLOBAL);
        if let Some(namespace) = namespace.filter(|_| !copied) {
            labels.insert(label::NAMESPACE, namespace);
        }
    }

    /// The bytes of a spec, and the JSON that reads back as these.
    fn encode(&self, mut content: Value) -> Result<(Value, Bytes), RejectedSpec> {
        // The API server sorts.
        content.sort_all_objects();
        let spec = self.kind.from_json(content.clone())?;
        Ok((content, self.kind.encode(&spec)?))
    }

    fn status(&self, status: Option<Value>) -> Result<Bytes, RejectedSpec> {
        let Some(mut status) = status else { return Ok(Bytes::new()) };
        if status.is_null() || status.as_object().is_some_and(serde_json::Map::is_empty) {
            return Ok(Bytes::new());
        }
        status.sort_all_objects();
        self.kind.encode_status(status)
    }

    fn unreadable(&self, error: &RejectedSpec) -> Unreadable {
        match error {
            // Violations name their fields.
            RejectedSpec::Invalid { violations, .. } => Unreadable(violations.to_string()),
            RejectedSpec::Malformed { .. } => Unreadable::at(self.content_field(), chain(error)),
        }
    }
}

/// `now` with what stands in `raw`, `before` is read of it, and nobody here knows: definitions may be
/// newer than we are.
pub(crate) fn keep(now: Value, before: &Value, raw: &Value) -> Value {
    if now == *before {
        return raw.clone();
    }
    match (now, before, raw) {
        (Value::Object(mut now), Value::Object(before), Value::Object(raw)) => {
            for (name, raw) in raw {
                match (now.get_mut(name), before.get(name)) {
                    (Some(value), Some(before)) => *value = keep(value.take(), before, raw),
                    (None, None) => drop(now.insert(name.clone(), raw.clone())),
                    // Ours, or taken away.
                    (Some(_), None) | (None, Some(_)) => {}
                }
            }
            Value::Object(now)
        }
        (now, ..) => now,
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn times(meta: &ObjectMeta) -> Times {
    let created = meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let written = meta.managed_fields.iter().flatten();
    let written = written.filter_map(|entry| entry.time.as_ref().map(|time| time.0));
    Times { created, modified: written.max().unwrap_or(created).max(created) }
}

/// Whether Kubernetes takes it as a label.
fn is_label(key: &str, value: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    prefix.is_none_or(|prefix| NameRule::Subdomain.check(prefix).is_ok())
        && !name.is_empty()
        && is_word(name)
        && is_word(value)
}

fn is_word(text: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let outer = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && bytes.iter().all(inner) && outer(bytes.first()) && outer(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_nobody_here_knows_is_kept() {
        let raw = json!({ "a": { "b": 1, "new": [1] }, "list": [{ "c": 1, "new": 2 }], "gone": { "new": 1 } });
        let before = json!({ "a": { "b": 1 }, "list": [{ "c": 1 }], "gone": {} });
        assert_eq!(keep(before.clone(), &before, &raw), raw);
        let now = json!({ "a": { "b": 2 }, "list": [{ "c": 1 }], "more": 1 });
        let kept =
            json!({ "a": { "b": 2, "new": [1] }, "list": [{ "c": 1, "new": 2 }], "more": 1 });
        assert_eq!(keep(now, &before, &raw), kept);
        // Whose an element of another list is, nobody can say.
        let now = json!({ "a": { "b": 1, "new": "ours" }, "list": [{ "c": 2 }], "gone": {} });
        let kept = json!({
            "a": { "b": 1, "new": "ours" }, "list": [{ "c": 2 }], "gone": { "new": 1 },
        });
        assert_eq!(keep(now, &before, &raw), kept);
    }
}
