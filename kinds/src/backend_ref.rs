//! Where routes send traffic.

use resource::Violations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A destination, and its share of the traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    /// What it is.
    pub kind: BackendKind,
    /// Labels that it has; of several with them, the oldest is meant.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its port, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// Its share, of the sum of all.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    pub weight: u32,
    /// Its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
}

const fn one() -> u32 {
    1
}

/// What a document may say a backend is; `BackendRef::check` takes fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackendKind {
    /// A mesh.
    Mesh,
    /// A service of a zone.
    MeshService,
    /// A service outside the mesh.
    MeshExternalService,
    /// A service of several zones.
    MeshMultiZoneService,
    /// A route.
    MeshHTTPRoute,
    /// A proxy.
    Dataplane,
}

impl BackendKind {
    /// What traffic can be sent to.
    pub(crate) const DESTINATIONS: [Self; 3] =
        [Self::MeshService, Self::MeshExternalService, Self::MeshMultiZoneService];

    const fn name(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::MeshService => "MeshService",
            Self::MeshExternalService => "MeshExternalService",
            Self::MeshMultiZoneService => "MeshMultiZoneService",
            Self::MeshHTTPRoute => "MeshHTTPRoute",
            Self::Dataplane => "Dataplane",
        }
    }
}

impl BackendRef {
    /// Reports what is wrong with it at `path`, where `kinds` are taken.
    pub(crate) fn check(&self, kinds: &[BackendKind], path: &str, violations: &mut Violations) {
        let kind = self.kind.name();
        if !kinds.contains(&self.kind) {
            let path = format_args!("{path}.kind");
            return violations.add(path, format_args!("value '{kind}' is not supported"));
        }
        if self.labels.is_empty() {
            let path = format_args!("{path}.labels");
            violations.add(path, format_args!("must be set when kind is {kind}"));
        }
        if self.section_name.is_some() && self.kind == BackendKind::MeshExternalService {
            let path = format_args!("{path}.sectionName");
            violations.add(path, format_args!("must not be set when kind is {kind}"));
        }
        if self.port.is_none() && self.kind == BackendKind::MeshMultiZoneService {
            let path = format_args!("{path}.port");
            violations.add(path, format_args!("must be defined with kind {kind}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn wrong(json: Value) -> Vec<String> {
        let backend: BackendRef = serde_json::from_value(json).unwrap();
        let mut violations = Violations::default();
        backend.check(&BackendKind::DESTINATIONS, "b", &mut violations);
        violations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_backend_is_a_destination_with_labels() {
        let labels = json!({ "kuma.io/display-name": "cart" });
        let good = [
            json!({ "kind": "MeshService", "labels": labels, "sectionName": "http", "weight": 0 }),
            json!({ "kind": "MeshMultiZoneService", "labels": labels, "port": 80 }),
            json!({ "kind": "MeshExternalService", "labels": labels }),
        ];
        for backend in good {
            assert_eq!(wrong(backend), [""; 0]);
        }
        for (backend, expected) in [
            (json!({ "kind": "Mesh" }), &["b.kind: value 'Mesh' is not supported"][..]),
            (json!({ "kind": "Dataplane" }), &["b.kind: value 'Dataplane' is not supported"]),
            (
                json!({ "kind": "MeshMultiZoneService" }),
                &[
                    "b.labels: must be set when kind is MeshMultiZoneService",
                    "b.port: must be defined with kind MeshMultiZoneService",
                ],
            ),
            (
                json!({ "kind": "MeshExternalService", "labels": labels, "sectionName": "a" }),
                &["b.sectionName: must not be set when kind is MeshExternalService"],
            ),
        ] {
            assert_eq!(wrong(backend), expected);
        }
    }

    #[test]
    fn a_backend_has_a_weight_of_one_unless_it_says_another() {
        let read: BackendRef = serde_json::from_value(json!({ "kind": "MeshService" })).unwrap();
        let written = serde_json::to_string(&read).unwrap();
        assert_eq!(written, r#"{"kind":"MeshService","weight":1}"#);
    }
}
