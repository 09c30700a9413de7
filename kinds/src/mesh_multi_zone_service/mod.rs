//! MeshMultiZoneService: services of several zones under one name.

#[cfg(test)]
mod tests;

use crate::{
    Condition,
    mesh_service::{Address, GeneratorConditions, PROTOCOLS, Vip},
    rule,
};
use resource::{Flow, Json, Kind, Labels, NameRule, Scope, Spec, Violations};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};

/// See [`MeshMultiZoneService`].
pub const KIND: Kind = Kind::of::<MeshMultiZoneService>();

/// Services of several zones that are called as one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MeshMultiZoneService {
    /// Which services.
    pub selector: Selector,
    /// The ports it is called on.
    #[schemars(length(min = 1))]
    pub ports: Vec<Port>,
}

/// Which services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Services of one zone.
    pub mesh_service: MeshServiceSelector,
}

/// Selects services by their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshServiceSelector {
    /// Labels that must all be there, at least one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

impl MeshServiceSelector {
    /// Whether it selects a service with these labels.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let wanted = self.match_labels.iter().map(|(key, value)| (&**key, &**value));
        !self.match_labels.is_empty() && labels.contain(wanted)
    }
}

/// A port that it is called on: that of the same name of each service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its number.
    pub port: u32,
    /// What is spoken on it.
    #[serde(default = "tcp")]
    pub app_protocol: String,
}

fn tcp() -> String {
    "tcp".into()
}

impl Port {
    /// Its name in KRIs and policies: its name wherever it has one, else its number.
    #[must_use]
    pub fn section(&self) -> Cow<'_, str> {
        match self.name.as_deref() {
            Some(name) => name.into(),
            None => self.port.to_string().into(),
        }
    }
}

/// What a zone knows about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Its host names in this zone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// Its virtual addresses in this zone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<Vip>,
    /// The services that it selects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mesh_services: Vec<MatchedMeshService>,
    /// How the generators of this zone named it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostname_generators: Vec<GeneratorConditions>,
    /// Aspect by aspect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The aspect that a status reports: whether services were found.
pub const MESH_SERVICES_MATCHED: &str = "MeshServicesMatched";

/// A service that is selected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct MatchedMeshService {
    /// Its display name.
    pub name: String,
    /// Its Kubernetes namespace, or nothing.
    pub namespace: String,
    /// Its zone.
    pub zone: String,
    /// Its mesh.
    pub mesh: String,
}

impl Spec for MeshMultiZoneService {
    type Encoding = Json;
    type Status = Status;

    const KIND: &'static str = "MeshMultiZoneService";
    const PLURAL: &'static str = "meshmultizoneservices";
    const SHORT: &'static str = "mzsvc";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::GlobalToZones;
    const NAME: NameRule = NameRule::Label;

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    fn validate(&self, violations: &mut Violations) {
        if self.selector.mesh_service.match_labels.is_empty() {
            violations.add("spec.selector.meshService.matchLabels", "cannot be empty");
        }
        rule::items("spec.ports", self.ports.len(), 1..=usize::MAX, violations);
        for (i, port) in self.ports.iter().enumerate() {
            if port.name.as_ref().is_some_and(String::is_empty) {
                violations.add(format_args!("spec.ports[{i}].name"), "must not be empty");
            }
            rule::port(format_args!("spec.ports[{i}].port"), port.port, violations);
            if !PROTOCOLS.contains(&&*port.app_protocol) {
                let path = format_args!("spec.ports[{i}].appProtocol");
                let known = PROTOCOLS.join(", ");
                violations.add(path, format_args!("must be one of {known}"));
            }
        }
    }
}

impl resource::Status for Status {}
