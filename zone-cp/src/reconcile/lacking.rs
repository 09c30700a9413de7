//! How many proxies lack what changed, for numbers.

use super::{change::reaching, meshes::Meshes};
use jiff::Timestamp;
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
