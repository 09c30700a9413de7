//! What a mesh starts with, and what there is of every mesh.
//!
//! What was offered once is remembered, so that what a user deleted stays away, and a mesh that was
//! made before a kind existed gets the defaults of that kind.

use crate::author::Author;
use identity::token::{InvalidKey, SigningKey};
use kinds::{hostname_generator, mesh::Mesh, mesh_identity, mesh_timeout, secret};
use resource::{AnySpec, Kind, MeshName, RejectedSpec, Resource, ResourceKey};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};
use store::{Expected, Item, view::Reader};

/// A default cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoDefault {
    /// A key could not be generated.
    #[error("the signing key of a mesh cannot be made")]
    Key(#[from] InvalidKey),
    /// The machine gave it up.
    #[error("the signing key of a mesh was not made")]
    Cancelled(#[from] tokio::task::JoinError),
    /// A spec of ours is not one.
    #[error(transparent)]
    Rejected(#[from] RejectedSpec),
}

/// One default: its kind, its name, its spec.
type Default = (Kind, String, Value);

/// The step-by-step list of what a new mesh gets, by kind.
fn of_mesh(mesh: &MeshName) -> Vec<Default> {
    let timeouts = mesh_timeout::KIND.kind;
    let inbound = json!({
        "targetRef": {"kind": "Mesh"},
        "rules": [{"default": {
            "connectionTimeout": "10s",
            "idleTimeout": "2h",
            "http": {
                "requestTimeout": "0s",
                "streamIdleTimeout": "1h",
                "maxStreamDuration": "0s",
            },
        }}],
    });
    let outbound = json!({
        "targetRef": {"kind": "Mesh"},
        "to": [{"targetRef": {"kind": "Mesh"}, "default": {
            "connectionTimeout": "5s",
            "idleTimeout": "1h",
            "http": {"requestTimeout": "15s", "streamIdleTimeout": "30m"},
        }}],
    });
    let identity = json!({
        "selector": {"dataplane": {"matchLabels": {}}},
        "provider": {
            "type": "Bundled",
            "bundled": {
                "meshTrustCreation": "Enabled",
                "insecureAllowSelfSigned": true,
                "autogenerate": {"enabled": true},
            },
        },
    });
    vec![
        (timeouts, format!("mesh-timeout-all-{mesh}"), inbound),
        (timeouts, format!("mesh-timeout-to-all-{mesh}"), outbound),
        (mesh_identity::KIND, "identity".into(), identity),
    ]
}

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

/// The row that remembers what `mesh` was offered.
pub(crate) fn offered_row(mesh: &str) -> String {
    format!("atoll-defaults-of-{mesh}")
}

const GLOBAL_ROW: &str = "atoll-defaults";

fn offered(author: &Author, reader: &Reader, row: &str) -> BTreeSet<String> {
    let text = author.remembered(reader, row).unwrap_or_default();
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

/// What is committed together with a new mesh.
pub(crate) async fn with_new_mesh(
    author: &Author,
    mesh: &MeshName,
    row: &Resource,
) -> Result<Vec<Item>, NoDefault> {
    let mut items = of_kinds(author, mesh, row, &BTreeSet::new())?;
    items.push(signing_key(author, mesh).await?);
    Ok(items)
}

/// The defaults of kinds that an existing mesh was not offered yet.
pub(crate) fn of_existing_mesh(
    author: &Author,
    reader: &Reader,
    mesh: &MeshName,
    row: &Resource,
) -> Result<Vec<Item>, NoDefault> {
    of_kinds(author, mesh, row, &offered(author, reader, &offered_row(mesh.as_str())))
}

fn of_kinds(
    author: &Author,
    mesh: &MeshName,
    row: &Resource,
    offered: &BTreeSet<String>,
) -> Result<Vec<Item>, NoDefault> {
    let spec = kinds::read::<Mesh>(row)?;
    let skipped = &spec.0.skip_creating_initial_policies;
    let skips = |kind: &Kind| skipped.iter().any(|name| name == "*" || name == kind.name);
    let (mut items, mut now) = (Vec::new(), offered.clone());
    for (kind, name, spec) in of_mesh(mesh) {
        if offered.contains(kind.name) {
            continue;
        }
        now.insert(kind.name.into());
        if !skips(&kind) {
            items.push(author.create(kind, ResourceKey::in_mesh(mesh, &name), spec)?);
        }
    }
    if now != *offered {
        items.push(author.remember(&offered_row(mesh.as_str()), &listed(&now))?);
    }
    Ok(items)
}

async fn signing_key(author: &Author, mesh: &MeshName) -> Result<Item, NoDefault> {
    // It takes a few hundred milliseconds of a processor.
    let key = tokio::task::spawn_blocking(SigningKey::generate).await??;
    let spec: AnySpec = Arc::new(secret::Secret::of(key.private_pem().as_bytes()));
    let name = format!("{}1", api::keys::dataplane_keys(mesh));
    let key = ResourceKey::in_mesh(mesh, &name);
    Ok(author.write(secret::KIND, key, &spec, Expected::Nothing)?)
}

/// The host names of services of all meshes that were not offered yet.
pub(crate) fn of_all_meshes(author: &Author, reader: &Reader) -> Result<Vec<Item>, NoDefault> {
    let offered = offered(author, reader, GLOBAL_ROW);
    let (mut items, mut now) = (Vec::new(), offered.clone());
    for (kind, name, spec) in host_names() {
        if author.kinds.id_of(kind).is_some() && now.insert(name.into()) {
            items.push(author.create(hostname_generator::KIND, ResourceKey::global(name), spec)?);
        }
    }
    if now != offered {
        items.push(author.remember(GLOBAL_ROW, &listed(&now))?);
    }
    Ok(items)
}
