//! What a zone has of its own from its first start on.

use anyhow::Result;
use api::{author::Author, mesh_defaults};
use kinds::{
    hostname_generator,
    labels::{Env, Place},
    mesh, zone,
};
use resource::{MeshName, ResourceKey, ZoneName};
use serde_json::json;
use store::{Backend, Item, view::KindSet};
use tokio_util::sync::CancellationToken;

/// The mesh of a zone that stands alone.
const DEFAULT_MESH: &str = "default";
/// The row that says that the default mesh was made once.
const MESH_ROW: &str = "atoll-default-mesh";

/// Makes the zone's own resources if this is its first start. What a user deleted later stays away.
pub(crate) async fn ensure(backend: &impl Backend, author: &Author, zone: &ZoneName) -> Result<()> {
    let own = ResourceKey::global(zone.as_str());
    if author.get(&backend.reader(), zone::KIND, &own).is_some() {
        return Ok(());
    }
    let mut batch = vec![author.create(zone::KIND, own, json!({ "enabled": true }))?];
    // Services of a cluster have the names of its DNS.
    if !matches!(author.place, Place::Zone { env: Env::Kubernetes, .. }) {
        let generator = json!({
            "selector": { "meshService": { "matchLabels": { "kuma.io/origin": "zone" } } },
            "template": "{{ .DisplayName }}.svc.mesh.local",
        });
        let name = ResourceKey::global("local-universal-mesh-service");
        batch.push(author.create(hostname_generator::KIND, name, generator)?);
    }
    commit(backend, batch).await
}

/// Makes what a zone would get from global, where there is none: a mesh to begin with, and the
/// defaults of its meshes.
pub(crate) async fn ensure_meshes(backend: &impl Backend, author: &Author) -> Result<()> {
    let reader = backend.reader();
    let (_, meshes) = reader.rows(author.id(mesh::KIND));
    let mut batch = mesh_defaults::of_existing_meshes(author, &reader)?;
    if author.remembered(&reader, MESH_ROW).is_none() {
        if meshes.is_empty() {
            let mesh = MeshName::new(DEFAULT_MESH)?;
            batch.extend(mesh_defaults::new_mesh(author, &mesh).await?);
        }
        batch.push(author.remember(MESH_ROW, "made")?);
    }
    if batch.is_empty() { Ok(()) } else { commit(backend, batch).await }
}

/// Gives each new mesh its defaults. A mesh that is made through the API has them at once; one that is
/// made as an object of a cluster has not.
pub(crate) async fn follow_meshes(
    backend: impl Backend,
    author: Author,
    stop: CancellationToken,
) -> Result<()> {
    let meshes: KindSet = [author.id(mesh::KIND)].into_iter().collect();
    let mut changed = backend.reader().watch(meshes);
    while let Some(Ok(_)) = stop.run_until_cancelled(changed.dirty()).await {
        let reader = backend.reader();
        let mut batch = mesh_defaults::of_existing_meshes(&author, &reader)?;
        batch.extend(mesh_defaults::missing_keys(&author, &reader).await?);
        if !batch.is_empty() {
            commit(&backend, batch).await?;
        }
    }
    Ok(())
}

async fn commit(backend: &impl Backend, batch: Vec<Item>) -> Result<()> {
    let committed = backend.commit(batch).await?;
    Ok(backend.wait_for(committed.revision).await?)
}
