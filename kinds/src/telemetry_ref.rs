//! Names the collectors that telemetry goes to.

use resource::Violations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A collector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TelemetryRef {
    /// What it is.
    pub kind: TelemetryKind,
    /// Labels that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// What a collector can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TelemetryKind {
    /// A collector that speaks OpenTelemetry.
    MeshOpenTelemetryBackend,
}

impl TelemetryRef {
    /// Reports what is wrong with one that has to be at `path`.
    pub(crate) fn check(collector: Option<&Self>, path: &str, violations: &mut Violations) {
        let Some(collector) = collector else { return violations.add(path, "must be defined") };
        if collector.labels.as_ref().is_none_or(BTreeMap::is_empty) {
            let path = format_args!("{path}.labels");
            violations.add(path, "must be set when kind is MeshOpenTelemetryBackend");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_has_labels() {
        let labels = [("app".to_owned(), "otel".to_owned())];
        let of = |labels| TelemetryRef { kind: TelemetryKind::MeshOpenTelemetryBackend, labels };
        let missing = "c.labels: must be set when kind is MeshOpenTelemetryBackend";
        for (collector, expected) in [
            (Some(of(Some(labels.into()))), ""),
            (Some(of(Some(BTreeMap::new()))), missing),
            (Some(of(None)), missing),
            (None, "c: must be defined"),
        ] {
            let mut violations = Violations::default();
            TelemetryRef::check(collector.as_ref(), "c", &mut violations);
            assert_eq!(violations.to_string(), expected);
        }
    }
}
