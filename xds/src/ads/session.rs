//! What to send to one Envoy next.
//!
//! Make before break: what something refers to is sent before it, and taken away after it.
//!
//! * New: clusters, with their endpoints and secrets at once, since Envoy acknowledges clusters only
//!   when they are warm; after that answer listeners, with the filters that they name, and routes.
//! * Old: routes and listeners; after their answers clusters; after that their endpoints and secrets.
//! * A permission withdrawn: secrets, filters, and then the runtime that cuts open connections.
//!
//! What Envoy asks for is answered at once: it waits.

use super::Refusal;
use crate::snapshot::{Changes, Marks, Source, Type};
use delta::{Answer, Due, Item, Look, Name, Named, Nonce, Nonces, Update, Version, Versions};
use proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    frame::Frame,
};
use std::{collections::BTreeSet, sync::Arc};

/// How many names a peer may ask for on a stream, and how many it may say that it holds.
const NAMES: usize = 100_000;
/// How much of a text that makes no sense is repeated.
const TEXT: usize = 4096;
const WILDCARD: &str = "*";

/// The order in which types get their turn: see the module.
const ORDER: [Type; 7] = [
    Type::Cluster,
    Type::Endpoint,
    Type::Secret,
    Type::Extension,
    Type::Listener,
    Type::Route,
    Type::Runtime,
];

/// Why a request ends its stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It asks for a type that nobody serves.
    #[error("type_url: {0:?} is not served")]
    Type(String),
    /// It asks for all resources of a type that is served by name.
    #[error("resource_names_subscribe: {0:?} is served by name, not as a whole")]
    Wildcard(Type),
    /// It answers something with a nonce that is none of ours.
    #[error("response_nonce: {0:?} is not a nonce of this server")]
    Nonce(String),
    /// It asks for too much.
    #[error("{field}: more than {NAMES} names")]
    TooMany {
        /// Where.
        field: &'static str,
    },
}

/// What happened on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A response was sent.
    Sent {
        /// Its type.
        kind: Type,
        /// What was in it.
        update: Update,
    },
    /// Envoy took a response.
    Acked {
        /// Its type.
        kind: Type,
        /// What was in it.
        update: Update,
    },
    /// Envoy refused something of a response, and keeps what it had.
    Refused {
        /// Its type.
        kind: Type,
        /// What was in it.
        update: Update,
        /// What Envoy says about it.
        refusal: Refusal,
    },
    /// The response that carries this beacon was sent.
    Beacon(u64),
    /// Envoy answered it.
    Answered(u64),
    /// Of what was marked less is open than before.
    Settled,
}

#[derive(Debug, Default)]
struct Subscribed {
    /// A request was seen.
    started: bool,
    named: Named,
}

impl Subscribed {
    fn is_idle(&self) -> bool {
        !self.named.is_in_flight() && !self.named.is_due()
    }
}

/// One delta ADS stream as a value.
#[derive(Debug, Default)]
pub struct Session {
    types: [Subscribed; Type::ALL.len()],
    nonces: Nonces,
    beacon: Beacon,
}

/// The type that carries beacons: Envoy takes all listeners from its first request on, answers at
/// once, and an empty response changes nothing and is not logged.
const CARRIER: Type = Type::Listener;

/// A beacon on its way through a stream.
#[derive(Debug, Default)]
struct Beacon {
    /// Waits to be sent.
    due: Option<u64>,
    /// Waits for this to be answered.
    sent: Option<(Nonce, u64)>,
    /// What happened last, until somebody was told.
    passed: Option<Event>,
}

impl Beacon {
    fn sent(&mut self, nonce: Nonce) {
        if let Some(number) = self.due.take() {
            (self.sent, self.passed) = (Some((nonce, number)), Some(Event::Beacon(number)));
        }
    }

    /// Whatever the answer is, it is one.
    fn answered(&mut self, nonce: Nonce) {
        if let Some((_, number)) = self.sent.take_if(|(sent, _)| *sent == nonce) {
            self.passed = Some(Event::Answered(number));
        }
    }
}

impl Session {
    /// Takes a request: an answer, names that are asked for or not any more, or all of these.
    pub fn request(
        &mut self,
        request: DeltaDiscoveryRequest,
        source: &dyn Source,
    ) -> Result<Option<Event>, Rejected> {
        let Some(kind) = Type::of(&request.type_url) else {
            return Err(Rejected::Type(cut(request.type_url)));
        };
        let event = self.answered(kind, &request)?;
        self.subscribed(kind, request, source)?;
        Ok(event)
    }

    fn answered(
        &mut self,
        kind: Type,
        request: &DeltaDiscoveryRequest,
    ) -> Result<Option<Event>, Rejected> {
        if request.response_nonce.is_empty() {
            return Ok(None);
        }
        let nonce = request.response_nonce.parse().map(Nonce);
        let nonce = nonce.map_err(|_| Rejected::Nonce(cut(request.response_nonce.clone())))?;
        if kind == CARRIER {
            self.beacon.answered(nonce);
        }
        let named = self.named_mut(kind);
        let Some(status) = &request.error_detail else {
            let update = named.answered(nonce, &Answer::Ack);
            return Ok(update.map(|update| Event::Acked { kind, update }));
        };
        let Some(sent) = named.waits_for(nonce) else { return Ok(None) };
        let refusal = Refusal::of(&sent, status.message.clone());
        let refused = refusal.reasons.keys().cloned().collect();
        let update = named.answered(nonce, &Answer::Refused(refused));
        refusal.untold.iter().for_each(|name| named.try_again(name));
        Ok(update.map(|update| Event::Refused { kind, update, refusal }))
    }

    /// Sends again what Envoy refused, as it is now. It is for the caller to know that there is an
    /// end to it.
    pub fn try_again(&mut self, kind: Type, name: &Name) {
        self.named_mut(kind).try_again(name);
    }

    fn subscribed(
        &mut self,
        kind: Type,
        request: DeltaDiscoveryRequest,
        source: &dyn Source,
    ) -> Result<(), Rejected> {
        let (wanted, names) = split(request.resource_names_subscribe);
        let (unwanted, dropped) = split(request.resource_names_unsubscribe);
        if request.initial_resource_versions.len() > NAMES {
            return Err(Rejected::TooMany { field: "initial_resource_versions" });
        }
        let first = !std::mem::replace(&mut self.entry(kind).started, true);
        // No names in the first request is how Envoy says that it wants all.
        let all = wanted || (first && names.is_empty() && kind.is_wildcard());
        if all && !kind.is_wildcard() {
            return Err(Rejected::Wildcard(kind));
        }
        let mut held: Versions = request
            .initial_resource_versions
            .into_iter()
            .map(|(name, version)| (name.into(), parsed(&version)))
            .collect();
        if kind == Type::Endpoint {
            // After a reconnect, it names the endpoints it holds behind a cluster that was sent
            // already, and it warms that cluster until they come again.
            for cluster in self.named(Type::Cluster).in_flight() {
                held.remove(&source.endpoints_of(&cluster.name));
            }
        }
        let named = self.named_mut(kind);
        named.unsubscribe(&dropped);
        named.subscribe(names, &held);
        if unwanted {
            named.unsubscribe_all();
        }
        if all {
            named.subscribe_all(source.names(kind), &held);
        }
        if self.types.iter().map(|subscribed| subscribed.named.len()).sum::<usize>() > NAMES {
            return Err(Rejected::TooMany { field: "resource_names_subscribe" });
        }
        Ok(())
    }

    /// The next response carries this beacon; it is empty if nothing else is due.
    pub const fn beacon(&mut self, number: u64) {
        self.beacon.due = Some(number);
    }

    /// Whether Envoy has all that it asks for, and has asked for what it always does.
    pub(super) fn is_synced(&self) -> bool {
        Type::ALL.into_iter().all(|kind| self.has_settled(kind))
    }

    /// What happened to a beacon just now.
    pub const fn passed(&mut self) -> Option<Event> {
        self.beacon.passed.take()
    }

    /// Takes what changed.
    pub fn mark(&mut self, marks: Marks) {
        for (kind, names) in marks {
            let named = self.named_mut(kind);
            names.into_iter().for_each(|name| named.mark(name));
        }
    }

    /// The next response. `changes` is the mailbox of which [`mark`](Self::mark) was given all:
    /// what arrived in it since then may be seen in the source already and must not be overtaken.
    pub fn next(&mut self, source: &dyn Source, changes: &Changes) -> Option<(Frame, Event)> {
        if self.beacon.due.is_some() {
            self.named_mut(CARRIER).owe();
        }
        ORDER.into_iter().find_map(|kind| {
            let draft = self.draft(kind, source, changes)?;
            let subscribed = self.types.get_mut(kind.index())?;
            let update = subscribed.named.send(draft, &mut self.nonces)?;
            if kind == CARRIER {
                self.beacon.sent(update.nonce);
            }
            self.sent(kind, &update.upserts, source);
            Some((frame(kind, &update), Event::Sent { kind, update }))
        })
    }

    fn draft(&self, kind: Type, source: &dyn Source, changes: &Changes) -> Option<delta::Draft> {
        let after = changed_after(kind);
        let too_early = || after.iter().any(|first| self.is_held_up(*first) || changes.has(*first));
        // The runtime is one resource, and Envoy asks for nothing else before it has it.
        let whole = kind != Type::Runtime;
        if whole && too_early() {
            return None;
        }
        let may_go = removed_after(kind).iter().all(|first| self.has_settled(*first));
        let goes_early = || !may_go || removed_after(kind).iter().any(|first| changes.has(*first));
        let draft = self.named(kind).draft(|name, due| {
            let waits = due != Due::Changed && !kind.is_wildcard();
            // Before the looks into the mailbox: a change is marked before it is seen.
            match source.get(kind, name) {
                Some(item) if whole || waits || !too_early() => Look::There(item),
                None if waits || !goes_early() => Look::Absent,
                Some(_) | None => Look::Later,
            }
        })?;
        // All of it or nothing: the first answer is complete.
        (!whole || !too_early()).then_some(draft)
    }

    /// What was sent makes Envoy wait for more.
    fn sent(&mut self, kind: Type, upserts: &[Item], source: &dyn Source) {
        for item in upserts {
            match kind {
                // It warms the cluster anew, but does not ask for endpoints that it already watches.
                Type::Cluster => {
                    let endpoints = source.endpoints_of(&item.name);
                    self.named_mut(Type::Endpoint).send_again(&endpoints);
                }
                // A listener whose filter does not come is held back.
                Type::Listener => self.named_mut(Type::Extension).send_again(&item.name),
                Type::Endpoint | Type::Route | Type::Secret | Type::Extension | Type::Runtime => {}
            }
        }
    }

    /// Whether the peer has all there is to say about a type. On a stream that was opened again it
    /// has not before it asked: what it holds may refer to what is gone.
    pub(super) fn has_settled(&self, kind: Type) -> bool {
        let subscribed = self.types.get(kind.index());
        subscribed.is_some_and(|it| it.is_idle() && (it.started || !kind.is_wildcard()))
    }

    /// Whether something of a type that others refer to has not reached the peer. The type had its
    /// turn before: what it could send is in flight.
    fn is_held_up(&self, kind: Type) -> bool {
        let named = self.named(kind);
        // Only clusters are acknowledged late. Of the others it suffices that they are sent: Envoy
        // takes one response after the other.
        named.is_in_flight() && (kind == Type::Cluster || named.is_due())
    }

    fn entry(&mut self, kind: Type) -> &mut Subscribed {
        self.types.get_mut(kind.index()).expect("there is one for each type")
    }

    fn named_mut(&mut self, kind: Type) -> &mut Named {
        &mut self.entry(kind).named
    }

    fn named(&self, kind: Type) -> &Named {
        &self.types.get(kind.index()).expect("there is one for each type").named
    }
}

/// What must have reached the peer before a change of this type.
const fn changed_after(kind: Type) -> &'static [Type] {
    match kind {
        Type::Listener | Type::Route => &[Type::Cluster],
        Type::Runtime => &[Type::Secret, Type::Extension],
        Type::Cluster | Type::Endpoint | Type::Secret | Type::Extension => &[],
    }
}

/// What must have left the peer before something of this type may go.
const fn removed_after(kind: Type) -> &'static [Type] {
    match kind {
        Type::Cluster => &[Type::Listener, Type::Route],
        Type::Route => &[Type::Listener],
        Type::Endpoint | Type::Secret | Type::Extension => &[Type::Cluster, Type::Listener],
        Type::Listener | Type::Runtime => &[],
    }
}

fn split(names: Vec<String>) -> (bool, BTreeSet<Name>) {
    let mut names: BTreeSet<Name> = names.into_iter().map(Arc::from).collect();
    (names.remove(WILDCARD), names)
}

/// A version that we did not write is one that we do not have.
fn parsed(version: &str) -> Version {
    resource::Version::parse(version).map_or(Version([0; 16]), |it| Version(it.to_be_bytes()))
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT));
    text
}

fn frame(kind: Type, update: &Update) -> Frame {
    let head = DeltaDiscoveryResponse {
        type_url: kind.url().into(),
        nonce: update.nonce.0.to_string(),
        removed_resources: update.removals.iter().map(|name| name.to_string()).collect(),
        ..DeltaDiscoveryResponse::default()
    };
    Frame::new(&head, update.upserts.iter().map(|item| item.bytes.clone()).collect())
}
