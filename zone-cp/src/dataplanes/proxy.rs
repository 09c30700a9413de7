//! One proxy: what it said about itself, and the rows that follow from it.

use super::{
    insight::{self, Certificate, Counts, Stay, Versions},
    limits,
    place::{MANAGER, Shelf, is_ours},
    taken::Taken,
};
use crate::identities::{Issued, NoSvid};
use delta::Name;
use jiff::Timestamp;
use kinds::{
    dataplane::{self, Dataplane, section},
    dataplane_insight::{self, DataplaneInsight},
    labels,
    mesh_zone_address::{self, MeshZoneAddress},
};
use parking_lot::Mutex;
use proto::{
    atoll::proxy::v1::{Address, Problems, State},
    kuma::mesh::v1alpha1::dataplane::networking::{
        Listener, inbound::State as InboundState, listener,
    },
};
use resource::{Labels, ResourceKey, label};
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    net::IpAddr,
    sync::Arc,
};
use store::Item;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use xds::{Type, names};

/// A Dataplane as its proxy wants it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sent {
    pub(super) spec: Dataplane,
    /// As they are stored, but for who manages it.
    pub(super) labels: Labels,
}

/// Names one session or stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionId(pub(super) u64);

/// Asks the process at the other end whether it lives.
pub(super) type Ping = oneshot::Sender<()>;

/// A question about Envoy, and where the answer goes.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) what: proto::atoll::proxy::v1::admin_request::What,
    pub(super) query: String,
    pub(super) answer: oneshot::Sender<Result<bytes::Bytes, String>>,
}

/// A session as the rest of us reaches it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: ConnectionId,
    /// The process at the other end.
    pub(super) instance: String,
    pub(super) pings: mpsc::Sender<Ping>,
    pub(super) questions: mpsc::Sender<Question>,
    pub(super) problems: watch::Sender<Problems>,
    /// Another one took its place.
    pub(super) replaced: CancellationToken,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Proxy {
    /// `None`: somebody else wrote the Dataplane.
    pub(super) sent: Option<Sent>,
    /// The last state, also of a session that ended: it is what traffic was sent by.
    pub(super) state: Option<State>,
    pub(super) advertised: Option<Address>,
    pub(super) session: Option<Session>,
    pub(super) streams: BTreeMap<ConnectionId, Arc<Mutex<Taken>>>,
    /// Of streams that ended.
    pub(super) past: Counts,
    pub(super) versions: Versions,
    pub(super) certificate: Option<Certificate>,
    /// Why it has no certificate.
    pub(super) uncertified: Option<String>,
    /// The stay that is shown.
    pub(super) stay: String,
    pub(super) connected: Timestamp,
    pub(super) disconnected: Option<Timestamp>,
    pub(super) withdrawn: bool,
    /// Who waits until it is written.
    pub(super) waiting: Vec<oneshot::Sender<()>>,
}

impl Proxy {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            sent: None,
            state: None,
            advertised: None,
            session: None,
            streams: BTreeMap::new(),
            past: Counts::default(),
            versions: Versions::default(),
            certificate: None,
            uncertified: None,
            stay: uuid::Uuid::new_v4().to_string(),
            connected: now,
            disconnected: None,
            withdrawn: false,
            waiting: Vec::new(),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.session.is_some() || !self.streams.is_empty()
    }

    /// A connection begins. The first one after an absence begins another stay.
    pub(super) fn arrives(&mut self, now: Timestamp) {
        if self.disconnected.take().is_some() || self.withdrawn {
            self.stay = uuid::Uuid::new_v4().to_string();
            self.connected = now;
            self.past = Counts::default();
        }
        self.withdrawn = false;
    }

    /// What the issuer gave it last. Returns whether that is news.
    pub(super) fn certify(&mut self, last: Result<Arc<Issued>, NoSvid>) -> bool {
        let before = (self.certificate.clone(), self.uncertified.take());
        match last {
            Ok(issued) => {
                self.certificate = Some(Certificate {
                    identity: issued.identity.to_string(),
                    life: issued.svid().map(|svid| (svid.not_before, svid.not_after)),
                });
            }
            Err(why) => self.uncertified = Some(chain(&why)),
        }
        before != (self.certificate.clone(), self.uncertified.clone())
    }

    fn counts(&self) -> Counts {
        let mut sum = self.past.clone();
        self.streams.values().for_each(|taken| sum.add(&taken.lock().counts));
        sum
    }

    /// What Envoy refused of this type, by name.
    fn refused(&self) -> BTreeMap<(Type, Name), String> {
        let each = self.streams.values().flat_map(|taken| taken.lock().refused.clone());
        each.collect()
    }

    /// Looks at what it is to be: as its program wants it, or as somebody else wrote it, as of a pod.
    fn look<T: Default>(
        &self,
        key: &ResourceKey,
        shelf: &Shelf,
        look: impl FnOnce(&Dataplane) -> T,
    ) -> T {
        if let Some(sent) = &self.sent {
            return look(&sent.spec);
        }
        let stored = shelf.get(shelf.ids.dataplane, key);
        let stored = stored.and_then(|row| kinds::read::<Dataplane>(&row).ok());
        stored.map(|spec| look(&spec)).unwrap_or_default()
    }

    /// The inbounds that its Envoy has no listener for, as far as that is known.
    pub(super) fn unserved(&self, key: &ResourceKey, shelf: &Shelf) -> BTreeSet<String> {
        let streams: Vec<_> = self.streams.values().map(|taken| taken.lock()).collect();
        let answered: Vec<_> = streams.iter().filter(|taken| taken.answered).collect();
        if answered.is_empty() {
            return BTreeSet::new();
        }
        let has = |taken: &Taken, section: &str| taken.inbounds.contains(&*names::inbound(section));
        self.look(key, shelf, |spec| {
            let sections = spec.inbounds().iter().map(|inbound| section(inbound).into_owned());
            sections.filter(|section| !answered.iter().any(|taken| has(taken, section))).collect()
        })
    }

    fn is_ready(&self) -> bool {
        self.state.as_ref().is_none_or(|state| state.ready)
    }

    /// What is wrong with it, for its operator: first that by which it does not serve.
    pub(super) fn problems(&self, key: &ResourceKey, shelf: &Shelf) -> Problems {
        let mut unserved = self.unserved(key, shelf);
        let inbounds: BTreeSet<_> = unserved.iter().map(|name| names::inbound(name)).collect();
        let refused = self.refused();
        // Of those that Envoy refused it is known why they are not served.
        let is_refused = |section: &str| {
            let name: Name = names::inbound(section).into();
            refused.contains_key(&(Type::Listener, name))
        };
        unserved.retain(|section| !is_refused(section));
        // An ingress is nothing but its listeners.
        let is_ingress = self.look(key, shelf, |spec| !spec.listeners().is_empty());
        let (mut unready, mut others) = (Vec::new(), Vec::new());
        for ((kind, name), text) in refused {
            let serves = kind == Type::Listener && (is_ingress || inbounds.contains(&*name));
            let problems = if serves { &mut unready } else { &mut others };
            problems.push(format!("Envoy refuses {kind:?} {name}: {text}"));
        }
        if let Some(why) = &self.uncertified {
            let unserved = unserved.into_iter();
            others.extend(unserved.map(|name| format!("inbound {name} is not served: {why}")));
        }
        others.extend(self.names_as_addresses());
        let address = shelf.get(shelf.ids.address, key);
        if self.advertised.is_some() && address.is_some_and(|row| !is_ours(&row)) {
            others.push(format!(
                "MeshZoneAddress {key} was written by somebody else, so the address of this ingress is not advertised"
            ));
        }
        unready.truncate(limits::PROBLEMS);
        let mut problems = unready.clone();
        problems.append(&mut others);
        problems.truncate(limits::PROBLEMS);
        Problems { problems, unready }
    }

    /// What says a name where only an IP address is of use: nobody resolves it.
    fn names_as_addresses(&self) -> Vec<String> {
        let networking = self.sent.as_ref().and_then(|sent| sent.spec.0.networking.as_ref());
        let own = networking.into_iter().flat_map(|networking| {
            let listeners = networking.listeners.iter().map(|it| &it.address);
            let listeners = listeners.map(|it| ("networking.listeners.address", it));
            let inbounds = networking.inbound.iter().map(|it| &it.address);
            let inbounds = inbounds.map(|it| ("networking.inbound.address", it));
            [("networking.address", &networking.address)]
                .into_iter()
                .chain(inbounds)
                .chain(listeners)
        });
        let advertised = self.advertised.iter().map(|it| ("the advertised address", &it.host));
        let all = own.chain(advertised).filter(|(_, text)| !text.is_empty());
        all.filter(|(_, text)| text.parse::<IpAddr>().is_err())
            .map(|(field, text)| {
                format!("{field}: {text:?} is a name and not an IP address, so nobody can call it")
            })
            .collect()
    }

    /// The steps that make the store say what is so now.
    pub(super) fn items(
        &self,
        key: &ResourceKey,
        shelf: &Shelf,
        instance: &str,
        now: Timestamp,
    ) -> Vec<Item> {
        let ids = shelf.ids;
        let mut items = Vec::new();
        if self.withdrawn {
            items.extend(gone(key, shelf, now));
        } else {
            let dataplane = (ids.dataplane, dataplane::KIND);
            let managed = |sent: &Sent| sent.labels.with(label::MANAGED_BY, MANAGER);
            let shown = |sent| self.shown(sent, key, shelf);
            let put = |sent| shelf.put(dataplane, key, managed(sent), shown(sent));
            items.extend(self.sent.as_ref().and_then(put));
            items.extend(self.insight(key, shelf, instance, now));
        }
        items.extend(self.address(key, shelf));
        items
    }

    /// The Dataplane with the state of what it serves.
    fn shown(&self, sent: &Sent, key: &ResourceKey, shelf: &Shelf) -> Dataplane {
        let mut spec = sent.spec.clone();
        let unserved = self.unserved(key, shelf);
        let Some(networking) = &mut spec.0.networking else { return spec };
        for inbound in &mut networking.inbound {
            let alive = self.state.as_ref().is_none_or(|state| {
                let believed = state.inbounds.get(&*section(inbound)).copied();
                // Nobody asked an application yet that is to be asked.
                let unasked = inbound.service_probe.is_some();
                state.ready && believed.unwrap_or(!unasked)
            });
            let served = !unserved.contains(&*section(inbound));
            if inbound.state() == InboundState::Ready && !(alive && served) {
                inbound.set_state(InboundState::NotReady);
            }
            let ready = inbound.state() == InboundState::Ready;
            if let Some(health) = &mut inbound.health {
                health.ready &= ready;
            }
        }
        let listens = self.is_ready() && !self.refuses_listeners();
        for listener in &mut networking.listeners {
            if !listens {
                listener.set_state(listener::State::NotReady);
            }
        }
        spec
    }

    fn refuses_listeners(&self) -> bool {
        let refuses = |taken: &Arc<Mutex<Taken>>| {
            taken.lock().refused.keys().any(|(kind, _)| *kind == Type::Listener)
        };
        self.streams.values().any(refuses)
    }

    fn insight(
        &self,
        key: &ResourceKey,
        shelf: &Shelf,
        instance: &str,
        now: Timestamp,
    ) -> Option<Item> {
        let before = stored_insight(key, shelf);
        let stay = Stay {
            id: &self.stay,
            instance,
            connected: self.connected,
            disconnected: self.disconnected,
            versions: &self.versions,
            counts: self.counts(),
            updated: now,
            certificate: self.certificate.clone(),
            trusts: shelf.trusts(key),
            problems: &self.problems(key, shelf).problems,
        };
        let insight = insight::insight(before.as_deref(), &stay);
        let labels = labels::own(dataplane_insight::KIND, key, &shelf.place);
        shelf.put((shelf.ids.insight, dataplane_insight::KIND), key, labels, insight)
    }

    /// Where other zones come in, as long as they can.
    fn address(&self, key: &ResourceKey, shelf: &Shelf) -> Option<Item> {
        let id = shelf.ids.address;
        let there = shelf.get(id, key);
        // An Envoy that came back before its program says nothing about the address.
        let is_silent = self.state.is_none() && self.sent.is_none() && !self.withdrawn;
        if is_silent || there.as_ref().is_some_and(|row| !is_ours(row)) {
            return None;
        }
        match self.advertises() {
            Some(address) => {
                let labels = labels::own(mesh_zone_address::KIND, key, &shelf.place);
                let labels = labels.with(label::MANAGED_BY, MANAGER);
                shelf.put((id, mesh_zone_address::KIND), key, labels, address)
            }
            None => there.and_then(|_| shelf.delete(id, key)),
        }
    }

    fn advertises(&self) -> Option<MeshZoneAddress> {
        let ready = !self.withdrawn && self.state.as_ref().is_some_and(|state| state.ready);
        let advertised = self.advertised.as_ref().filter(|_| ready && !self.refuses_listeners())?;
        let listener = self.sent.as_ref()?.spec.listeners().iter().find(|l| is_ingress(l))?;
        let port = if advertised.port == 0 { listener.port } else { advertised.port };
        Some(MeshZoneAddress { address: advertised.host.clone(), port })
    }
}

/// An error with its reasons.
fn chain(error: &NoSvid) -> String {
    let mut text = error.to_string();
    let mut reason = error.source();
    while let Some(error) = reason {
        text = format!("{text}: {error}");
        reason = error.source();
    }
    text
}

pub(super) fn is_ingress(listener: &Listener) -> bool {
    listener.r#type() == listener::Type::ZoneIngress
}

fn stored_insight(key: &ResourceKey, shelf: &Shelf) -> Option<Arc<DataplaneInsight>> {
    let row = shelf.get(shelf.ids.insight, key)?;
    kinds::read::<DataplaneInsight>(&row).ok()
}

/// A Dataplane that a session wrote goes with it. One that somebody else wrote stays.
fn gone(key: &ResourceKey, shelf: &Shelf, now: Timestamp) -> Vec<Item> {
    let ids = shelf.ids;
    let stored = shelf.get(ids.dataplane, key);
    if stored.as_ref().is_some_and(|row| !is_ours(row)) {
        let ended = stored_insight(key, shelf).and_then(|before| insight::ended(&before, now));
        let labels = labels::own(dataplane_insight::KIND, key, &shelf.place);
        let kind = (ids.insight, dataplane_insight::KIND);
        return ended.and_then(|ended| shelf.put(kind, key, labels, ended)).into_iter().collect();
    }
    let all = [shelf.delete(ids.dataplane, key), shelf.delete(ids.insight, key)];
    all.into_iter().flatten().collect()
}
