//! What users write.

use fastrand::Rng;
use kinds::{
    dataplane, hostname_generator, mesh_external_service, mesh_multi_zone_service, mesh_service,
    mesh_timeout, mesh_traffic_permission, mesh_trust, mesh_zone_address, secret,
};
use resource::{Kind, MeshName, ResourceKey, Scope};
use serde_json::{Value, json};

/// The label that says which write a resource is of.
pub(crate) const WRITE: &str = "simulation/write";
/// What the names of all that is written here begin with.
pub(crate) const PREFIX: &str = "s-";

pub(crate) const TIMEOUT: Kind = mesh_timeout::KIND.kind;
const PERMISSION: Kind = mesh_traffic_permission::KIND.kind;

/// What users of global write.
pub(crate) const OF_GLOBAL: &[Kind] = &[
    TIMEOUT,
    PERMISSION,
    mesh_external_service::KIND,
    mesh_multi_zone_service::KIND,
    hostname_generator::KIND,
    secret::KIND,
];

/// What users of a zone write.
pub(crate) const OF_ZONES: &[Kind] = &[
    dataplane::KIND,
    dataplane::KIND,
    mesh_service::KIND,
    mesh_zone_address::KIND,
    TIMEOUT,
    PERMISSION,
    mesh_external_service::KIND,
    mesh_trust::KIND,
    secret::KIND,
];

/// Every kind that is looked at.
pub(crate) fn looked_at(kind: &Kind) -> bool {
    OF_GLOBAL.iter().chain(OF_ZONES).any(|known| known.name == kind.name)
}

/// Meshes that may be there.
pub(crate) const MESHES: [&str; 3] = ["default", "s-shop", "s-bank"];

pub(crate) fn key(kind: &Kind, mesh: &str, name: &str) -> ResourceKey {
    match kind.scope {
        Scope::Global => ResourceKey::global(name),
        Scope::Mesh => {
            let mesh = MeshName::new(mesh).expect("one of a list");
            ResourceKey::in_mesh(&mesh, name)
        }
    }
}

/// A name that others may have taken already.
pub(crate) fn name(random: &mut Rng) -> String {
    format!("{PREFIX}{}", random.u32(..6))
}

/// The spec of the write `n`: no two are the same. `zone` is where it is written.
pub(crate) fn spec(kind: &Kind, n: u64, mesh: &str, zone: Option<&str>, random: &mut Rng) -> Value {
    let marker = format!("w{n}.example");
    let base64 = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    match kind.name {
        "MeshTrafficPermission" => {
            let allow = json!([{ "spiffeID": { "type": "Prefix", "value": format!("spiffe://{marker}/a") } }]);
            json!({ "rules": [{ "default": { "allow": allow } }] })
        }
        "MeshExternalService" => {
            let endpoint = json!({ "address": marker, "port": 443 });
            json!({ "match": { "port": 443 }, "endpoints": [endpoint] })
        }
        "MeshMultiZoneService" => json!({
            "selector": { "meshService": { "matchLabels": { "write": marker } } },
            "ports": [{ "port": 80 }],
        }),
        "HostnameGenerator" => json!({
            "selector": { "meshService": { "matchLabels": { "write": marker } } },
            "template": format!("{{{{ .DisplayName }}}}.{marker}"),
        }),
        "Secret" => json!({ "data": base64(&marker) }),
        "Dataplane" => {
            let port = 1024 + n % 60_000;
            json!({ "networking": { "address": "10.0.0.1", "inbound": [{ "port": port }] } })
        }
        "MeshService" => json!({
            "selector": { "dataplaneLabels": { "matchLabels": { "write": marker } } },
            "ports": [{ "port": 80 }],
        }),
        "MeshZoneAddress" => json!({ "address": marker, "port": 10_001 }),
        "MeshTrust" => {
            let domain = match zone {
                Some(zone) if random.bool() => format!("{mesh}.{zone}.mesh.local"),
                _ => marker,
            };
            let pem = json!({ "value": include_str!("../../testdata/ca.pem") });
            json!({ "trustDomain": domain, "caBundles": [{ "type": "Pem", "pem": pem }] })
        }
        _ => timeout(n, &json!({ "kind": "Mesh" })),
    }
}

fn timeout(n: u64, target: &Value) -> Value {
    let conf = json!({ "idleTimeout": format!("{}s", n + 1) });
    json!({ "targetRef": { "kind": "Mesh" }, "to": [{ "targetRef": target, "default": conf }] })
}

/// A policy of a producer, which goes on to the other zones.
pub(crate) fn of_producer(n: u64) -> Value {
    let labels = json!({ "kuma.io/display-name": "cart" });
    timeout(n, &json!({ "kind": "MeshService", "labels": labels }))
}
