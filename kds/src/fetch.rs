//! The side that asks: what to request, what to do with a response, what to answer.

use crate::{
    apply::{Batch, Named, Sender, Visibility, Who, apply},
    dialect::{Broken, Dialect, Introduction, answer, first_request},
    ended::StreamEnded,
    gate::Gate,
    incoming::Incoming,
    memory::{Facts, Identity, Memory, Place, Presented},
    observe::{Event, Report},
    refusal::Refusal,
};
use delta::{Extent, Start, Versions};
use futures::{Stream, StreamExt};
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use resource::{Feature, ZoneName};
use std::{collections::BTreeMap, sync::Arc};
use store::{Backend, Item, Kinds, Outcome, view::KindId};
use tokio::sync::mpsc;
use tonic::Status;

/// What is asked for on one stream. Nothing of it outlives the stream.
#[derive(Debug)]
pub struct Asking {
    kinds: Arc<Kinds>,
    /// The zone of the stream, whichever end this is.
    zone: ZoneName,
    sender: Sender,
    asked: BTreeMap<KindId, Asked>,
    own: Option<Own>,
}

/// What only a zone has: one global of its own.
#[derive(Debug)]
struct Own {
    gate: Gate,
    facts: Facts,
    memory: Option<Memory>,
}

#[derive(Debug)]
struct Asked {
    progress: Progress,
    start: Start,
    refused: Versions,
}

#[derive(Debug)]
enum Progress {
    /// Nothing came yet.
    First,
    /// A part of everything came, with these.
    Within(Named),
    /// Everything came.
    Following,
}

/// A global that could resume cannot any more, so the answers to what it was asked mean something
/// else. The zone must forget where it was and ask anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("global does not resume streams any more")]
pub struct Forgotten;

/// What a response means.
#[derive(Debug)]
struct Judged {
    batch: Vec<Item>,
    refused: Vec<Refusal>,
    named: Named,
    memory: Option<Memory>,
}

impl Asking {
    /// A global asks `zone`.
    #[must_use]
    pub fn of_zone(kinds: Arc<Kinds>, sender: Sender, zone: &ZoneName) -> Self {
        let asked = kinds.iter().filter(|(_, kind)| kind.flow.requested_by_global());
        let asked = asked.map(|(id, _)| (id, Asked::new(Start::Fresh))).collect();
        Self { zone: zone.clone(), sender, asked, own: None, kinds }
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
        let own = Some(Own { gate, facts, memory });
        Self { zone: zone.clone(), sender, asked, own, kinds }
    }

    /// Takes note of how the peer speaks, and of which global it is if that is one of ours. Both
    /// are known before its first response, but not before the first requests are sent.
    pub fn met(&mut self, dialect: Dialect, presented: Option<Presented>) -> Result<(), Forgotten> {
        self.sender.dialect = dialect;
        let resumes = |asked: &Asked| matches!(asked.start, Start::Resume { .. });
        if !dialect.has(Feature::Resume) && self.asked.values().any(resumes) {
            return Err(Forgotten);
        }
        if let (Some(own), Some(presented)) = (&mut self.own, presented) {
            own.gate.met(presented);
        }
        Ok(())
    }

    /// The first requests, one for each kind.
    #[must_use]
    pub fn requests(&self, introduction: &Introduction) -> Vec<DeltaDiscoveryRequest> {
        let node = introduction.node(&self.zone);
        let request = |(id, kind): (KindId, &resource::Kind)| {
            let asked = self.asked.get(&id)?;
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
        mut self,
        store: &B,
        mut responses: impl Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Unpin,
        requests: mpsc::Sender<DeltaDiscoveryRequest>,
        report: &Report,
        visibility: impl Fn() -> Visibility,
    ) -> StreamEnded {
        loop {
            let response = tokio::select! {
                biased;
                () = requests.closed() => return StreamEnded::ByPeer,
                response = responses.next() => response,
            };
            let response = match response {
                Some(Ok(response)) => response,
                Some(Err(status)) => return StreamEnded::Failed(status),
                None => return StreamEnded::ByPeer,
            };
            self.show(visibility());
            match self.received(store, response, report).await {
                Ok(answers) => {
                    for answer in answers {
                        // Never waits: a peer that does not read its answers may not send.
                        if requests.try_send(answer).is_err() {
                            return if requests.is_closed() {
                                StreamEnded::ByPeer
                            } else {
                                Broken::Flood.into()
                            };
                        }
                    }
                }
                Err(ended) => return ended,
            }
        }
    }

    /// Applies a response, and those that waited for it; returns what to answer.
    async fn received<B: Backend>(
        &mut self,
        store: &B,
        response: DeltaDiscoveryResponse,
        report: &Report,
    ) -> Result<Vec<DeltaDiscoveryRequest>, StreamEnded> {
        if response.nonce.is_empty() {
            return Err(Broken::NoNonce.into());
        }
        let kinds = self.kinds.clone();
        let asked = kinds.iter().find(|(_, kind)| kind.name == response.type_url);
        let asked = asked.filter(|(id, _)| self.asked.contains_key(id));
        let Some((id, kind)) = asked else {
            let reason = format!("kind {:?} was not asked for", response.type_url);
            let refusal = Refusal { name: "".into(), reason };
            return Ok(vec![answer(&self.zone, &response.type_url, &response.nonce, &[refusal])]);
        };
        let first = matches!(self.asked.get(&id), Some(Asked { progress: Progress::First, .. }));
        let incoming = Incoming::read((id, kind), response, self.sender.dialect, first)?;
        let ready = match &mut self.own {
            None => vec![incoming],
            Some(own) if own.gate.keeps(id) => return Err(Broken::Flood.into()),
            Some(own) => match own.gate.pass(incoming, (&kinds, &self.sender, &store.reader())) {
                Ok(ready) => ready,
                Err(held) => {
                    report.tell(Event::Held(&held));
                    // It may be asked again; the others wait for an operator, on an open stream.
                    return match held.identity() {
                        None => Err(StreamEnded::Unidentified),
                        Some(_) => Ok(Vec::new()),
                    };
                }
            },
        };
        let mut answers = Vec::with_capacity(ready.len());
        for incoming in ready {
            answers.push(self.settle(store, incoming, report).await?);
        }
        Ok(answers)
    }

    /// Commits what a response changes, then answers.
    async fn settle<B: Backend>(
        &mut self,
        store: &B,
        incoming: Incoming,
        report: &Report,
    ) -> Result<DeltaDiscoveryRequest, StreamEnded> {
        // Others write too: what was decided on rows that changed since is decided anew.
        const ATTEMPTS: usize = 8;
        let kinds = self.kinds.clone();
        let (_, kind) = kinds
            .iter()
            .find(|(id, _)| *id == incoming.kind)
            .expect("a response was matched with a kind of this list");
        for _ in 0..ATTEMPTS {
            let mut judged = self.judge(kind, &store.reader(), &incoming);
            let batch = std::mem::take(&mut judged.batch);
            if !batch.is_empty() {
                let committed = store.commit(batch).await?;
                store.wait_for(committed.revision).await?;
                let conflict = |outcome: &Outcome| matches!(outcome, Outcome::Conflict { .. });
                if committed.outcomes.iter().any(conflict) {
                    continue;
                }
            }
            let refused = self.note(&incoming, judged);
            let complete = matches!(
                self.asked.get(&incoming.kind),
                Some(Asked { progress: Progress::Following, .. })
            );
            report.tell(Event::Applied { kind: kind.name, complete, refused: &refused });
            return Ok(answer(&self.zone, kind.name, &incoming.nonce, &refused));
        }
        Err(StreamEnded::Contended)
    }

    fn judge(
        &self,
        kind: &resource::Kind,
        reader: &store::view::Reader,
        incoming: &Incoming,
    ) -> Judged {
        let before = match self.asked.get(&incoming.kind).map(|asked| &asked.progress) {
            Some(Progress::Within(named)) => named.clone(),
            Some(Progress::First | Progress::Following) | None => Named::default(),
        };
        let (_, rows) = reader.rows(incoming.kind);
        let batch = Batch {
            upserts: &incoming.upserts,
            removals: &incoming.removals,
            complete: (incoming.extent == Extent::Complete).then_some(&before),
        };
        let applied = apply((incoming.kind, kind), &self.sender, &rows, batch);
        let mut named = before;
        named.unknown |= applied.named.unknown;
        named.keys.extend(applied.named.keys);
        let mut batch = applied.batch;
        let memory =
            self.own.as_ref().and_then(|own| own.after(self, kind, incoming, &applied.refused));
        if let (Some(own), Some(memory)) = (&self.own, &memory) {
            batch.extend(own.facts.remember(memory));
        }
        Judged { batch, refused: applied.refused, named, memory }
    }

    /// Takes note of a response that was applied.
    fn note(&mut self, incoming: &Incoming, judged: Judged) -> Vec<Refusal> {
        if let (Some(own), Some(memory)) = (&mut self.own, judged.memory) {
            own.memory = Some(memory);
        }
        if let Some(asked) = self.asked.get_mut(&incoming.kind) {
            asked.refused = asked.refused_after(incoming, &judged.refused);
            asked.progress = match incoming.extent {
                Extent::Part => Progress::Within(judged.named),
                Extent::Complete | Extent::Delta => Progress::Following,
            };
        }
        judged.refused
    }
}

impl Asked {
    fn new(start: Start) -> Self {
        let refused = match &start {
            Start::Resume { refused, .. } => refused.clone(),
            Start::Fresh | Start::Versions(_) => Versions::new(),
        };
        Self { progress: Progress::First, start, refused }
    }

    /// What is refused once `incoming` was applied but for `refused`.
    fn refused_after(&self, incoming: &Incoming, refused: &[Refusal]) -> Versions {
        let begins = !matches!(self.progress, Progress::Within(_));
        // A state that begins is judged anew.
        let mut all = if begins && incoming.extent != Extent::Delta {
            Versions::new()
        } else {
            self.refused.clone()
        };
        for name in &incoming.removed {
            all.remove(name.as_str());
        }
        for (name, version) in &incoming.versions {
            if refused.iter().any(|refusal| refusal.name == *name) {
                all.insert(name.clone(), *version);
            } else {
                all.remove(name);
            }
        }
        all
    }
}

impl Own {
    /// What is remembered once `incoming` was applied; `None` if that is known already.
    fn after(
        &self,
        asking: &Asking,
        kind: &resource::Kind,
        incoming: &Incoming,
        refused: &[Refusal],
    ) -> Option<Memory> {
        let presented = self.gate.presented()?;
        let known = self.memory.as_ref();
        // One that was set back, and confirmed, is remembered anew.
        let same = known.filter(|memory| {
            memory.identity == presented.identity && memory.accept(presented).is_ok()
        });
        let mut memory = same.cloned().unwrap_or_else(|| Memory {
            identity: presented.identity.clone(),
            revision: presented.revision,
            places: BTreeMap::new(),
        });
        let cursor = incoming.cursor.map_or(0, |cursor| cursor.revision);
        memory.revision = memory.revision.max(presented.revision).max(cursor);
        let cursor = incoming.cursor;
        if incoming.extent == Extent::Part {
            // In the middle of everything it is at no place, but it has what it had.
            if let Some(place) = memory.places.get_mut(kind.name) {
                *place = Place::default();
            }
        } else if cursor.is_some() {
            let asked = asking.asked.get(&incoming.kind)?;
            let refused = asked.refused_after(incoming, refused);
            memory.places.insert(kind.name.into(), Place { cursor, refused });
        } else {
            memory.places.insert(kind.name.into(), Place::default());
        }
        (known != Some(&memory)).then_some(memory)
    }
}
