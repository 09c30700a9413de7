//! What a zone has of its own from its first start on.

use anyhow::Result;
use kinds::{
    hostname_generator, labels,
    labels::{Env, Place},
    zone,
};
use resource::{BoxError, Kind, ResourceKey, ZoneName};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Backend, Expected, Item, Kinds, view::Edit};

/// Where resources of this zone are written.
pub(crate) const fn place(zone: ZoneName) -> Place {
    Place::Zone { name: zone, env: Env::Universal }
}

/// Makes the zone's own resources if this is its first start. What a user deleted later stays away.
pub(crate) async fn ensure(backend: &impl Backend, kinds: &Kinds, zone: &ZoneName) -> Result<()> {
    let here = place(zone.clone());
    let own = ResourceKey::global(zone.as_str());
    let known = kinds.id_of(zone::KIND.name).map(|id| backend.reader().get(id, &own));
    if known.flatten().is_some() {
        return Ok(());
    }
    let generator = json!({
        "selector": { "meshService": { "matchLabels": { "kuma.io/origin": "zone" } } },
        "template": "{{ .DisplayName }}.svc.mesh.local",
    });
    let batch: Result<Vec<Item>, BoxError> = [
        (zone::KIND, own, json!({ "enabled": true })),
        (hostname_generator::KIND, ResourceKey::global("local-universal-mesh-service"), generator),
    ]
    .into_iter()
    .map(|(kind, key, spec)| item(kinds, &here, kind, key, spec))
    .collect();
    let batch = batch.map_err(|error| anyhow::anyhow!(error))?;
    let committed = backend.commit(batch).await?;
    Ok(backend.wait_for(committed.revision).await?)
}

fn item(
    kinds: &Kinds,
    here: &Place,
    kind: Kind,
    key: ResourceKey,
    spec: Value,
) -> Result<Item, BoxError> {
    let id = kinds.id_of(kind.name).ok_or("a kind is missing in the store")?;
    let spec = kind.encode(&kind.from_json(spec)?)?;
    let row =
        kind.resource(key.clone(), labels::own(kind, &key, here), spec, "".into(), kinds.peer)?;
    Ok(Item { kind: id, expected: Expected::Nothing, edit: Edit::Put(Arc::new(row)) })
}
