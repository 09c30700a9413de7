//! How fresh zones are.
//!
//! Beacons are written here now and then and go the way of every change. How far they came is seen
//! on the streams, and in the echoes of the zones; ages are all by the clock of this process.

use api::{
    author::Author,
    freshness::{Freshness as Shown, Stage, Zone},
};
use daemon::{Clock, Metrics};
use kds::{
    limit::{BEACON, STALE},
    observe::{Call, Event, Observer, StreamId},
};
use kinds::{
    beacon::{self, Beacon},
    beacon_echo::{self, BeaconEcho},
    zone,
};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::gauge::ConstGauge,
};
use resource::{AnySpec, ResourceKey, ZoneName, label};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};
use store::{
    Backend, Committed, Expected,
    view::{Feed, KindSet, Reader, Revision, Update},
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Of how many beacons is known when they were written: those of an hour.
const KEPT: usize = 360;

/// Knows how far beacons came.
pub(crate) struct Freshness {
    author: Author,
    reader: Reader,
    clock: Clock,
    began: Instant,
    state: Mutex<State>,
    next: Arc<dyn Observer>,
}

#[derive(Debug, Default)]
struct State {
    /// Beacons that were written, oldest first.
    written: VecDeque<Written>,
    zones: BTreeMap<ZoneName, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Written {
    number: u64,
    revision: Revision,
    at: Instant,
}

/// What is known of a zone.
#[derive(Debug)]
struct Known {
    /// The newest stream that asks for beacons, as long as it is open.
    stream: Option<StreamId>,
    /// The newest stream that asks for anything, as long as it is open.
    open: Option<StreamId>,
    /// When it asked for the first time.
    since: Instant,
    /// What was sent to it, and what it took, to be found in [`State::written`].
    sent: Option<Revision>,
    taken: Option<Revision>,
    echo: BeaconEcho,
    /// Since when the zone has a proxy that is asked.
    asked: Instant,
}

impl Known {
    fn new() -> Self {
        let (now, echo) = (Instant::now(), BeaconEcho::default());
        Self { stream: None, open: None, since: now, sent: None, taken: None, echo, asked: now }
    }

    fn echoed(&mut self, echo: BeaconEcho) {
        if echo.proxy.is_some() != self.echo.proxy.is_some() {
            self.asked = Instant::now();
        }
        self.echo = echo;
    }
}

impl State {
    /// How old the newest beacon is that was written at `revision` or before.
    fn at(&self, revision: Option<Revision>) -> Option<Duration> {
        let reached = |written: &&Written| Some(written.revision) <= revision;
        self.written.iter().rev().find(reached).map(|written| written.at.elapsed())
    }

    /// How old a beacon is.
    fn of(&self, number: u64, clock: &Clock) -> Option<Duration> {
        let written = self.written.iter().rev().find(|written| written.number == number);
        let long_ago = || {
            let now = u64::try_from(clock.now().as_millisecond()).ok()?;
            Some(Duration::from_millis(now.saturating_sub(number))).filter(|_| number > 0)
        };
        written.map(|written| written.at.elapsed()).or_else(long_ago)
    }

    fn stages(&self, known: &Known, began: Instant, clock: &Clock) -> Vec<(Stage, Duration)> {
        let echo = &known.echo;
        let newest = self.written.back().map(|written| written.at);
        let since = |age: Option<Duration>| age.unwrap_or_else(|| known.since.elapsed());
        let proxy = echo.proxy.as_ref().map(|proxy| {
            let age = self.of(proxy.answered, clock);
            age.unwrap_or_else(|| known.asked.elapsed())
        });
        let all = [
            (Stage::Global, Some(newest.unwrap_or(began).elapsed())),
            (Stage::Stream, Some(since(self.at(known.sent)))),
            (Stage::Zone, Some(since(self.at(known.taken)))),
            (Stage::Return, Some(since(self.of(echo.stored, clock)))),
            (Stage::Tables, Some(since(self.of(echo.reconciled, clock)))),
            (Stage::Proxy, proxy),
        ];
        all.into_iter().filter_map(|(stage, age)| Some((stage, age?))).collect()
    }
}

impl Freshness {
    /// Tells `next` of everything that is not about beacons.
    pub(crate) fn new(
        author: Author,
        reader: Reader,
        clock: Clock,
        metrics: &Metrics,
        next: Arc<dyn Observer>,
    ) -> Arc<Self> {
        let (began, state) = (Instant::now(), Mutex::default());
        let freshness = Arc::new(Self { author, reader, clock, began, state, next });
        metrics.collect(Ages(freshness.clone()));
        freshness
    }

    /// Writes beacons, until `stop`. One that cannot be written is missed by all zones, and the next
    /// one is tried in its time.
    pub(crate) async fn shine<B: Backend>(
        self: Arc<Self>,
        store: B,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let key = ResourceKey::global(beacon::NAME);
        let row = self.author.get(&self.reader, beacon::KIND, &key);
        let before = row.and_then(|row| kinds::read::<Beacon>(&row).ok());
        let (mut last, mut due) = (before.map_or(0, |beacon| beacon.number), Instant::now());
        loop {
            let number = u64::try_from(self.clock.now().as_millisecond()).unwrap_or_default();
            last = number.max(last.saturating_add(1));
            let spec: AnySpec = Arc::new(Beacon { number: last });
            let expected = Expected::Anything;
            let item = self.author.write(beacon::KIND, key.clone(), &spec, expected)?;
            let at = Instant::now();
            match store.commit(vec![item]).await {
                Ok(Committed { revision, .. }) => {
                    self.written(Written { number: last, revision, at });
                }
                Err(error) => tracing::warn!(%error, "a beacon is not written"),
            }
            // One that was late does not make the next one come sooner.
            due = (due + BEACON).max(Instant::now());
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(due) => {}
            }
        }
    }

    fn written(&self, written: Written) {
        let mut state = self.state.lock();
        state.written.push_back(written);
        let surplus = state.written.len().saturating_sub(KEPT);
        state.written.drain(..surplus);
        // Of zones that are gone for good nothing is kept.
        let there = self.reader.rows(self.author.id(zone::KIND)).1;
        state.zones.retain(|zone, known| {
            known.stream.is_some() || there.get(&ResourceKey::global(zone.as_str())).is_some()
        });
    }

    /// Hears what zones say, until the end of the store.
    pub(crate) async fn listen(self: Arc<Self>) -> anyhow::Result<()> {
        let kinds = KindSet::from_iter([self.author.id(beacon_echo::KIND)]);
        let mut feed = Feed::of(&self.reader, kinds);
        loop {
            let echoes: Vec<_> = feed.next().await?.iter().filter_map(echo).collect();
            let mut state = self.state.lock();
            for (zone, echo) in echoes {
                state.zones.entry(zone).or_insert_with(Known::new).echoed(echo);
            }
        }
    }

    fn note(&self, stream: StreamId, zone: &ZoneName, event: &Event<'_>) {
        let mut state = self.state.lock();
        if matches!(event, Event::Begins { .. }) {
            let known = state.zones.entry(zone.clone()).or_insert_with(Known::new);
            known.stream = Some(stream);
            return;
        }
        let Some(known) = state.zones.get_mut(zone) else { return };
        if matches!(event, Event::Opened { call: Call::GlobalToZone, .. }) {
            known.open = Some(stream);
        } else if matches!(event, Event::Closed) {
            known.open.take_if(|open| *open == stream);
        }
        if known.stream != Some(stream) {
            return;
        }
        if let Event::Sent { until, .. } = event {
            known.sent = known.sent.max(*until);
        } else if let Event::Stands { until, .. } = event {
            known.taken = known.taken.max(*until);
        } else if matches!(event, Event::Closed) {
            known.stream = None;
        }
    }

    fn zone(&self, state: &State, name: &str) -> Zone {
        let known = ZoneName::new(name).ok().and_then(|name| state.zones.get(&name));
        let Some(known) = known.filter(|known| known.stream.is_some() || known.taken.is_some())
        else {
            return Zone::unknown(name, "the zone has asked for no beacon");
        };
        if known.stream.is_none() && known.open.is_some() {
            return Zone::unknown(name, "the zone asks for no beacon any more");
        }
        let shown = Zone::of(name, &state.stages(known, self.began, &self.clock), STALE);
        let proxy = known.echo.proxy.as_ref().map(|proxy| proxy.name.clone());
        let shown = Zone { proxy, ..shown };
        match known.stream {
            Some(_) => shown,
            None => shown.away("the zone is not connected"),
        }
    }
}

/// What a zone says of itself. Whose a row is was checked when it was stored.
fn echo(update: &Update) -> Option<(ZoneName, BeaconEcho)> {
    let row = update.now.as_ref()?;
    let zone = ZoneName::new(row.head.labels.get(label::ZONE)?).ok()?;
    let echo = kinds::read::<BeaconEcho>(row).ok()?;
    Some((zone, BeaconEcho::clone(&echo)))
}

impl Observer for Freshness {
    fn observe(&self, stream: StreamId, zone: &ZoneName, event: Event<'_>) {
        let kind = event.kind();
        let opens = matches!(event, Event::Opened { .. } | Event::Closed);
        if kind == Some(beacon::KIND.name) || opens {
            self.note(stream, zone, &event);
        }
        // What others count is the traffic of the protocol, and idle as long as nothing changes.
        if kind != Some(beacon::KIND.name) && kind != Some(beacon_echo::KIND.name) {
            self.next.observe(stream, zone, event);
        }
    }

    fn turned_away(&self, reason: &'static str) {
        self.next.turned_away(reason);
    }
}

impl Shown for Freshness {
    fn zones(&self) -> Vec<Zone> {
        let (_, rows) = self.reader.rows(self.author.id(zone::KIND));
        let state = self.state.lock();
        rows.iter().map(|row| self.zone(&state, &row.head.key.name)).collect()
    }
}

impl fmt::Debug for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Freshness").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfZone {
    zone: String,
    stage: &'static str,
}

/// The ages of all zones, counted when somebody asks.
#[derive(Debug)]
struct Ages(Arc<Freshness>);

impl Collector for Ages {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let zones = self.0.zones();
        let kind = ConstGauge::new(0.0).metric_type();
        let help = "Age of the newest beacon that came to a stage of the line to a zone";
        let mut family = encoder.encode_descriptor("freshness_seconds", help, None, kind)?;
        for zone in zones {
            for age in &zone.stages {
                let of_zone = OfZone { zone: zone.zone.clone(), stage: age.stage.name() };
                let seconds = ConstGauge::new(age.age.as_secs_f64());
                seconds.encode(family.encode_family(&of_zone)?)?;
            }
        }
        Ok(())
    }
}
