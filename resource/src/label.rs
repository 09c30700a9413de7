//! The reserved labels, and who sets them: control planes, when a resource is written or sent.

/// The name the user gave; survives renaming in transit.
pub const DISPLAY_NAME: &str = "kuma.io/display-name";
/// The mesh of a resource with mesh scope.
pub const MESH: &str = "kuma.io/mesh";
/// Where this copy came from: [`ORIGIN_GLOBAL`] or [`ORIGIN_ZONE`]. Rewritten on each hop.
pub const ORIGIN: &str = "kuma.io/origin";
/// The zone that wrote the resource.
pub const ZONE: &str = "kuma.io/zone";
/// What the zone runs on: [`ENV_KUBERNETES`] or [`ENV_UNIVERSAL`].
pub const ENV: &str = "kuma.io/env";
/// Set to [`DISABLED`] to keep a resource where it is.
pub const SYNC: &str = "kuma.io/kds-sync";
/// The role of a policy, see [`ROLE_SYSTEM`] and the others.
pub const ROLE: &str = "kuma.io/policy-role";
/// Which control loop owns the resource.
pub const MANAGED_BY: &str = "kuma.io/managed-by";
/// The workload a dataplane is a replica of.
pub const WORKLOAD: &str = "kuma.io/workload";
/// When the last dataplane of a generated service left; never sent.
pub const GRACE_PERIOD_STARTED: &str = "kuma.io/deletion-grace-period-started-at";
/// [`ENABLED`] on dataplanes with a zone ingress listener.
pub const LISTENER_ZONE_INGRESS: &str = "kuma.io/listener-zoneingress";
/// [`ENABLED`] on dataplanes with a zone egress listener.
pub const LISTENER_ZONE_EGRESS: &str = "kuma.io/listener-zoneegress";
/// Set to [`EFFECT_SHADOW`] for policies that are only inspected.
pub const EFFECT: &str = "kuma.io/effect";
/// The value of [`MANAGED_BY`] on what is made of the objects of a Kubernetes cluster.
pub const MANAGED_BY_CLUSTER: &str = "k8s-controller";
/// The Kubernetes namespace of the original.
pub const NAMESPACE: &str = "k8s.kuma.io/namespace";
/// The Kubernetes service account of a dataplane's pod.
pub const SERVICE_ACCOUNT: &str = "k8s.kuma.io/service-account";
/// The Kubernetes service that something was made from.
pub const SERVICE_NAME: &str = "k8s.kuma.io/service-name";
/// Whether a service was made from a headless Kubernetes service.
pub const HEADLESS: &str = "k8s.kuma.io/is-headless-service";

/// The copy came from global, or was written there.
pub const ORIGIN_GLOBAL: &str = "global";
/// The copy came from a zone, or was written there.
pub const ORIGIN_ZONE: &str = "zone";
/// The zone is a Kubernetes cluster.
pub const ENV_KUBERNETES: &str = "kubernetes";
/// The zone is anything else.
pub const ENV_UNIVERSAL: &str = "universal";
/// A policy for every proxy of the mesh, or of its zone.
pub const ROLE_SYSTEM: &str = "system";
/// A policy of a service's owner for its callers, in every zone.
pub const ROLE_PRODUCER: &str = "producer";
/// A policy of a caller, for its own namespace.
pub const ROLE_CONSUMER: &str = "consumer";
/// A policy of a workload's owner, for its own namespace.
pub const ROLE_WORKLOAD_OWNER: &str = "workload-owner";
/// The policy is inspected and does nothing.
pub const EFFECT_SHADOW: &str = "shadow";
/// A label's value for yes.
pub const ENABLED: &str = "enabled";
/// A label's value for no.
pub const DISABLED: &str = "disabled";

/// Whether only control planes may set the label `key`.
#[must_use]
pub fn is_reserved(key: &str) -> bool {
    key.starts_with("kuma.io/") || key.starts_with("k8s.kuma.io/")
}
