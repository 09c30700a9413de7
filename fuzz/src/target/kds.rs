//! Both ends of KDS: streams of whatever messages, from a peer that was admitted.

use super::{
    Target,
    seeds::{Plane, place, runtime, zone},
};
use crate::wire::{self, Wire};
use anyhow::{Context as _, Result, ensure};
use futures::stream;
use kds::{
    apply::{Names, Sender, Visibility, Who},
    dialect::{Dialect, Introduction, answer, own_features},
    fetch::{Asking, Places},
    memory::{Facts, Identity, Presented},
    metadata,
    observe::{Report, Unobserved},
    quota::{Quota, Quotas},
    refusal::Refusal,
    serve::Offering,
    transit::Hop,
};
use prost::Message;
use proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    frame::Frame,
};
use resource::{ResourceKey, Version, label};
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    sync::Arc,
};
use store::Backend as _;
use tokio::{runtime::Runtime, sync::mpsc};
use tonic::Status;

/// Fields of an input: a message each, and which end gets them.
const MESSAGE: u32 = 1;
const END: u32 = 2;

/// Who gets a stream, by the lowest bits of [`END`]; the rest says how the peer speaks.
const OFFERS: [u64; 2] = [0, 1];
const ASKS: [u64; 2] = [2, 3];
const PLAIN: u64 = 4;
const BARE: u64 = 8;
const HIDDEN: u64 = 16;

/// So many streams until both begin anew: what they leave in the stores makes later ones slower.
const STREAMS: u64 = 500;
const QUOTA: Quota = Quota { resources: 200, bytes: 200_000 };
const ZONE: &str = "east";
/// So many messages may be on their way, as on a real stream.
const WINDOW: usize = 160;

/// A global and a zone.
pub(crate) struct Ends {
    runtime: Runtime,
    global: Plane,
    east: Plane,
    streams: u64,
}

/// What is not the peer's, with its version.
type Untouched = BTreeMap<(&'static str, ResourceKey), Version>;

fn planes(runtime: &Runtime) -> Result<[Plane; 2]> {
    let (mut global, mut east) = (Plane::new(None)?, Plane::new(Some(ZONE))?);
    runtime.block_on(async {
        global.fill(&place(None)?, "a").await?;
        global.fill(&place(Some("west"))?, "of-west").await?;
        east.fill(&place(Some(ZONE))?, "a").await
    })?;
    Ok([global, east])
}

fn dialect(end: u64) -> Dialect {
    if end & PLAIN == 0 { Dialect::Ours(metadata::own_features()) } else { Dialect::Plain }
}

fn introduction() -> Introduction {
    Introduction { features: own_features(), config: "{}".into(), ..Introduction::default() }
}

fn report() -> Result<Report> {
    Ok(Report::new(Arc::new(Unobserved), zone(ZONE)?))
}

fn messages<M: Message + Default>(input: &[wire::Field]) -> Vec<Result<M, Status>> {
    let decode = |bytes| M::decode(bytes).map_err(|error| Status::internal(error.to_string()));
    wire::all(input, MESSAGE).map(decode).collect()
}

fn session(end: u64, messages: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let messages = messages.into_iter().map(|message| (MESSAGE, Wire::Bytes(message)));
    wire::print(&messages.chain([(END, Wire::Number(end))]).collect::<Vec<_>>())
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl Ends {
    pub(crate) fn new() -> Result<Self> {
        let runtime = runtime()?;
        let [global, east] = planes(&runtime)?;
        Ok(Self { runtime, global, east, streams: 0 })
    }

    fn offering(&self, end: u64) -> Result<Offering> {
        let (plane, hop) = match end & 1 {
            0 => (&self.global, Hop::Down),
            _ => (&self.east, Hop::Up(zone(ZONE)?)),
        };
        let history = (plane.store.reader(), plane.store.epoch());
        let peer = (&zone(ZONE)?, dialect(end));
        Ok(Offering::new(history, plane.kinds.clone(), hop, peer, kds::limit::OWN_MESSAGE))
    }

    fn asking(&self, end: u64) -> Result<Asking> {
        if end & 1 == 0 {
            let names = if end & BARE == 0 { Names::Hashed } else { Names::Bare };
            let who = Who::Zone { name: zone(ZONE)?, visibility: Visibility::Shown, names };
            let sender = Sender { who, dialect: dialect(end) };
            let kinds = self.global.kinds.clone();
            let asking = Asking::of_zone(kinds, sender, &zone(ZONE)?, &Places::new());
            return Ok(asking.within(Arc::new(Quotas { all: QUOTA, ..Quotas::NONE })));
        }
        let (kinds, reader) = (self.east.kinds.clone(), self.east.store.reader());
        let facts = Facts::of(&kinds).context("a kind for facts")?;
        let memory = facts.memory(&reader);
        let revision = memory.as_ref().map_or(0, |memory| memory.revision);
        let mut asking = Asking::of_global(kinds, &zone(ZONE)?, (facts, memory), None);
        let identity = Identity { id: "c1".into(), epoch: Some(1) };
        let presented = Presented { identity, revision };
        let ours = (end & PLAIN == 0).then_some(presented);
        // Where it was is of no use with a plain one: a new stream, as the zone would begin it.
        if asking.met(dialect(end), ours.clone()).is_err() {
            let kinds = self.east.kinds.clone();
            asking = Asking::of_global(kinds, &zone(ZONE)?, (facts, None), None);
            asking.met(dialect(end), ours)?;
        }
        Ok(asking)
    }

    /// What an end that offers says to requests.
    fn offers(
        &self,
        end: u64,
        requests: Vec<Result<DeltaDiscoveryRequest, Status>>,
    ) -> Result<(String, Vec<Frame>)> {
        let (sender, mut sent) = mpsc::channel(WINDOW);
        let (offering, report) = (self.offering(end)?, report()?);
        let ended = self.runtime.block_on(offering.run(stream::iter(requests), sender, &report));
        let frames: Vec<Frame> = std::iter::from_fn(|| sent.try_recv().ok()).collect();
        Ok((chain(&ended), frames))
    }

    fn offered(&self, end: u64, input: &[wire::Field]) -> Result<String> {
        let (ended, frames) = self.offers(end, messages(input))?;
        let mut how = BTreeSet::new();
        for frame in &frames {
            let head = DeltaDiscoveryResponse::decode(frame.head.clone())?;
            let word = head.system_version_info.split(' ').next().map(str::to_owned);
            how.insert((word, frame.resources.is_empty(), head.removed_resources.is_empty()));
        }
        Ok(format!("{} responses, {how:?}: {ended}", frames.len()))
    }

    fn asked(&mut self, end: u64, input: &[wire::Field]) -> Result<String> {
        let (mut asking, report) = (self.asking(end)?, report()?);
        let plane = if end & 1 == 0 { &mut self.global } else { &mut self.east };
        let before = untouched(plane, end & 1 == 0);
        let (sender, mut sent) = mpsc::channel(WINDOW);
        let visibility = || if end & HIDDEN == 0 { Visibility::Shown } else { Visibility::Hidden };
        let store = plane.store.clone();
        let responses = stream::iter(messages::<DeltaDiscoveryResponse>(input));
        let running = asking.run(&store, responses, sender, &report, visibility);
        let ended = self.runtime.block_on(plane.with(running))?;
        ensure!(untouched(plane, end & 1 == 0) == before, "what is not the peer's was changed");
        if end & 1 == 0 {
            let used = plane.store.reader().usage(&zone(ZONE)?);
            ensure!(used.resources <= QUOTA.resources && used.bytes <= QUOTA.bytes, "{used:?}");
        }
        let answers: Vec<_> = std::iter::from_fn(|| sent.try_recv().ok()).collect();
        let nacks = answers.iter().filter_map(|answer| answer.error_detail.as_ref());
        let reasons: BTreeSet<&str> = nacks
            .flat_map(|nack| nack.message.lines())
            .filter_map(|it| it.split(": ").nth(1))
            .collect();
        Ok(format!("{} answers, {reasons:?}: {}", answers.len(), chain(&ended)))
    }
}

/// What a stream must leave as it is: what its peer did not write.
fn untouched(plane: &Plane, is_global: bool) -> Untouched {
    let reader = plane.store.reader();
    let mut all = Untouched::new();
    for (id, kind) in plane.kinds.iter() {
        let (_, rows) = reader.rows(id);
        for row in rows.iter() {
            let head = &row.head;
            let theirs = if is_global {
                head.audience.owner.as_ref().is_some_and(|owner| owner.as_str() == ZONE)
            } else {
                let of_global = head.labels.get(label::ORIGIN) == Some(label::ORIGIN_GLOBAL);
                // What the zone itself remembers of its global changes with it.
                of_global || !kind.flow.written_in_zones() || kind.name == "Config"
            };
            if !theirs {
                all.insert((kind.name, head.key.clone()), head.version);
            }
        }
    }
    all
}

impl Target for Ends {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let sessions = OFFERS.into_iter().flat_map(|offers| {
            [0, PLAIN].into_iter().filter_map(move |how| self.exchange(offers, how).ok())
        });
        sessions.flatten().collect()
    }

    fn run(&mut self, input: &[u8]) -> Result<String> {
        self.streams += 1;
        if self.streams.is_multiple_of(STREAMS) {
            [self.global, self.east] = planes(&self.runtime)?;
        }
        let fields = wire::parse(input).unwrap_or_default();
        let end = wire::number(&fields, END);
        if end & 2 == 0 { self.offered(end, &fields) } else { self.asked(end, &fields) }
    }
}

impl Ends {
    /// What two ends say to each other: asking, answering, refusing, and what is offered.
    fn exchange(&self, offers: u64, how: u64) -> Result<Vec<Vec<u8>>> {
        // Global offers to a zone that asks, and the other way round.
        let [_, asks] = if offers == 0 { ASKS } else { [ASKS[1], ASKS[0]] };
        let first = self.asking(asks | how)?.requests(&introduction());
        let (_, frames) = self.offers(offers | how, first.iter().cloned().map(Ok).collect())?;
        let mut answered = first.clone();
        for (nonce, request) in (1..).zip(&first) {
            let name = format!("a.{}", if nonce % 2 == 0 { "default" } else { "" });
            let refusal = Refusal { name: name.as_str().into(), reason: "spec: is bad".into() };
            let refused = if nonce % 3 == 0 { vec![refusal] } else { Vec::new() };
            answered.push(answer(&zone(ZONE)?, &request.type_url, &nonce.to_string(), &refused));
        }
        let encode = |all: Vec<DeltaDiscoveryRequest>| {
            all.into_iter().map(|message| message.encode_to_vec()).collect::<Vec<_>>()
        };
        let responses: Vec<Vec<u8>> = frames.iter().map(|it| it.to_bytes().to_vec()).collect();
        let few = responses.iter().max_by_key(|response| response.len()).cloned();
        Ok(vec![
            session(offers | how, encode(first)),
            session(offers | how, encode(answered)),
            session(asks | how, responses),
            session(asks | how, few),
        ])
    }
}
