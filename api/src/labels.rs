//! Labels in a request: which a user may set, and what the control plane makes of them.
//!
//! A reserved label is never believed. What control planes compute is computed here again, and a
//! request that says otherwise is refused, because its author expects something that will not be.

use super::{limits, state::Place};
use resource::{Kind, Labels, NameRule, Resource, ResourceKey, Violations, label};
use serde_json::{Map, Value};

/// The labels of a document.
pub(crate) fn given(fields: &mut Map<String, Value>, violations: &mut Violations) -> Labels {
    let labels = match fields.remove("labels") {
        None | Some(Value::Null) => return Labels::default(),
        Some(Value::Object(labels)) => labels,
        Some(_) => {
            violations.add("labels", "must be a map of texts");
            return Labels::default();
        }
    };
    if labels.len() > limits::LABELS {
        violations.add("labels", format_args!("must be no more than {}", limits::LABELS));
        return Labels::default();
    }
    let mut good = Vec::new();
    for (key, value) in &labels {
        let reasons = match value.as_str() {
            None => vec!["must be a text".into()],
            Some(value) => check_key(key).into_iter().chain(check_value(key, value)).collect(),
        };
        if reasons.is_empty() {
            good.push((key.as_str(), value.as_str().unwrap_or_default()));
        }
        for reason in reasons {
            violations.add(field(key), reason);
        }
    }
    good.into_iter().collect()
}

fn field(key: &str) -> String {
    format!("labels[{key:?}]")
}

const NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// Kubernetes' qualified names: `[prefix/]name`.
fn check_key(key: &str) -> Vec<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let mut reasons = Vec::new();
    if prefix.is_some_and(|prefix| NameRule::Subdomain.check(prefix).is_err()) {
        reasons.push("prefix part must be a DNS subdomain of at most 253 characters".into());
    }
    if name.len() > 63 {
        reasons.push("name part must be no more than 63 bytes".into());
    }
    if !is_label_text(name) {
        reasons.push(format!("name part {NAME}"));
    }
    reasons
}

fn check_value(key: &str, value: &str) -> Option<String> {
    // A name may be longer than a label's value, and stands in this label nevertheless.
    let longest = if key == label::DISPLAY_NAME { 253 } else { 63 };
    if key == label::WORKLOAD && !value.is_empty() {
        // It becomes the name of a service and a part of identities.
        NameRule::Label.check(value).err().map(|error| error.to_string())
    } else if value.len() > longest {
        Some(format!("must be no more than {longest} bytes"))
    } else if value.is_empty() || is_label_text(value) {
        None
    } else {
        Some(format!("a valid label {NAME}"))
    }
}

fn is_label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

pub(crate) fn origin_must_be(place: &Place) -> String {
    format!("the origin label must be set to '{}'", place.origin())
}

/// What only control planes set, beside what they compute: kept as it is stored, never taken from a
/// request.
const SET_BY_CONTROL_LOOPS: [&str; 2] = [label::MANAGED_BY, label::GRACE_PERIOD_STARTED];

/// What decides about a resource elsewhere, so that nobody may make it up.
const COMPUTED: [&str; 8] = [
    label::DISPLAY_NAME,
    label::MESH,
    label::ORIGIN,
    label::ZONE,
    label::ENV,
    label::ROLE,
    label::LISTENER_ZONE_INGRESS,
    label::LISTENER_ZONE_EGRESS,
];

/// The labels a resource is stored with: those that were given, and those that are computed.
pub(crate) fn stored(
    kind: &Kind,
    place: &Place,
    before: Option<&Resource>,
    given: &Labels,
    computed: &Labels,
) -> Result<Labels, Violations> {
    let mut violations = Violations::default();
    let held = before.map(|row| &row.head.labels);
    origin(kind, place, given, held, &mut violations);
    for (name, value) in given.iter().filter(|(name, _)| *name != label::ORIGIN) {
        let expected = if COMPUTED.contains(&name) {
            computed.get(name)
        } else if SET_BY_CONTROL_LOOPS.contains(&name) || name == label::NAMESPACE {
            held.and_then(|held| held.get(name))
        } else {
            Some(value)
        };
        match expected {
            Some(expected) if expected == value => {}
            Some(expected) => {
                violations.add(field(name), format_args!("{name} label should have {expected} value"));
            }
            None => violations.add(field(name), "is set by control planes only"),
        }
    }
    if !violations.is_empty() {
        return Err(violations);
    }
    Ok(given.iter().chain(computed.iter()).collect())
}

/// A federated zone wants to hear that a resource shall be its own: what global sent looks alike.
fn origin(
    kind: &Kind,
    place: &Place,
    given: &Labels,
    held: Option<&Labels>,
    violations: &mut Violations,
) {
    let of = |labels: &Labels| labels.get(label::ORIGIN).map(str::to_owned);
    let (given, held) = (of(given), held.and_then(of));
    let (must_say, may_take_over) = match place {
        Place::Global => (false, false),
        Place::Zone { federated, .. } => (*federated && !kind.inline, !federated),
    };
    let wrong = match &given {
        Some(given) => given != place.origin(),
        None => must_say,
    };
    let foreign = held.is_some_and(|held| held != place.origin()) && !may_take_over;
    if wrong || foreign {
        violations.add(field(label::ORIGIN), origin_must_be(place));
    }
}

/// What a control plane says about a resource that is written here.
pub(crate) fn computed(kind: &Kind, place: &Place, key: &ResourceKey) -> Labels {
    let mut labels = Labels::default().with(label::DISPLAY_NAME, &key.name);
    if let Some(mesh) = &key.mesh {
        labels = labels.with(label::MESH, mesh.as_str());
    }
    labels = labels.with(label::ORIGIN, place.origin());
    match place {
        Place::Zone { name, env, .. } if kind.flow.written_in_zones() => {
            labels.with(label::ZONE, name.as_str()).with(label::ENV, env)
        }
        Place::Zone { .. } | Place::Global => labels,
    }
}
