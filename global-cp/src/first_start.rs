//! What a global has from its first start on, and what it gets when the program knows more.

use crate::{Config, defaults};
use anyhow::{Context as _, Result};
use api::{
    admin_token,
    author::Author,
    keys::{TokenKeys, ZONE_KEYS},
    mesh_defaults,
};
use daemon::Clock;
use kinds::{config::CLUSTER_ID, labels::Place};
use resource::MeshName;
use store::Backend;
use uuid::Uuid;

const DEFAULT_MESH: &str = "default";

/// Makes what is missing. Safe to be interrupted: what was made stays, the rest is made next time.
pub(crate) async fn ensure(
    backend: &impl Backend,
    author: &Author,
    config: &Config,
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
    batch.extend(defaults::missing(author, &reader)?);
    if first && config.defaults.mesh {
        batch.extend(mesh_defaults::new_mesh(author, &MeshName::new(DEFAULT_MESH)?).await?);
    }
    batch.extend(mesh_defaults::of_existing_meshes(author, &reader)?);
    if first {
        // Its presence says that everything else was made.
        batch.push(author.remember(CLUSTER_ID, &Uuid::new_v4().to_string())?);
    }
    if !batch.is_empty() {
        let committed = backend.commit(batch).await?;
        backend.wait_for(committed.revision).await?;
    }
    admin_token::ensure(backend, &author.kinds, &Place::Global, &config.data_dir, clock).await?;
    Ok(())
}
