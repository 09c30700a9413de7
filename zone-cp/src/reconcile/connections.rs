//! Proxies come and go, and become others.

use super::{
    calls::Calls,
    groups::Key,
    marks::ProxyId,
    mesh::Mesh,
    proxies::{Circumstances, Connected, Identified, Traits},
    tcp::Record,
};
use crate::{generate::Redirection, identities::Issued};
use delta::Name;
use resource::Labels;
use std::{collections::BTreeMap, sync::Arc};
use xds::{
    Marker, Type, names,
    policy::{self, Applied, ProxyFacts},
};

/// Whose certificate is to be asked for.
pub(super) struct Unidentified {
    pub(super) id: ProxyId,
    pub(super) name: Name,
    pub(super) traits: Traits,
    /// `None`: there is no such Dataplane.
    pub(super) labels: Option<Labels>,
}

impl Mesh {
    /// A proxy connected. Another one of that name has lost its stream.
    pub(super) fn connect(
        &mut self,
        id: ProxyId,
        name: &Name,
        traits: Traits,
        marker: Marker,
        record: Record,
    ) {
        if let Some(before) = self.by_name.insert(name.clone(), id) {
            self.forget(before);
        }
        self.proxies.insert(id, Connected::new(name.clone(), traits, marker, record));
        let own = self.replicas.get(name).map(|replica| replica.own());
        self.marks.set_own(id, own.unwrap_or_default());
        self.unidentified.insert(id);
        self.select(id);
        self.open(id);
    }

    /// A stream ended. Returns whether the proxy has no other.
    pub(super) fn disconnect(&mut self, id: ProxyId) -> bool {
        let Some(name) = self.proxies.get(&id).map(|proxy| proxy.name.clone()) else {
            return false;
        };
        self.forget(id);
        self.by_name.remove(&name);
        true
    }

    fn forget(&mut self, id: ProxyId) {
        self.marks.forget(id);
        self.unidentified.remove(&id);
        let Some(Connected { group, redirected, .. }) = self.proxies.remove(&id) else { return };
        if let Some(group) = group {
            self.groups.leave(id, group);
        }
        // Who else gets the same has it already, and what nobody gets does not stay.
        for ((_, name), part) in redirected {
            self.results.redirected.forget(&name, &part);
        }
    }

    /// Whether a Dataplane of that name is known.
    pub(super) fn labels_of(&self, name: &str) -> Option<&Labels> {
        self.replicas.get(name).map(|replica| &replica.labels)
    }

    /// Those whose certificates are to be asked for.
    pub(super) fn unidentified(&mut self) -> Vec<Unidentified> {
        let ids = std::mem::take(&mut self.unidentified);
        let proxies = ids.into_iter().filter_map(|id| Some((id, self.proxies.get(&id)?)));
        let asks = |(id, proxy): (ProxyId, &Connected)| {
            let labels = self.labels_of(&proxy.name).cloned();
            Unidentified { id, name: proxy.name.clone(), traits: proxy.traits, labels }
        };
        proxies.map(asks).collect()
    }

    /// The certificate of a proxy may be another one now.
    pub(super) fn reidentify(&mut self, name: &str) {
        self.unidentified.extend(self.by_name.get(name));
    }

    /// A proxy has this certificate now.
    pub(super) fn identify(&mut self, id: ProxyId, issued: Option<Arc<Issued>>) {
        let Some(proxy) = self.proxies.get_mut(&id) else { return };
        if proxy.identify(id, issued, &mut self.marks) == Identified::Other {
            self.regroup(id);
        }
    }

    /// Looks at all policies for those that concern a proxy.
    pub(super) fn select(&mut self, id: ProxyId) {
        let Some(proxy) = self.proxies.get_mut(&id) else { return };
        let nothing = Labels::default();
        let labels = self.replicas.get(&proxy.name).map_or(&nothing, |replica| &replica.labels);
        proxy.select(&self.name, labels, self.policies.values());
    }

    pub(super) fn open(&mut self, id: ProxyId) {
        let Some(proxy) = self.proxies.get_mut(&id) else { return };
        let (name, was_ingress) = (proxy.name.clone(), proxy.is_ingress());
        let unwritten = match self.replicas.get(&name) {
            Some(replica) => {
                let circumstances = Circumstances { id, replica, moment: self.moment };
                proxy.open(&circumstances, &mut self.marks)
            }
            None => {
                proxy.close(id, &mut self.marks);
                None
            }
        };
        let nothing = Redirection::default();
        let redirection = self.replicas.get(&name).map_or(&nothing, |it| &it.redirection);
        for (name, part) in proxy.redirect(id, redirection, &mut self.marks) {
            self.results.redirected.forget(&name, &part);
        }
        match unwritten {
            Some(record) => {
                self.unwritten_now.insert(name.clone());
                self.unwritten.insert(name, record);
            }
            None => drop(self.unwritten.remove(&name)),
        }
        if was_ingress != proxy.is_ingress() {
            for sni in self.services.exposed() {
                self.marks.mark(id, Type::Cluster, sni);
                if let Some((name, _)) = self.services.exposed_as(sni) {
                    self.marks.mark(id, Type::Endpoint, name);
                }
            }
        }
    }

    /// Finds the proxies that get the same as this one.
    pub(super) fn regroup(&mut self, id: ProxyId) {
        let Some(proxy) = self.proxies.get(&id) else { return };
        let before = proxy.group;
        let replica = self.replicas.get(&proxy.name);
        let key = proxy.issued.as_ref().zip(replica).map(|(issued, replica)| {
            let facts = ProxyFacts { mesh: &self.name, labels: &replica.labels };
            let policies = self.policies.iter();
            let select = policies.filter(|(_, it)| it.is_outbound() && it.selects(&facts));
            Key {
                credentials: issued.credentials(),
                calls: Arc::new(Calls::of(replica, proxy.traits.binds_vips)),
                policies: select.map(|(id, _)| id.clone()).collect(),
            }
        });
        let now = key.map(|key| {
            let wanted = key.policies.clone();
            let policies = || {
                let mut all: Vec<Arc<Applied>> =
                    wanted.iter().filter_map(|id| self.policies.get(id)).cloned().collect();
                policy::sort(&mut all);
                all
            };
            self.groups.join(id, key, policies, &self.services)
        });
        self.groups.mark_move(id, before, now, &mut self.marks);
        if let Some(before) = before.filter(|before| Some(*before) != now) {
            self.groups.leave(id, before);
        }
        if let Some(proxy) = self.proxies.get_mut(&id) {
            proxy.group = now;
        }
    }

    /// What is to be written down before it holds.
    pub(super) fn unwritten(&mut self) -> BTreeMap<Name, Record> {
        std::mem::take(&mut self.unwritten)
    }

    /// Something was written down.
    pub(super) fn written(&mut self, name: &Name, record: Record) {
        let Some(id) = self.by_name.get(name).copied() else { return };
        let Some(proxy) = self.proxies.get_mut(&id) else { return };
        let before = std::mem::replace(&mut proxy.record, record);
        if before.withdrawn() != proxy.record.withdrawn() {
            self.marks.mark(id, Type::Runtime, &names::RUNTIME.into());
        }
        self.open(id);
        self.attribute_written(name);
    }
}
