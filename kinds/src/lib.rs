//! Every kind of resource, one folder each.

mod condition;
pub mod config;
pub mod dataplane;
pub mod dataplane_insight;
pub mod global_secret;
pub mod hostname_generator;
mod int_or_string;
mod label_selector;
pub mod labels;
pub mod mesh;
pub mod mesh_identity;
pub mod mesh_service;
pub mod mesh_timeout;
pub mod mesh_traffic_permission;
pub mod mesh_trust;
pub mod mesh_zone_address;
pub mod protobuf;
pub mod role;
mod rule;
pub mod secret;
mod sni;
mod stay;
pub mod template;
#[cfg(test)]
mod tests;
pub mod workload;
pub mod zone;
pub mod zone_insight;

pub use self::{
    condition::{Condition, ConditionStatus},
    int_or_string::IntOrString,
    label_selector::LabelSelector,
    sni::snis,
};

pub use resource::{GoDuration, InvalidDuration};

use resource::{Kind, RejectedSpec, Resource, Spec};
use std::sync::Arc;
use xds::policy::PolicyKind;

/// The kinds that are not policies.
pub const PLAIN: &[Kind] = &[
    mesh::KIND,
    zone::KIND,
    zone_insight::KIND,
    secret::KIND,
    global_secret::KIND,
    config::KIND,
    dataplane::KIND,
    dataplane_insight::KIND,
    hostname_generator::KIND,
    mesh_service::KIND,
    mesh_identity::KIND,
    mesh_trust::KIND,
    mesh_zone_address::KIND,
    workload::KIND,
];

/// The kinds that are policies, in the order they run.
pub const POLICIES: &[PolicyKind] = &[mesh_timeout::KIND, mesh_traffic_permission::KIND];

/// Every kind.
pub fn all() -> impl Iterator<Item = Kind> {
    PLAIN.iter().copied().chain(POLICIES.iter().map(|policy| policy.kind))
}

/// The spec of a resource of the kind of `S`.
pub fn read<S: Spec>(resource: &Resource) -> Result<Arc<S>, RejectedSpec> {
    let spec = Kind::of::<S>().decode(&resource.spec)?;
    Ok(spec.downcast().expect("a kind decodes specs of that kind"))
}

/// The status of a resource of the kind of `S`; the default if none was reported.
pub fn status<S: Spec>(resource: &Resource) -> Result<S::Status, RejectedSpec> {
    if resource.status.is_empty() {
        return Ok(S::Status::default());
    }
    serde_json::from_slice(&resource.status)
        .map_err(|error| RejectedSpec::Malformed { kind: S::KIND, source: error.into() })
}
