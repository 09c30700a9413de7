//! The side that asks: what to request, what to do with a response, what to answer.

mod asked;
mod judged;
mod own;
mod room;
#[cfg(test)]
mod tests;

use self::{
    asked::{Asked, Progress},
    judged::Judged,
    own::Own,
};
use crate::{
    apply::{Sender, Visibility, Who},
    dialect::{Broken, Dialect, Introduction, answer, first_request},
    ended::StreamEnded,
    gate::Gate,
    idle::Idle,
    incoming::Incoming,
    limit,
    memory::{Facts, Held, Identity, Memory, Place, Presented},
    observe::{Event, Report},
    quota::{Quotas, Waiting},
    refusal::Refusal,
};
use daemon::Repeats;
use delta::{Extent, Start};
use futures::{Stream, StreamExt};
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use resource::{Feature, Kind, ZoneName};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
};
use store::{
    Backend, Item, Kinds, Outcome,
    view::{KindId, Reader, Revision},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// What is asked for on one stream. Nothing of it outlives the stream.
#[derive(Debug)]
pub struct Asking {
    kinds: Arc<Kinds>,
    /// The zone of the stream, whichever end this is.
    zone: ZoneName,
    sender: Sender,
    asked: BTreeMap<KindId, Asked>,
    /// Those of them that are asked for once it is known that the peer has them.
    further: BTreeSet<KindId>,
    own: Option<Own>,
    quotas: Arc<Quotas>,
    waiting: Waiting,
    idle: Idle,
    repeats: Arc<Repeats>,
    /// Cancelled when another stream takes over.
    newer: CancellationToken,
}

/// A global that could resume cannot any more, so the answers to what it was asked mean something
/// else. The zone must forget where it was and ask anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("global does not resume streams any more")]
pub struct Forgotten;

/// Where a peer is in the history of each kind, and when that became so in our store.
pub type Places = BTreeMap<KindId, (Place, Revision)>;

/// What to do with a response.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Apply these, in this order.
    Ready(Vec<Incoming>),
    /// Answer this: nothing of it can be applied.
    Refused(Box<DeltaDiscoveryRequest>),
    /// Nothing of the stream is applied.
    Held(Held),
}

/// What became of a response.
#[derive(Debug)]
struct Settled {
    answer: DeltaDiscoveryRequest,
    /// Whether the zone has less than before.
    freed: bool,
    /// Whether anything is other than before.
    changes: bool,
}

impl Asking {
    /// A global asks `zone`, of which it has `places`.
    #[must_use]
    pub fn of_zone(kinds: Arc<Kinds>, sender: Sender, zone: &ZoneName, places: &Places) -> Self {
        let begin = |id: KindId| {
            let place = places.get(&id).filter(|_| sender.dialect.has(Feature::Resume));
            let at = place.and_then(|(at, since)| Some((at.cursor?, at.refused.clone(), *since)));
            let Some((cursor, refused, since)) = at else { return Asked::new(Start::Fresh) };
            // Still so if this stream ends before it brings anything.
            Asked { since, ..Asked::new(Start::Resume { cursor, refused }) }
        };
        let known = |kind: &Kind| sender.dialect.knows(kind.flow);
        let asked = kinds.iter().filter(|(_, kind)| kind.flow.goes_up() && known(kind));
        let asked = asked.map(|(id, _)| (id, begin(id))).collect();
        Self::with(zone.clone(), sender, asked, None, kinds)
    }

    /// The zone `zone` asks its global. What it remembers says where it begins; a global that an
    /// operator has just confirmed says all anew.
    #[must_use]
    pub fn of_global(
        kinds: Arc<Kinds>,
        zone: &ZoneName,
        (facts, memory): (Facts, Option<Memory>),
        confirmed: Option<Identity>,
    ) -> Self {
        let start = |kind: &str| match &memory {
            Some(memory) if confirmed.is_none() => memory.start(kind),
            Some(_) | None => Start::Fresh,
        };
        let all = kinds.iter().filter(|(_, kind)| kind.flow.requested_by_zones());
        let all: Vec<_> = all.map(|(id, kind)| (id, *kind)).collect();
        let asked = all.iter().map(|(id, kind)| (*id, Asked::new(start(kind.name)))).collect();
        let gate = Gate::new(facts, memory.clone(), confirmed, all);
        let sender = Sender { who: Who::Global, dialect: Dialect::Plain };
        let own = Some(Own { gate, facts, of_this_stream: false, stored: memory.clone(), memory });
        Self::with(zone.clone(), sender, asked, own, kinds)
    }

    /// The zone `zone` looks at all that a global has, whichever it is, and remembers nothing.
    #[must_use]
    pub(crate) fn looking(kinds: Arc<Kinds>, zone: &ZoneName) -> Self {
        let asked = kinds.iter().filter(|(_, kind)| kind.flow.requested_by_zones());
        let asked = asked.map(|(id, _)| (id, Asked::new(Start::Fresh))).collect();
        let sender = Sender { who: Who::Global, dialect: Dialect::Plain };
        Self::with(zone.clone(), sender, asked, None, kinds)
    }

    fn with(
        zone: ZoneName,
        sender: Sender,
        asked: BTreeMap<KindId, Asked>,
        own: Option<Own>,
        kinds: Arc<Kinds>,
    ) -> Self {
        let (waiting, idle, repeats, newer, further) = Default::default();
        let quotas = Arc::new(Quotas::NONE);
        Self { kinds, zone, sender, asked, further, own, quotas, waiting, idle, repeats, newer }
    }

    /// The zone may have no more than this.
    #[must_use]
    pub fn within(self, quotas: Arc<Quotas>) -> Self {
        Self { quotas, ..self }
    }

    /// What is refused of it is logged as `repeats` allows, also over several streams.
    #[must_use]
    pub(crate) fn saying(self, repeats: Arc<Repeats>) -> Self {
        Self { repeats, ..self }
    }

    /// Takes note of how the peer speaks, and of which global it is if that is one of ours. Both
    /// are known before its first response, but not before the first requests are sent.
    pub fn met(&mut self, dialect: Dialect, presented: Option<Presented>) -> Result<(), Forgotten> {
        self.sender.dialect = dialect;
        // Their state is one row: it need not be resumed.
        let further = self.kinds.iter().filter(|(_, kind)| {
            kind.flow.only_with().is_some() && kind.flow.goes_down() && dialect.knows(kind.flow)
        });
        self.further = further.map(|(id, _)| id).collect();
        self.asked.extend(self.further.iter().map(|id| (*id, Asked::new(Start::Fresh))));
        let resumes = |asked: &Asked| matches!(asked.start, Start::Resume { .. });
        if !dialect.has(Feature::Resume) && self.asked.values().any(resumes) {
            return Err(Forgotten);
        }
        if let (Some(own), Some(presented)) = (&mut self.own, presented) {
            own.gate.met(presented);
        }
        Ok(())
    }

    /// Ends, between two responses, when `newer` is cancelled.
    #[must_use]
    pub fn until(self, newer: CancellationToken) -> Self {
        Self { newer, ..self }
    }

    /// The first requests, one for each kind.
    #[must_use]
    pub fn requests(&self, introduction: &Introduction) -> Vec<DeltaDiscoveryRequest> {
        let all = self.asked.keys().copied().collect();
        self.requests_for(&all, introduction)
    }

    /// Those for what only peers that announced something are asked for, once that is known.
    #[must_use]
    pub fn further_requests(&self, introduction: &Introduction) -> Vec<DeltaDiscoveryRequest> {
        self.requests_for(&self.further, introduction)
    }

    fn requests_for(
        &self,
        kinds: &BTreeSet<KindId>,
        introduction: &Introduction,
    ) -> Vec<DeltaDiscoveryRequest> {
        let node = introduction.node(&self.zone);
        let request = |(id, kind): (KindId, &Kind)| {
            let asked = self.asked.get(&id).filter(|_| kinds.contains(&id))?;
            Some(first_request(node.clone(), kind.name, &asked.start))
        };
        self.kinds.iter().filter_map(request).collect()
    }

    /// How many requests may be on their way at most, if the peer waits for answers.
    #[must_use]
    pub fn capacity(&self) -> usize {
        2 * self.asked.len() + 16
    }

    /// From now on what comes from the zone is for nobody, or as its kinds say.
    pub const fn show(&mut self, to: Visibility) {
        if let Who::Zone { visibility, .. } = &mut self.sender.who {
            *visibility = to;
        }
    }

    /// Asks until the stream ends. `visibility` is looked at for each response.
    pub async fn run<B: Backend>(
        &mut self,
        store: &B,
        responses: impl Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Unpin,
        requests: mpsc::Sender<DeltaDiscoveryRequest>,
        report: &Report,
        visibility: impl Fn() -> Visibility,
    ) -> StreamEnded {
        let ended = match self.ask(store, responses, requests, report, visibility).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        };
        match self.save(store, report).await {
            Ok(()) => ended,
            Err(error) => error,
        }
    }

    async fn ask<B: Backend>(
        &mut self,
        store: &B,
        mut responses: impl Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Unpin,
        requests: mpsc::Sender<DeltaDiscoveryRequest>,
        report: &Report,
        visibility: impl Fn() -> Visibility,
    ) -> Result<Infallible, StreamEnded> {
        // Never waits: a peer that does not read its answers may not send.
        let send = |answer| {
            let sent = requests.try_send(answer);
            let ended = |_| if requests.is_closed() { StreamEnded::ByPeer } else { FLOOD };
            sent.map_err(ended)
        };
        let begun = Instant::now();
        loop {
            let late = self.awaits_first().then_some(begun + limit::SILENCE);
            let unsaved = self.own.as_ref().is_some_and(Own::unsaved);
            let response = tokio::select! {
                biased;
                () = requests.closed() => return Err(StreamEnded::ByPeer),
                () = self.newer.cancelled() => return Err(StreamEnded::Superseded),
                response = responses.next() => response,
                // Nothing else to do now: many responses are remembered at once.
                () = std::future::ready(()), if unsaved => {
                    self.save(store, report).await?;
                    continue;
                }
                () = sleep_until(late.unwrap_or(begun)), if late.is_some() => {
                    return Err(StreamEnded::Silent);
                }
            };
            let response = response.ok_or(StreamEnded::ByPeer)?.map_err(StreamEnded::Failed)?;
            self.show(visibility());
            match self.take(response, &store.reader())? {
                Taken::Refused(answer) => {
                    self.idle.note(false)?;
                    let reason = answer.error_detail.as_ref().map(|error| &*error.message);
                    let reason = reason.unwrap_or_default();
                    report.tell(Event::Declined { reason });
                    if let Some(unsaid) = self.repeats.say((&self.zone, "response")) {
                        tracing::warn!(zone = %self.zone, ?reason, unsaid, "a response was refused");
                    }
                    send(*answer)?;
                }
                Taken::Ready(ready) => {
                    if ready.is_empty() {
                        self.idle.note(false)?;
                    }
                    for incoming in ready {
                        let settled = self.settle(store, incoming, report).await?;
                        self.idle.note(settled.changes)?;
                        send(settled.answer)?;
                        if settled.freed {
                            self.try_again(store, report).await?;
                        }
                    }
                }
                Taken::Held(held) => {
                    report.tell(Event::Held(&held));
                    // It may be asked again; the others wait for an operator, on an open stream.
                    if held.identity().is_none() {
                        return Err(StreamEnded::Unidentified);
                    }
                }
            }
        }
    }

    /// Whether one of ours owes an answer to a first request. A plain one may have nothing at all,
    /// and is silent then.
    fn awaits_first(&self) -> bool {
        let first = |asked: &Asked| matches!(asked.progress, Progress::First);
        // What came is kept back, so nothing is owed.
        let held = self.own.as_ref().is_some_and(|own| own.gate.is_held());
        !held && self.sender.dialect != Dialect::Plain && self.asked.values().any(first)
    }

    /// Unwraps a response.
    pub(crate) fn take(
        &mut self,
        response: DeltaDiscoveryResponse,
        reader: &Reader,
    ) -> Result<Taken, StreamEnded> {
        if response.nonce.is_empty() {
            return Err(Broken::NoNonce.into());
        }
        // Both are repeated in the answer.
        Broken::check_name("nonce", &response.nonce)?;
        Broken::check_name("type_url", &response.type_url)?;
        let kinds = self.kinds.clone();
        let kind = kinds.iter().find(|(_, kind)| kind.name == response.type_url);
        let decline = |zone: &ZoneName, reason| {
            let refusal = Refusal { name: "".into(), reason };
            let (kind, nonce) = (&response.type_url, &response.nonce);
            Ok(Taken::Refused(Box::new(answer(zone, kind, nonce, &[refusal]))))
        };
        let asked = kind.and_then(|(id, kind)| Some((id, kind, self.asked.get_mut(&id)?)));
        let Some((id, kind, asked)) = asked else {
            let reason = format!("kind {:?} was not asked for", response.type_url);
            return decline(&self.zone, reason);
        };
        if asked.nonce == response.nonce {
            // Nobody could tell which of the two is answered.
            return decline(&self.zone, format!("nonce: {:?} was used before", response.nonce));
        }
        asked.nonce.clone_from(&response.nonce);
        let first = matches!(asked.progress, Progress::First);
        let incoming = Incoming::read((id, kind), response, self.sender.dialect, first)?;
        asked.check(&incoming)?;
        let Some(own) = &mut self.own else { return Ok(Taken::Ready(vec![incoming])) };
        if own.gate.keeps(id) {
            return Err(FLOOD);
        }
        let passed = own.gate.pass(incoming, (&kinds, &self.sender, reader));
        Ok(passed.map_or_else(Taken::Held, Taken::Ready))
    }

    /// Commits what a response changes, then answers.
    async fn settle<B: Backend>(
        &mut self,
        store: &B,
        incoming: Incoming,
        report: &Report,
    ) -> Result<Settled, StreamEnded> {
        let (judged, revision) = self.store(store, &incoming).await?;
        let asked = self.asked.get(&incoming.kind);
        let says_more = asked.is_some_and(|asked| {
            let Judged { named, refused, .. } = &judged;
            asked.goes_on(&incoming, named) || asked.refuses_other(&incoming, refused)
        });
        let (freed, changes) = (judged.fitted.freed, judged.commits || says_more);
        let answer = self.applied(&incoming, judged, revision, report);
        Ok(Settled { answer, freed, changes })
    }

    /// Commits what a response changes.
    async fn store<B: Backend>(
        &mut self,
        store: &B,
        incoming: &Incoming,
    ) -> Result<(Judged, Revision), StreamEnded> {
        // Others write too: what was decided on rows that changed since is decided anew.
        for _ in 0..limit::ATTEMPTS {
            let reader = store.reader();
            let mut revision = reader.revision();
            let mut judged = self.judge(&reader, incoming);
            let batch = std::mem::take(&mut judged.batch);
            if !batch.is_empty() {
                let written = judged::written(&batch);
                let committed = store.commit(batch).await?;
                revision = committed.revision;
                self.committed(incoming.kind);
                store.wait_for(revision).await?;
                let conflict = |outcome: &Outcome| matches!(outcome, Outcome::Conflict { .. });
                if committed.outcomes.iter().any(conflict) {
                    continue;
                }
                judged.refused.extend(self.not_taken(incoming, &written, &committed.outcomes));
            }
            return Ok((judged, revision));
        }
        Err(StreamEnded::Contended)
    }

    fn kind(&self, id: KindId) -> Kind {
        let mut kinds = self.kinds.iter();
        let kind = kinds.find(|(known, _)| *known == id).map(|(_, kind)| *kind);
        kind.expect("a response was matched with a kind of this list")
    }

    /// Something of `kind` was changed in the store, so that knows no place any more.
    pub(crate) fn committed(&mut self, kind: KindId) {
        let kind = self.kind(kind).name;
        if let Some(own) = &mut self.own
            && let Some(memory) = own.without_place(kind)
        {
            own.stored = Some(memory);
        }
    }

    /// Takes note of a response that was applied, and answers it.
    pub(crate) fn applied(
        &mut self,
        incoming: &Incoming,
        judged: Judged,
        revision: Revision,
        report: &Report,
    ) -> DeltaDiscoveryRequest {
        let kind = self.kind(incoming.kind).name;
        let refused = judged.refused;
        let within = self.asked.get(&incoming.kind).map(|asked| &asked.progress);
        let within = matches!(within, Some(Progress::Within(_)));
        let begins = incoming.extent != Extent::Delta && !within;
        self.waiting.note(incoming, begins, &judged.fitted.over);
        let mut complete = false;
        if let Some(asked) = self.asked.get_mut(&incoming.kind) {
            asked.move_on(incoming, &refused);
            asked.since = revision;
            asked.progress = match incoming.extent {
                Extent::Part => Progress::Within(judged.named),
                Extent::Complete | Extent::Delta => Progress::Following,
            };
            complete = incoming.extent != Extent::Part;
            // What is small begins anew on each stream, and is not worth a second durable write.
            if let Some(own) = self.own.as_mut().filter(|_| !self.further.contains(&incoming.kind))
            {
                own.remember(kind, incoming, &asked.place);
            }
        }
        let resources = incoming.upserts.len();
        let until = incoming.cursor.map(|cursor| Revision(cursor.revision));
        self.say(kind, &refused);
        report.tell(Event::Applied { kind, resources, complete, until, refused: &refused });
        answer(&self.zone, kind, &incoming.nonce, &refused)
    }

    /// What is remembered and not yet in the store.
    pub(crate) fn unsaved(&mut self) -> Option<Item> {
        self.own.as_mut()?.save()
    }

    async fn save<B: Backend>(&mut self, store: &B, report: &Report) -> Result<(), StreamEnded> {
        let Some(memory) = self.unsaved() else { return Ok(()) };
        store.commit(vec![memory]).await?;
        report.tell(Event::Remembered);
        Ok(())
    }

    /// Where the peer is in the history of each kind, for its next stream.
    #[must_use]
    pub fn places(&self) -> Places {
        let at = self.asked.iter().filter(|(_, asked)| asked.place.cursor.is_some());
        at.map(|(id, asked)| (*id, (asked.place.clone(), asked.since))).collect()
    }
}

const FLOOD: StreamEnded = StreamEnded::Broken(Broken::Flood);
