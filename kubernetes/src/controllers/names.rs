//! The labels and annotations of pods, services and namespaces that controllers read, and the names of
//! what they make.

pub(super) use crate::injection::{
    FAMILIES as IP_FAMILIES, INBOUND_PORT as REDIRECT_INBOUND, INTERCEPTED as REDIRECTED,
    OUTBOUND_PORT as REDIRECT_OUTBOUND,
};
/// What injection writes, and controllers read.
pub use crate::injection::{INJECTED, INJECTION, SIDECAR, ZONE_PROXY};

use resource::{NameRule, label};
use xxhash_rust::xxh3::xxh3_64;

/// Who keeps what we write, in the label for it.
pub const MANAGER: &str = label::MANAGED_BY_CLUSTER;
/// The Service that a resource was made of.
pub const SERVICE_NAME: &str = label::SERVICE_NAME;
/// The proxy through which other zones come in.
pub const INGRESS: &str = "ingress";
/// The proxy through which a zone goes out.
pub const EGRESS: &str = "egress";
/// The proxy is a gateway that somebody else runs.
pub const GATEWAY: &str = "kuma.io/gateway";
/// The Service is none of the mesh.
pub const IGNORE: &str = "kuma.io/ignore";

pub(super) const REACHABLE: &str = "kuma.io/reachable-backends";
/// Services whose pods the pod calls at their own addresses.
pub const DIRECT_ACCESS: &str = "kuma.io/direct-access-services";
pub(super) const ADMIN_PORT: &str = "kuma.io/envoy-admin-port";
/// Behind the number of a port of a Service.
pub(super) const PROTOCOL: &str = ".service.kuma.io/protocol";

/// What of a node its pods are labelled with.
pub(super) const TOPOLOGY: [&str; 3] =
    ["topology.kubernetes.io/zone", "topology.kubernetes.io/region", "kubernetes.io/hostname"];
/// What of a pod its own service is labelled with.
pub(super) const ORDINAL: [&str; 2] =
    ["statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"];

/// Whether somebody said yes.
pub(super) fn is_yes(value: &str) -> bool {
    matches!(value, "enabled" | "true" | "yes")
}

/// The name in the view of the object `name` of `namespace`.
#[must_use]
pub fn in_view(system_namespace: &str, namespace: &str, name: &str) -> String {
    if namespace == system_namespace { name.to_owned() } else { format!("{name}.{namespace}") }
}

/// The name of the service of one pod behind the headless Service `service`. Names that are equal
/// where they are cut differ in their hash.
pub(super) fn of_pod(service: &str, pod: &str) -> String {
    const LONGEST: usize = 63;
    let hash = xxh3_64(format!("{service}/{pod}").as_bytes());
    let suffix = format!("-{hash:016x}");
    let room = LONGEST - suffix.len();
    let mut name = pod.replace('.', "-");
    if NameRule::Label.check(&name).is_err() && !name.starts_with(|c: char| c.is_ascii_lowercase())
    {
        name.insert_str(0, "pod-");
    }
    let cut: String = name.chars().take(room).collect();
    format!("{}{suffix}", cut.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_system_namespace_has_its_own_name() {
        assert_eq!(in_view("kuma-system", "kuma-system", "edge"), "edge");
        assert_eq!(in_view("kuma-system", "shop", "cart"), "cart.shop");
    }

    #[test]
    fn services_of_pods_are_labels_and_differ_though_they_are_cut() {
        let long = "x".repeat(250);
        let names = [
            of_pod("db", "db-0"),
            of_pod("other", "db-0"),
            of_pod("db", "0.db"),
            of_pod("db", &format!("{long}-1")),
            of_pod("db", &format!("{long}-2")),
            of_pod("db", &format!("{}-aaaa", "y".repeat(45))),
        ];
        for (i, name) in names.iter().enumerate() {
            assert_eq!(NameRule::Label.check(name), Ok(()));
            assert!(!names[..i].contains(name), "{name}");
        }
        assert!(names[0].starts_with("db-0-"), "{}", names[0]);
        assert_eq!(of_pod("db", "db-0"), names[0], "the same after a restart");
    }
}
