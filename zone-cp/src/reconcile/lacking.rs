//! What proxies have of what changed, and how many lack it.

use super::{
    change::{Concerned, reaching},
    meshes::Meshes,
};
use jiff::Timestamp;
use resource::{MeshName, ResourceKey};
use std::collections::BTreeMap;

/// How many proxies lack changes of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// So many.
    pub proxies: usize,
    /// Since when the one does that waits for the longest time; `None` if none does.
    pub since: Option<Timestamp>,
}

impl Meshes {
    /// The proxies that the last change of a resource concerned, so far as they are still there;
    /// `None` if that is not known: it is of no mesh or of a kind that does not reach proxies, or too
    /// much changed since.
    #[must_use]
    pub fn concerned(&self, kind: &str, key: &ResourceKey) -> Option<Vec<Concerned>> {
        let kind = reaching().find(|name| *name == kind)?;
        let mesh = self.tables(key.mesh.as_ref()?)?;
        let mesh = mesh.lock();
        mesh.concerned(&(kind, key.name.clone()), self.now())
    }

    /// Whether every proxy of a mesh has all that there is for it.
    #[must_use]
    pub fn is_settled(&self, mesh: &MeshName) -> bool {
        self.tables(mesh).is_none_or(|mesh| mesh.lock().is_settled())
    }

    /// Which proxies lack what changed lately, for each kind that reaches proxies.
    #[must_use]
    pub fn lacking(&self) -> BTreeMap<&'static str, Lacking> {
        let mut all: BTreeMap<_, _> = reaching().map(|kind| (kind, Lacking::default())).collect();
        for (_, mesh) in self.all() {
            let pending = mesh.lock().pending();
            for (kind, (proxies, since)) in pending {
                let lacking = all.entry(kind).or_default();
                lacking.proxies += proxies.len();
                lacking.since = lacking.since.into_iter().chain([since]).min();
            }
        }
        all
    }
}
