//! Which proxy gets something else.

use delta::Name;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};
use xds::Type;

/// A connected proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProxyId(pub(super) u64);

/// Names by proxy.
pub(super) type Marked = BTreeMap<ProxyId, BTreeSet<(Type, Name)>>;

/// Names that changed, by proxy, gathered until the change is complete.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// By what is looked at now.
    last: Marked,
    /// By what was looked at before.
    before: Marked,
    /// The addresses at which a proxy is called itself.
    own: BTreeMap<ProxyId, BTreeSet<IpAddr>>,
}

/// Of proxies that have none.
static NOWHERE: BTreeSet<IpAddr> = BTreeSet::new();

impl Marks {
    pub(super) fn mark(&mut self, proxy: ProxyId, kind: Type, name: &Name) {
        self.last.entry(proxy).or_default().insert((kind, name.clone()));
    }

    /// The listener `name` for the replica at `at`. A proxy has none for itself.
    pub(super) fn mark_at(&mut self, proxy: ProxyId, at: &SocketAddr, name: &Name) {
        if !self.own(proxy).contains(&at.ip()) {
            self.mark(proxy, Type::Listener, name);
        }
    }

    /// The addresses at which a proxy is called itself.
    pub(super) fn own(&self, proxy: ProxyId) -> &BTreeSet<IpAddr> {
        self.own.get(&proxy).unwrap_or(&NOWHERE)
    }

    pub(super) fn set_own(&mut self, proxy: ProxyId, own: BTreeSet<IpAddr>) {
        self.own.insert(proxy, own);
    }

    pub(super) fn forget(&mut self, proxy: ProxyId) {
        self.own.remove(&proxy);
        self.last.remove(&proxy);
        self.before.remove(&proxy);
    }

    /// What was marked since the last call. It stays marked.
    pub(super) fn last(&mut self) -> Marked {
        let last = std::mem::take(&mut self.last);
        for (proxy, names) in &last {
            self.before.entry(*proxy).or_default().extend(names.iter().cloned());
        }
        last
    }

    pub(super) fn take(&mut self) -> Marked {
        self.last();
        std::mem::take(&mut self.before)
    }
}
