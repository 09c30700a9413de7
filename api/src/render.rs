//! Resources as the API shows them.

use super::health::Health;
use jiff::{Timestamp, tz::TimeZone};
use resource::{Access, Head, Kind, RejectedSpec, Resource, label};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The form of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// The API's own.
    #[default]
    Universal,
    /// A Kubernetes object.
    Kubernetes,
}

/// The head of a resource; its spec and status follow in ways that differ.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mesh: Option<&'a str>,
    name: &'a str,
    creation_time: Timestamp,
    modification_time: Timestamp,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kri: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn envelope<'a>(name: &'a str, kind: &Kind, row: &'a Resource, rest: Map<String, Value>) -> Value {
    let head = &row.head;
    let envelope = Envelope {
        r#type: name,
        mesh: head.key.mesh.as_ref().map(resource::MeshName::as_str),
        name: &head.key.name,
        creation_time: head.times.created,
        modification_time: head.times.modified,
        labels: head.labels.iter().collect(),
        kri: (!kind.short.is_empty()).then(|| kind.kri(head).to_string()),
        rest,
    };
    serde_json::to_value(envelope).expect("an envelope has text keys only")
}

/// What a spec says, as the API has it.
fn spec(kind: &Kind, row: &Resource) -> Result<Value, RejectedSpec> {
    kind.to_json(&row.spec)
}

/// A resource in full.
pub(crate) fn resource(kind: &Kind, row: &Resource, form: Form) -> Result<Value, RejectedSpec> {
    let spec = spec(kind, row)?;
    if form == Form::Kubernetes {
        return Ok(kubernetes(kind, &row.head, spec));
    }
    let mut rest = Map::new();
    let snis = super::sni::of(kind, row);
    if !snis.is_empty() {
        rest.insert("snis".into(), json!(snis));
    }
    if let (true, Value::Object(fields)) = (kind.inline, &spec) {
        rest.extend(fields.clone());
    } else {
        rest.insert("spec".into(), spec);
    }
    if let Some(status) = status(kind, row) {
        rest.insert("status".into(), status);
    }
    Ok(envelope(kind.name, kind, row, rest))
}

/// A resource as lists and watches show it: of a secret only that it is there.
pub(crate) fn listed(kind: &Kind, row: &Resource) -> Result<Value, RejectedSpec> {
    if kind.access == Access::Admins {
        return Ok(envelope(kind.name, kind, row, Map::new()));
    }
    resource(kind, row, Form::Universal)
}

fn status(kind: &Kind, row: &Resource) -> Option<Value> {
    let known = if row.status.is_empty() { kind.blank_status() } else { row.status.clone() };
    kind.has_status.then(|| serde_json::from_slice(&known).unwrap_or(Value::Null))
}

/// A resource with what is known about it: `ZoneOverview` from a Zone and its ZoneInsight.
pub(crate) fn overview(
    (kind, row): (&Kind, &Resource),
    (insight_kind, insight): (&Kind, Option<&Resource>),
    health: Option<Health>,
) -> Result<Value, RejectedSpec> {
    let mut rest = Map::new();
    rest.insert(lower_first(kind.name), spec(kind, row)?);
    if let Some(insight) = insight {
        rest.insert(lower_first(insight_kind.name), spec(insight_kind, insight)?);
    }
    if let Some(health) = health {
        rest.insert("status".into(), json!(health));
    }
    Ok(envelope(&format!("{}Overview", kind.name), kind, row, rest))
}

fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(chars).collect()
}

fn kubernetes(kind: &Kind, head: &Head, spec: Value) -> Value {
    // What control planes compute, a Kubernetes object gets again when it is applied.
    let labels =
        head.labels.iter().filter(|(key, _)| *key == label::MESH || !label::is_reserved(key));
    let created =
        head.times.created.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let display = head.labels.get(label::DISPLAY_NAME).unwrap_or(&head.key.name);
    let namespace = head.labels.get(label::NAMESPACE).unwrap_or("kuma-system");
    let namespaced = head.key.mesh.is_some() || !kind.inline;
    let mut metadata = json!({
        "name": display,
        "creationTimestamp": created,
        "labels": labels.collect::<BTreeMap<_, _>>(),
    });
    if let (true, Value::Object(metadata)) = (namespaced, &mut metadata) {
        metadata.insert("namespace".into(), namespace.into());
    }
    json!({
        "kind": kind.name,
        "apiVersion": "kuma.io/v1alpha1",
        "metadata": metadata,
        "spec": spec,
    })
}
