//! A connected proxy: what it serves, as whom, to whom.

use super::{
    groups::{Call, GroupId},
    marks::{Marks, ProxyId},
    replicas::Replica,
    tcp::{Moment, Record, Wanted},
};
use crate::{
    generate::{Credentials, Inbound, IngressListener, Part, Redirection, TcpPermissions},
    identities::Issued,
};
use delta::Name;
use resource::{Labels, MeshName};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use xds::{
    Marker, Type,
    draft::{InboundDraft, ListenerDraft},
    names,
    policy::{self, Applied, InboundFacts, ProxyFacts},
};

/// What a proxy says about itself when it connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// It binds listeners on the virtual addresses of services.
    pub binds_vips: bool,
    /// A SPIRE agent is beside it.
    pub has_agent: bool,
}

#[derive(Debug)]
pub(super) struct Connected {
    pub(super) name: Name,
    pub(super) traits: Traits,
    pub(super) marker: Marker,
    /// Its own, if it says one.
    address: Option<IpAddr>,
    /// Its certificate, if it has one.
    pub(super) issued: Option<Arc<Issued>>,
    pub(super) group: Option<GroupId>,
    /// Those that select it and say something about incoming traffic, or about it as a whole.
    policies: Vec<Arc<Applied>>,
    pub(super) inbounds: BTreeMap<Name, Open>,
    pub(super) ingresses: BTreeMap<Name, (IngressListener, ListenerDraft)>,
    /// What it handles the connections with that the kernel redirects.
    pub(super) redirected: BTreeMap<(Type, Name), Part>,
    /// What is written down about its TCP inbounds.
    pub(super) record: Record,
}

/// An inbound, as it is served.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Open {
    pub(super) inbound: Inbound,
    pub(super) draft: InboundDraft,
    /// Whom it admits, if it is one of TCP. It is not served before that is written down.
    pub(super) tcp: Option<TcpPermissions>,
}

impl Open {
    pub(super) const fn is_http(&self) -> bool {
        self.inbound.protocol.is_http()
    }

    pub(super) const fn is_ready(&self) -> bool {
        self.is_http() || self.tcp.is_some()
    }

    /// Whether other callers pass the handshake when one becomes the other.
    fn other_callers(before: Option<&Self>, now: Option<&Self>) -> bool {
        let (Some(before), Some(now)) = (before, now) else { return false };
        let both = before.tcp.as_ref().zip(now.tcp.as_ref());
        both.is_some_and(|(before, now)| !before.same_callers(now))
    }

    /// The types of which a proxy gets something else when one becomes the other.
    fn difference(before: Option<&Self>, now: Option<&Self>) -> Vec<Type> {
        let before = before.filter(|open| open.is_ready());
        let now = now.filter(|open| open.is_ready());
        let (Some(one), Some(two)) = (before, now) else {
            let Some(open) = before.or(now) else { return Vec::new() };
            let details: &[Type] =
                if open.is_http() { &[Type::Route] } else { &[Type::Secret, Type::Extension] };
            return [&[Type::Cluster, Type::Listener], details].concat();
        };
        let (from, to) = (&one.draft, &two.draft);
        let spoken = one.inbound.protocol != two.inbound.protocol;
        let seen = one.is_http() != two.is_http();
        let cluster = spoken
            || one.inbound.application != two.inbound.application
            || one.inbound.redirected != two.inbound.redirected
            || from.cluster != to.cluster;
        let at = |open: &Self| (open.inbound.bind, open.inbound.redirected);
        let listener = seen || at(one) != at(two) || from.listener != to.listener;
        let route = from.route != to.route || from.permissions != to.permissions;
        let tcp = one.tcp != two.tcp;
        let changed = [
            cluster.then_some(Type::Cluster),
            listener.then_some(Type::Listener),
            (seen || route && one.is_http()).then_some(Type::Route),
            tcp.then_some(Type::Secret),
            tcp.then_some(Type::Extension),
        ];
        changed.into_iter().flatten().collect()
    }
}

/// What became of a proxy's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identified {
    /// It is the same one.
    Same,
    /// It is another one for the same identity.
    Renewed,
    /// It is of another identity, or is there or gone.
    Other,
}

/// What a proxy's inbounds follow from.
pub(super) struct Circumstances<'a> {
    pub(super) id: ProxyId,
    pub(super) replica: &'a Replica,
    pub(super) moment: Moment,
}

impl Connected {
    pub(super) fn new(name: Name, traits: Traits, marker: Marker, record: Record) -> Self {
        Self {
            name,
            traits,
            marker,
            address: None,
            issued: None,
            group: None,
            policies: Vec::new(),
            inbounds: BTreeMap::new(),
            ingresses: BTreeMap::new(),
            redirected: BTreeMap::new(),
            record,
        }
    }

    /// Whether it listens for what calls with `call`. A pod of a headless Service is called at its own
    /// address, where it takes its callers itself; Envoy takes two listeners of one address for a
    /// mistake, although none of them binds it.
    pub(super) fn listens(&self, call: &Call) -> bool {
        let own = |bind: &SocketAddr| call.redirected && Some(bind.ip()) == self.address;
        call.has_listener() && !call.binds.iter().any(own)
    }

    /// Whether other zones come in through it.
    pub(super) fn is_ingress(&self) -> bool {
        !self.ingresses.is_empty()
    }

    /// Looks at all policies for those that select a proxy with `labels`.
    pub(super) fn select<'a>(
        &mut self,
        mesh: &MeshName,
        labels: &Labels,
        policies: impl Iterator<Item = &'a Arc<Applied>>,
    ) {
        let facts = ProxyFacts { mesh, labels };
        let selected = policies.filter(|policy| shapes(policy) && policy.selects(&facts));
        self.policies = selected.cloned().collect();
        policy::sort(&mut self.policies);
    }

    /// A policy became another one, appeared or is gone. Returns whether the proxy is concerned.
    pub(super) fn reselect(
        &mut self,
        old: Option<&Arc<Applied>>,
        new: Option<&Arc<Applied>>,
    ) -> bool {
        let before = self.policies.len();
        self.policies.retain(|policy| old.is_none_or(|old| !Arc::ptr_eq(policy, old)));
        let had = self.policies.len() != before;
        self.policies.extend(new.cloned());
        policy::sort(&mut self.policies);
        had || new.is_some()
    }

    /// Works out anew what it serves, and marks what changes. Returns what is to be written down
    /// before it holds.
    pub(super) fn open(
        &mut self,
        circumstances: &Circumstances<'_>,
        marks: &mut Marks,
    ) -> Option<Record> {
        let Circumstances { id, replica, moment } = circumstances;
        let before = std::mem::take(&mut self.inbounds);
        let mut now = BTreeMap::new();
        for served in &replica.inbounds {
            let inbound = served.inbound.clone();
            let name = Name::from(names::inbound(&inbound.section));
            let facts = InboundFacts { section: &inbound.section, port: inbound.bind.port() };
            let draft = policy::inbound(&self.policies, &facts);
            now.insert(name, Open { inbound, draft, tcp: None });
        }
        let wanted: Vec<Wanted<'_>> = now.values().filter_map(wanted).collect();
        let next = self.record.next(&wanted, *moment);
        let unwritten = (next.inbounds != self.record.inbounds).then_some(next);
        for open in now.values_mut().filter(|open| !open.is_http()) {
            // Until new permissions are written down, the old ones hold.
            open.tcp = self.record.current(&open.inbound.section);
        }
        let by_agent = self.credentials().is_some_and(|it| it.are_of_agent());
        // Without a certificate none of them is served.
        let names = before.keys().chain(now.keys()).filter(|_| self.issued.is_some());
        for name in names {
            let (before, now) = (before.get(name), now.get(name));
            let kinds = Open::difference(before, now);
            // Then the listener itself says whom it lets through.
            let listener = by_agent && Open::other_callers(before, now);
            for kind in kinds.into_iter().chain(listener.then_some(Type::Listener)) {
                marks.mark(*id, kind, name);
            }
        }
        self.inbounds = now;
        self.address = replica.address;
        self.open_ingresses(*id, replica, marks);
        unwritten
    }

    /// Works out anew what it handles redirected connections with, and marks what changes. Returns
    /// what it does not get any more.
    pub(super) fn redirect(
        &mut self,
        id: ProxyId,
        redirection: &Redirection,
        marks: &mut Marks,
    ) -> Vec<(Name, Part)> {
        let parts = redirection.parts(&policy::proxy(&self.policies).passthrough);
        let now = parts.into_iter().map(|((kind, name), part)| ((kind, name.into()), part));
        let before = std::mem::replace(&mut self.redirected, now.collect());
        let new = self.redirected.iter().filter(|(key, part)| before.get(*key) != Some(*part));
        new.for_each(|((kind, name), _)| marks.mark(id, *kind, name));
        let mut gone = Vec::new();
        for ((kind, name), part) in before {
            let key = (kind, name);
            if self.redirected.get(&key) != Some(&part) {
                marks.mark(id, key.0, &key.1);
                gone.push((key.1, part));
            }
        }
        gone
    }

    /// Its Dataplane is gone: it serves nothing any more.
    pub(super) fn close(&mut self, id: ProxyId, marks: &mut Marks) {
        self.mark_inbounds(id, marks);
        self.inbounds.clear();
        for name in std::mem::take(&mut self.ingresses).keys() {
            marks.mark(id, Type::Listener, name);
        }
    }

    /// Has another certificate, or none, from now on.
    pub(super) fn identify(
        &mut self,
        id: ProxyId,
        issued: Option<Arc<Issued>>,
        marks: &mut Marks,
    ) -> Identified {
        let old = self.credentials();
        let before = std::mem::replace(&mut self.issued, issued);
        if before == self.issued {
            return Identified::Same;
        }
        let new = self.credentials();
        for credentials in [&old, &new].into_iter().flatten() {
            if let Credentials::Zone(identity) = credentials {
                marks.mark(id, Type::Secret, &identity.to_string().into());
            }
        }
        if old == new {
            return Identified::Renewed;
        }
        let other = takes_secrets(old.as_ref()) != takes_secrets(new.as_ref());
        if other {
            marks.mark(id, Type::Secret, &names::TRUST_BUNDLE.into());
        }
        if old.is_none() || new.is_none() {
            self.mark_all_inbounds(id, marks);
            return Identified::Other;
        }
        for (name, open) in self.inbounds.iter().filter(|(_, open)| open.is_ready()) {
            marks.mark(id, Type::Listener, name);
            if other && !open.is_http() {
                marks.mark(id, Type::Secret, name);
            }
        }
        Identified::Other
    }

    /// Where its Envoy has its certificate from, if it has one.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        self.issued.as_ref().map(|issued| issued.credentials())
    }

    /// Whether its Envoy has its certificate from us, and all that goes with it.
    pub(super) fn takes_secrets(&self) -> bool {
        takes_secrets(self.credentials().as_ref())
    }

    /// Everything that it serves, unless it serves nothing for want of a certificate.
    pub(super) fn served(&self) -> impl Iterator<Item = (&Name, &Open)> {
        let inbounds = self.inbounds.iter().filter(|_| self.issued.is_some());
        inbounds.filter(|(_, open)| open.is_ready())
    }

    fn mark_inbounds(&self, id: ProxyId, marks: &mut Marks) {
        if self.issued.is_some() {
            self.mark_all_inbounds(id, marks);
        }
    }

    fn mark_all_inbounds(&self, id: ProxyId, marks: &mut Marks) {
        for (name, open) in &self.inbounds {
            for kind in Open::difference(None, Some(open)) {
                marks.mark(id, kind, name);
            }
        }
    }

    fn open_ingresses(&mut self, id: ProxyId, replica: &Replica, marks: &mut Marks) {
        let before = std::mem::take(&mut self.ingresses);
        for listener in &replica.ingresses {
            let port = listener.bind.port();
            let facts = InboundFacts { section: &listener.section, port };
            let draft = policy::inbound(&self.policies, &facts).listener;
            let name = Name::from(names::ingress(&listener.section));
            self.ingresses.insert(name, (listener.clone(), draft));
        }
        for name in before.keys().chain(self.ingresses.keys()) {
            if before.get(name) != self.ingresses.get(name) {
                marks.mark(id, Type::Listener, name);
            }
        }
    }
}

/// Whether a proxy with these credentials gets secrets of ours.
fn takes_secrets(credentials: Option<&Credentials>) -> bool {
    !credentials.is_some_and(Credentials::are_of_agent)
}

/// Whether a policy says something about what a proxy serves, or about it as a whole.
pub(super) const fn shapes(policy: &Applied) -> bool {
    policy.is_inbound() || policy.is_about_proxy()
}

fn wanted(open: &Open) -> Option<Wanted<'_>> {
    (!open.is_http()).then(|| Wanted {
        section: &open.inbound.section,
        permissions: &open.draft.permissions,
        idle: open.draft.listener.idle_timeout,
    })
}
