//! What a global has from its first start on, and what it gets when the program knows more.

use crate::{author::Author, config::Defaults, defaults};
use anyhow::{Context as _, Result};
use api::{
    admin_token,
    keys::{TokenKeys, ZONE_KEYS},
};
use daemon::Clock;
use kinds::{config::CLUSTER_ID, labels::Place, mesh};
use resource::{MeshName, ResourceKey};
use serde_json::json;
use std::path::Path;
use store::{Backend, Item, view::Edit};
use uuid::Uuid;

const DEFAULT_MESH: &str = "default";

/// Makes what is missing. Safe to be interrupted: what was made stays, the rest is made next time.
pub(crate) async fn ensure(
    backend: &impl Backend,
    author: &Author,
    wanted: Defaults,
    data: &Path,
    clock: &Clock,
) -> Result<()> {
    let reader = backend.reader();
    let first = author.remembered(&reader, CLUSTER_ID).is_none();
    let mut batch = Vec::new();
    let zone_keys = TokenKeys::global(&author.kinds, ZONE_KEYS, "");
    if zone_keys.now(&reader).keys.signing_serial().is_none() {
        let name = format!("{ZONE_KEYS}1");
        let kinds = author.kinds.clone();
        let key = move || admin_token::signing_key(&kinds, &Place::Global, &name);
        let item = tokio::task::spawn_blocking(key).await?;
        batch.push(item.map_err(anyhow::Error::from_boxed).context("zone token signing key")?);
    }
    batch.extend(defaults::of_all_meshes(author, &reader)?);
    if first && wanted.mesh {
        batch.extend(default_mesh(author).await?);
    }
    let (_, meshes) = reader.rows(author.id(mesh::KIND));
    for row in meshes.iter() {
        // A name that is no mesh's cannot have been stored.
        let Ok(mesh) = MeshName::new(&row.head.key.name) else { continue };
        batch.extend(defaults::of_existing_mesh(author, &reader, &mesh, row)?);
    }
    if first {
        // Its presence says that everything else was made.
        batch.push(author.remember(CLUSTER_ID, &Uuid::new_v4().to_string())?);
    }
    if !batch.is_empty() {
        let committed = backend.commit(batch).await?;
        backend.wait_for(committed.revision).await?;
    }
    admin_token::ensure(backend, &author.kinds, &Place::Global, data, clock).await?;
    Ok(())
}

async fn default_mesh(author: &Author) -> Result<Vec<Item>> {
    let mesh = MeshName::new(DEFAULT_MESH)?;
    let item = author.create(mesh::KIND, ResourceKey::global(DEFAULT_MESH), json!({}))?;
    let more = match &item.edit {
        Edit::Put(row) => defaults::with_new_mesh(author, &mesh, row).await?,
        Edit::Delete(_) => Vec::new(),
    };
    Ok([item].into_iter().chain(more).collect())
}
