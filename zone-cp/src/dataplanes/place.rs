//! The zone's store as this part uses it.

use super::limits;
use kinds::{
    dataplane, dataplane_insight, global_secret, labels::Place, mesh, mesh_trust,
    mesh_zone_address, secret,
};
use resource::{Kind, Labels, RejectedSpec, Resource, ResourceKey, Spec, label};
use std::sync::Arc;
use store::{
    Expected, Item, Kinds,
    view::{Edit, KindId, Reader},
};

/// Who keeps what we write, in the label for it.
pub(super) const MANAGER: &str = "proxy-session";

/// The kinds that are read and written here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids {
    pub(super) mesh: KindId,
    pub(super) dataplane: KindId,
    pub(super) insight: KindId,
    pub(super) address: KindId,
    pub(super) trust: KindId,
    pub(super) secret: KindId,
    pub(super) global_secret: KindId,
}

/// A kind that is needed is not kept in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store has no kind {0}")]
pub struct NoKind(&'static str);

impl Ids {
    pub(super) fn of(kinds: &Kinds) -> Result<Self, NoKind> {
        let id = |kind: Kind| kinds.id_of(kind.name).ok_or(NoKind(kind.name));
        Ok(Self {
            mesh: id(mesh::KIND)?,
            dataplane: id(dataplane::KIND)?,
            insight: id(dataplane_insight::KIND)?,
            address: id(mesh_zone_address::KIND)?,
            trust: id(mesh_trust::KIND)?,
            secret: id(secret::KIND)?,
            global_secret: id(global_secret::KIND)?,
        })
    }
}

/// What is stored, and how something is written.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    pub(super) reader: Reader,
    pub(super) ids: Ids,
    pub(super) place: Place,
    pub(super) peer: resource::Peer,
}

impl Shelf {
    pub(super) fn get(&self, kind: KindId, key: &ResourceKey) -> Option<Arc<Resource>> {
        self.reader.get(kind, key)
    }

    /// The first MeshTrusts of the mesh of a proxy, as KRIs.
    pub(super) fn trusts(&self, proxy: &ResourceKey) -> Vec<String> {
        let first = ResourceKey { mesh: proxy.mesh.clone(), name: "".into() };
        let (_, rows) = self.reader.rows(self.ids.trust);
        let of_mesh = rows.after(Some(&first)).take_while(|row| row.head.key.mesh == proxy.mesh);
        let kri = |row: &Arc<Resource>| mesh_trust::KIND.kri(&row.head).to_string();
        of_mesh.take(limits::TRUSTS).map(kri).collect()
    }

    /// The step that puts `spec` there; `None` if it is so already, or cannot be.
    pub(super) fn put<S: Spec>(
        &self,
        (id, kind): (KindId, Kind),
        key: &ResourceKey,
        labels: Labels,
        spec: S,
    ) -> Option<Item> {
        let row = self.row(kind, key, labels, spec);
        // Everything in it was checked when it came in.
        let row = row.inspect_err(|error| tracing::error!(%key, %error, "not written")).ok()?;
        let before = self.get(id, key);
        if before.is_some_and(|before| before.head.version == row.head.version) {
            return None;
        }
        let edit = Edit::Put(Arc::new(row));
        Some(Item { kind: id, expected: Expected::Anything, edit })
    }

    fn row<S: Spec>(
        &self,
        kind: Kind,
        key: &ResourceKey,
        labels: Labels,
        spec: S,
    ) -> Result<Resource, RejectedSpec> {
        let bytes = kind.encode(&(Arc::new(spec) as resource::AnySpec))?;
        kind.resource(key.clone(), labels, bytes, bytes::Bytes::new(), self.peer)
    }

    /// The step that deletes `key`; `None` if it is not there.
    pub(super) fn delete(&self, id: KindId, key: &ResourceKey) -> Option<Item> {
        let there = self.get(id, key)?;
        let edit = Edit::Delete(there.head.key.clone());
        Some(Item { kind: id, expected: Expected::Anything, edit })
    }
}

/// Whether proxies' sessions keep this row.
pub(super) fn is_ours(row: &Resource) -> bool {
    row.head.labels.get(label::MANAGED_BY) == Some(MANAGER)
}
