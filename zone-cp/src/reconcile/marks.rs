//! Which proxy gets something else.

use delta::Name;
use std::collections::{BTreeMap, BTreeSet};
use xds::Type;

/// A connected proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProxyId(pub(super) u64);

/// Names that changed, by proxy, gathered until the change is complete.
#[derive(Debug, Default)]
pub(super) struct Marks(BTreeMap<ProxyId, BTreeSet<(Type, Name)>>);

impl Marks {
    pub(super) fn mark(&mut self, proxy: ProxyId, kind: Type, name: &Name) {
        self.0.entry(proxy).or_default().insert((kind, name.clone()));
    }

    pub(super) fn forget(&mut self, proxy: ProxyId) {
        self.0.remove(&proxy);
    }

    pub(super) fn take(&mut self) -> BTreeMap<ProxyId, BTreeSet<(Type, Name)>> {
        std::mem::take(&mut self.0)
    }
}
