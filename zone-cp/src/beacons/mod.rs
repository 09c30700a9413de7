//! How far the beacons of global come in this zone: its store, its tables, one Envoy.
//!
//! The parts of the line tell it here, as they do with every change; `echo` says it to global.

mod echo;
mod shown;
#[cfg(test)]
mod tests;

pub(crate) use self::{echo::run, shown::Own};

use kinds::beacon_echo::{BeaconEcho, Proxy};
use resource::ResourceKey;
use std::sync::Arc;
use tokio::{sync::watch, time::Instant};

/// See the module. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Beacons {
    progress: Arc<watch::Sender<Progress>>,
    began: Instant,
}

impl Default for Beacons {
    fn default() -> Self {
        Self { progress: Arc::new(watch::Sender::default()), began: Instant::now() }
    }
}

/// The newest beacon that came somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Passed {
    number: u64,
    at: Instant,
}

impl Passed {
    fn now(number: u64) -> Self {
        Self { number, at: Instant::now() }
    }
}

/// The proxy that is asked. Another one that takes its place does not make anything younger: only an
/// answer does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    name: ResourceKey,
    since: Instant,
    answered: Option<Passed>,
}

/// How far they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    stored: Option<Passed>,
    reconciled: Option<Passed>,
    proxy: Option<Asked>,
}

impl Progress {
    /// Whether what is stored came as far as it can.
    fn is_through(&self) -> bool {
        let number = |passed: Option<Passed>| passed.map_or(0, |passed| passed.number);
        let stored = number(self.stored);
        let proxy = self.proxy.as_ref().is_none_or(|asked| number(asked.answered) >= stored);
        number(self.reconciled) >= stored && proxy
    }

    fn echo(&self) -> Option<BeaconEcho> {
        let proxy = |asked: &Asked| Proxy {
            name: asked.name.to_string(),
            answered: asked.answered.map_or(0, |passed| passed.number),
        };
        Some(BeaconEcho {
            stored: self.stored?.number,
            reconciled: self.reconciled.map_or(0, |passed| passed.number),
            proxy: self.proxy.as_ref().map(proxy),
        })
    }
}

impl Beacons {
    /// The store has it.
    pub(crate) fn stored(&self, number: u64) {
        self.progress.send_modify(|progress| progress.stored = Some(Passed::now(number)));
    }

    /// The tables have all that was written before it, and now it goes to this proxy. If none is
    /// connected, the one that was asked last still owes its answer.
    pub(crate) fn reconciled(&self, number: u64, proxy: Option<ResourceKey>) {
        self.progress.send_modify(|progress| {
            progress.reconciled = Some(Passed::now(number));
            let Some(name) = proxy else { return };
            let anew = Asked { name: name.clone(), since: Instant::now(), answered: None };
            progress.proxy.get_or_insert(anew).name = name;
        });
    }

    /// A proxy is none of the zone any more, and owes nothing.
    pub(crate) fn gone(&self, proxy: &ResourceKey) {
        self.progress.send_if_modified(|progress| {
            progress.proxy.take_if(|asked| asked.name == *proxy).is_some()
        });
    }

    /// An Envoy answered it.
    pub(crate) fn answered(&self, proxy: &ResourceKey, number: u64) {
        self.progress.send_if_modified(|progress| {
            let asked = progress.proxy.as_mut().filter(|asked| asked.name == *proxy);
            asked.map(|asked| asked.answered = Some(Passed::now(number))).is_some()
        });
    }
}
