//! Every kind of resource, one folder each.

mod backend_ref;
pub mod beacon;
pub mod beacon_echo;
mod condition;
pub mod config;
pub mod container_patch;
pub mod crd;
mod crd_schema;
mod data_source;
pub mod dataplane;
pub mod dataplane_insight;
#[cfg(test)]
mod fields;
#[cfg(test)]
mod flows;
pub mod global_secret;
mod header;
#[cfg(test)]
mod hostile;
pub mod hostname_generator;
mod int_or_string;
mod json_patch;
mod label_selector;
pub mod labels;
#[cfg(test)]
mod manifests;
pub mod mesh;
pub mod mesh_access_log;
pub mod mesh_circuit_breaker;
pub mod mesh_external_service;
pub mod mesh_fault_injection;
pub mod mesh_health_check;
pub mod mesh_http_route;
pub mod mesh_identity;
pub mod mesh_insight;
pub mod mesh_load_balancing_strategy;
pub mod mesh_metric;
pub mod mesh_multi_zone_service;
pub mod mesh_open_telemetry_backend;
pub mod mesh_passthrough;
pub mod mesh_proxy_patch;
pub mod mesh_rate_limit;
pub mod mesh_retry;
pub mod mesh_service;
pub mod mesh_tcp_route;
pub mod mesh_timeout;
pub mod mesh_tls;
pub mod mesh_trace;
pub mod mesh_traffic_permission;
pub mod mesh_trust;
pub mod mesh_zone_address;
mod policy;
pub mod protobuf;
mod protobuf_schema;
mod regex;
pub mod role;
mod rule;
pub mod secret;
pub mod service_insight;
mod sni;
mod stay;
mod telemetry_ref;
pub mod template;
#[cfg(test)]
mod tests;
mod tls_version;
mod url;
pub mod workload;
pub mod zone;
pub mod zone_insight;

pub use self::{
    backend_ref::{BackendKind, BackendRef},
    condition::{Condition, ConditionStatus, Conditions},
    data_source::{DataSource, DataSourceType, EnvVar, File, Inline, SecretKind, SecretRef},
    header::{Header, HeaderMatch, HeaderMatchType, HeaderModifier},
    int_or_string::IntOrString,
    json_patch::PatchOp,
    label_selector::LabelSelector,
    sni::snis,
    telemetry_ref::{TelemetryKind, TelemetryRef},
    tls_version::{TlsVersion, TlsVersions},
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
    mesh_insight::KIND,
    service_insight::KIND,
    secret::KIND,
    global_secret::KIND,
    config::KIND,
    dataplane::KIND,
    dataplane_insight::KIND,
    hostname_generator::KIND,
    mesh_service::KIND,
    mesh_external_service::KIND,
    mesh_multi_zone_service::KIND,
    mesh_identity::KIND,
    mesh_trust::KIND,
    mesh_open_telemetry_backend::KIND,
    mesh_zone_address::KIND,
    workload::KIND,
    container_patch::KIND,
    beacon::KIND,
    beacon_echo::KIND,
];

/// The kinds that are policies, in the order they run.
pub const POLICIES: &[PolicyKind] =
    &[mesh_passthrough::KIND, mesh_timeout::KIND, mesh_traffic_permission::KIND];

/// The policies that our proxies do not follow yet, by name. They are validated, stored and passed
/// on like all others, so that proxies elsewhere can follow them.
pub const NOT_FOLLOWED_YET: &[Kind] = &[
    mesh_access_log::KIND,
    mesh_circuit_breaker::KIND,
    mesh_fault_injection::KIND,
    mesh_health_check::KIND,
    mesh_http_route::KIND,
    mesh_load_balancing_strategy::KIND,
    mesh_metric::KIND,
    mesh_proxy_patch::KIND,
    mesh_rate_limit::KIND,
    mesh_retry::KIND,
    mesh_tcp_route::KIND,
    mesh_tls::KIND,
    mesh_trace::KIND,
];

/// Every kind.
pub fn all() -> impl Iterator<Item = Kind> {
    let followed = POLICIES.iter().map(|policy| policy.kind);
    PLAIN.iter().copied().chain(followed).chain(NOT_FOLLOWED_YET.iter().copied())
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
