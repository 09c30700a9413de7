//! What became of changes in the proxies of a mesh.

use super::{
    change::Concerned,
    effects::{Cause, Concern, Effect},
    marks::ProxyId,
    mesh::Mesh,
};
use delta::Name;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;
use xds::Type;

impl Mesh {
    /// Everything that was marked since the last call is because `cause` changed.
    pub(super) fn attribute(&mut self, cause: Cause) {
        let mut concerns = BTreeMap::new();
        for (stream, names) in self.marks.last() {
            if let Some(proxy) = self.proxies.get(&stream) {
                let mark = proxy.marker.next();
                let concern = Concern { stream, mark, names, unwritten: false };
                concerns.insert(proxy.name.clone(), concern);
            }
        }
        for name in std::mem::take(&mut self.unwritten_now) {
            let Some(stream) = self.by_name.get(&name).copied() else { continue };
            let mark = self.proxies.get(&stream).map_or(0, |proxy| proxy.marker.next());
            let none = || Concern { stream, mark, names: BTreeSet::new(), unwritten: false };
            concerns.entry(name).or_insert_with(none).unwritten = true;
        }
        self.effects.set(cause, Effect { at: self.moment.now, concerns });
    }

    /// What was found to be written down for a proxy holds now.
    pub(super) fn attribute_written(&mut self, proxy: &Name) {
        let again = std::mem::take(&mut self.unwritten_now).contains(proxy);
        let marked = self.marks.last();
        let next = |id: &ProxyId| self.proxies.get(id).map_or(0, |proxy| proxy.marker.next());
        self.effects.written(proxy, &marked, next, again);
    }

    /// The proxies that the last change of a resource concerned and that are still there, and what
    /// of it is open; `None` if that is not known any more.
    pub(super) fn concerned(&self, cause: &Cause, now: Timestamp) -> Option<Vec<Concerned>> {
        let Effect { at, concerns } = self.effects.of(cause)?;
        let ago = |at: Instant| now.checked_sub(at.elapsed()).ok();
        let there = concerns.iter().filter_map(|(name, concern)| {
            let pending = self.lacks(name, concern)?;
            let answered = self.answered(name, concern).filter(|_| !pending).and_then(ago);
            let (proxy, names) = (name.clone(), concern.names.clone());
            Some(Concerned { proxy, pending, answered, since: *at, names })
        });
        Some(there.collect())
    }

    /// When a proxy had answered about all of a change.
    fn answered(&self, name: &Name, concern: &Concern) -> Option<Instant> {
        let stream = self.by_name.get(name)?;
        let marker = &self.proxies.get(stream)?.marker;
        if *stream != concern.stream {
            return marker.synced();
        }
        let kinds: BTreeSet<Type> = concern.names.iter().map(|(kind, _)| *kind).collect();
        let answers = kinds.into_iter().map(|kind| marker.answered(kind, concern.mark));
        answers.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Whether every proxy has all that there is for it.
    pub(super) fn is_settled(&self) -> bool {
        let mut concerns = self.effects.iter().flat_map(|(_, effect)| effect.concerns.values());
        self.unwritten.is_empty()
            && !concerns.any(|concern| concern.unwritten)
            && self.proxies.values().all(|proxy| proxy.marker.is_settled())
    }

    /// Whether a proxy lacks something of a change; `None` if it is not there any more.
    fn lacks(&self, name: &Name, concern: &Concern) -> Option<bool> {
        let stream = self.by_name.get(name)?;
        let marker = &self.proxies.get(stream)?.marker;
        let open = || concern.names.iter().any(|(kind, name)| marker.is_open(*kind, name));
        // One that came back gets everything anew.
        Some(match *stream == concern.stream {
            true => concern.unwritten || open(),
            false => marker.synced().is_none(),
        })
    }

    /// The proxies that lack a change of a kind, and when the oldest one of these was.
    pub(super) fn pending(&self) -> BTreeMap<&'static str, (BTreeSet<Name>, Timestamp)> {
        let mut pending = BTreeMap::new();
        for ((kind, _), Effect { at, concerns }) in self.effects.iter() {
            for (name, concern) in concerns {
                if self.lacks(name, concern) == Some(true) {
                    let (proxies, oldest) =
                        pending.entry(*kind).or_insert_with(|| (BTreeSet::new(), *at));
                    proxies.insert(name.clone());
                    *oldest = (*oldest).min(*at);
                }
            }
        }
        pending
    }
}
