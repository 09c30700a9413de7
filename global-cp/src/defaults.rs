//! The host names that services of other zones have.
//!
//! What was offered once is remembered, so that what a user deleted stays away.

use api::{
    author::Author,
    mesh_defaults::{NoDefault, listed, offered},
};
use kinds::hostname_generator;
use resource::ResourceKey;
use serde_json::{Value, json};
use store::{Item, view::Reader};

/// The row that remembers what was offered.
const ROW: &str = "atoll-defaults";

/// The host names of services of other zones: each with the kind that it selects.
fn host_names() -> Vec<(&'static str, &'static str, Value)> {
    let kube = |headless: &str| {
        json!({
            "kuma.io/origin": "global",
            "kuma.io/env": "kubernetes",
            "k8s.kuma.io/is-headless-service": headless,
        })
    };
    let select = |kind: &str, labels: Value, template: &str| json!({"selector": {kind: {"matchLabels": labels}}, "template": template});
    let origin = || json!({"kuma.io/origin": "global"});
    vec![
        (
            "MeshService",
            "synced-kube-mesh-service",
            select(
                "meshService",
                kube("false"),
                "{{ .DisplayName }}.{{ .Namespace }}.svc.{{ .Zone }}.mesh.local",
            ),
        ),
        (
            "MeshService",
            "synced-headless-kube-mesh-service",
            select(
                "meshService",
                kube("true"),
                "{{ label \"statefulset.kubernetes.io/pod-name\" }}.{{ label \"k8s.kuma.io/service-name\" }}.{{ .Namespace }}.svc.{{ .Zone }}.mesh.local",
            ),
        ),
        (
            "MeshService",
            "synced-universal-mesh-service",
            select(
                "meshService",
                json!({"kuma.io/origin": "global", "kuma.io/env": "universal"}),
                "{{ .DisplayName }}.svc.{{ .Zone }}.mesh.local",
            ),
        ),
        (
            "MeshMultiZoneService",
            "synced-mesh-multi-zone-service",
            select("meshMultiZoneService", origin(), "{{ .DisplayName }}.mzsvc.mesh.local"),
        ),
        (
            "MeshExternalService",
            "synced-mesh-external-service",
            select("meshExternalService", origin(), "{{ .DisplayName }}.extsvc.mesh.local"),
        ),
    ]
}

/// The host names of services of all meshes that were not offered yet.
pub(crate) fn missing(author: &Author, reader: &Reader) -> Result<Vec<Item>, NoDefault> {
    let offered = offered(author, reader, ROW);
    let (mut items, mut now) = (Vec::new(), offered.clone());
    for (kind, name, spec) in host_names() {
        if author.kinds.id_of(kind).is_some() && now.insert(name.into()) {
            items.push(author.create(hostname_generator::KIND, ResourceKey::global(name), spec)?);
        }
    }
    if now != offered {
        items.push(author.remember(ROW, &listed(&now))?);
    }
    Ok(items)
}
