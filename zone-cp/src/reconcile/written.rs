//! Where it is written down which permissions of TCP inbounds hold: one Config for each proxy.

use super::{meshes::ProxyKey, tcp::Record};
use jiff::Timestamp;
use kinds::config::{self, Config};
use proto::kuma::system::v1alpha1::Config as Message;
use resource::{
    Labels, MeshName, Peer, RejectedSpec, Resource, ResourceKey, Version, ZoneName, label,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{
    Expected, Item,
    view::{Edit, KindId, Reader},
};

#[derive(Serialize, Deserialize)]
struct Content {
    mesh: String,
    dataplane: String,
    #[serde(flatten)]
    record: Record,
}

const PREFIX: &str = "tcp-permissions-";

/// The Config of a proxy. A hash, because both names together may be too long.
fn key(mesh: &MeshName, dataplane: &str) -> ResourceKey {
    let hash = Version::of(format!("{mesh}/{dataplane}").as_bytes());
    ResourceKey::global(&format!("{PREFIX}{hash}"))
}

/// What stands in the store about a proxy.
pub(super) fn read(
    reader: &Reader,
    kind: KindId,
    mesh: &MeshName,
    dataplane: &str,
) -> Option<Record> {
    let row = reader.get(kind, &key(mesh, dataplane))?;
    let content = content(&row)?;
    (content.mesh == mesh.as_str() && content.dataplane == dataplane).then_some(content.record)
}

fn content(row: &Resource) -> Option<Content> {
    let config = kinds::read::<Config>(row).ok()?;
    serde_json::from_str(&config.0.config).ok()
}

/// Every proxy that something is written down about, and when that was.
pub(super) fn all(reader: &Reader, kind: KindId) -> Vec<(Timestamp, ProxyKey)> {
    let (_, rows) = reader.rows(kind);
    let ours = rows.iter().filter(|row| row.head.key.name.starts_with(PREFIX));
    ours.filter_map(|row| {
        let Content { mesh, dataplane, .. } = content(row)?;
        let mesh = MeshName::new(&mesh).ok()?;
        Some((row.head.times.modified, ProxyKey { mesh, name: dataplane.into() }))
    })
    .collect()
}

/// Forgets what is written down about a proxy.
pub(super) fn removal(reader: &Reader, kind: KindId, proxy: &ProxyKey) -> Option<Item> {
    let key = key(&proxy.mesh, &proxy.name);
    let expected = Expected::Version(reader.get(kind, &key)?.head.version);
    Some(Item { kind, expected, edit: Edit::Delete(key) })
}

/// Writes a record, unless somebody else did since it was read.
pub(super) fn item(
    reader: &Reader,
    kind: KindId,
    zone: &ZoneName,
    proxy: &ProxyKey,
    record: &Record,
) -> Result<Item, RejectedSpec> {
    let key = key(&proxy.mesh, &proxy.name);
    let expected = match reader.get(kind, &key) {
        Some(row) => Expected::Version(row.head.version),
        None => Expected::Nothing,
    };
    let content = Content {
        mesh: proxy.mesh.to_string(),
        dataplane: proxy.name.to_string(),
        record: record.clone(),
    };
    let text = serde_json::to_string(&content).expect("a record is plain JSON");
    let spec = config::KIND.encode(&(Arc::new(Config(Message { config: text })) as _))?;
    let labels =
        Labels::from_iter([(label::ORIGIN, label::ORIGIN_ZONE), (label::ZONE, zone.as_str())]);
    let row = config::KIND.resource(key, labels, spec, bytes::Bytes::new(), Peer::Global)?;
    Ok(Item { kind, expected, edit: Edit::Put(Arc::new(row)) })
}
