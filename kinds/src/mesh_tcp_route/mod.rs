//! MeshTCPRoute: where connections go.

#[cfg(test)]
mod tests;

use crate::{BackendKind, BackendRef, mesh_http_route, policy, role, rule};
use resource::{Flow, Json, Kind, Labels, NoStatus, Scope, Spec, Targets, Violations, cel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xds::{TargetRef, ToRef};

/// See [`MeshTCPRoute`].
pub const KIND: Kind = Kind::of::<MeshTCPRoute>();

/// Says where connections go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    policy::NO_SECTION,
])))]
pub struct MeshTCPRoute {
    /// Whose connections; those of all proxies of the mesh without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// By destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub to: Option<Vec<To>>,
}

/// The rule for connections to some destinations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct To {
    /// To which destinations.
    pub target_ref: ToRef,
    /// Where they go; at most one rule.
    #[schemars(length(max = 1))]
    pub rules: Vec<Rule>,
}

/// Where connections go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rule {
    /// Where they go.
    pub default: RuleConf,
}

/// Where connections go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleConf {
    /// The destinations, at least one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
}

impl Spec for MeshTCPRoute {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "MeshTCPRoute";
    const PLURAL: &'static str = "meshtcproutes";
    const SHORT: &'static str = "mtcpr";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::Everywhere;
    const TARGETS: Option<Targets> = Some(Targets { to: true, rules: false });

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    fn validate(&self, violations: &mut Violations) {
        if let Some(target) = &self.target_ref {
            target.check(false, violations);
        }
        if let Some(to) = &self.to {
            rule::items("spec.to", to.len(), 1..=usize::MAX, violations);
        }
        for (i, to) in self.to.iter().flatten().enumerate() {
            validate_to(to, &format!("spec.to[{i}]"), violations);
        }
    }

    fn is_producer(&self, labels: &Labels) -> bool {
        role::is_producer(self.to.iter().flatten().map(|to| &to.target_ref), labels)
    }
}

fn validate_to(to: &To, path: &str, violations: &mut Violations) {
    let target = format!("{path}.targetRef");
    to.target_ref.check(&mesh_http_route::DESTINATIONS, &target, violations);
    rule::items(format_args!("{path}.rules"), to.rules.len(), 0..=1, violations);
    for (i, Rule { default: RuleConf { backend_refs } }) in to.rules.iter().enumerate() {
        let path = format!("{path}.rules[{i}].default.backendRefs");
        if backend_refs.is_empty() {
            violations.add(&path, "must be defined");
        }
        for (i, backend) in backend_refs.iter().enumerate() {
            backend.check(&BackendKind::DESTINATIONS, &format!("{path}[{i}]"), violations);
        }
    }
}
