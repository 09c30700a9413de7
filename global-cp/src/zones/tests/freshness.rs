//! How fresh zones are: each stage stuck in turn, and a long time in which none is.

use super::*;
use crate::zones::Freshness;
use api::freshness::{Freshness as _, Stage, State, Zone};
use daemon::Metrics;
use delta::Versions;
use kds::{
    limit::{BEACON, STALE},
    refusal::Refusals,
};
use kinds::{beacon, beacon_echo};
use parking_lot::Mutex;
use resource::{AnySpec, Labels, label};
use std::sync::atomic::{AtomicBool, Ordering};
use store::{Committed, StoreError, view::Revision};

const KIND: &str = beacon::KIND.name;

/// How much of the line still goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Until {
    Sent,
    Taken,
    Stored,
    Reconciled,
    Answered,
}

/// Hears what is passed on.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl kds::observe::Observer for Heard {
    fn observe(&self, _stream: StreamId, _zone: &ZoneName, event: Event<'_>) {
        self.0.lock().push(format!("{event:?}"));
    }
}

struct Line {
    global: Global,
    metrics: Metrics,
    freshness: Arc<Freshness>,
    heard: Arc<Heard>,
    stream: StreamId,
    echo: beacon_echo::BeaconEcho,
}

impl Line {
    async fn new() -> Self {
        let global = Global::new().await;
        let (author, reader) = (global.author.clone(), global.store.reader());
        let (metrics, heard) = (Metrics::default(), Arc::<Heard>::default());
        let clock = global.clock.clone();
        let freshness = Freshness::new(author, reader, clock, &metrics, heard.clone());
        let (stream, echo) = (StreamId::next(), beacon_echo::BeaconEcho::default());
        let mut line = Self { global, metrics, freshness, heard, stream, echo };
        let listening = line.freshness.clone().listen();
        line.global.tasks.spawn(async { listening.await.unwrap() });
        line
    }

    fn shine(&mut self) {
        let (store, stop) = (self.global.store.clone(), CancellationToken::new());
        let shining = self.freshness.clone().shine(store, stop);
        self.global.tasks.spawn(async { shining.await.unwrap() });
    }

    fn tell(&self, event: Event<'_>) {
        self.freshness.observe(self.stream, &ZoneName::new("east").unwrap(), event);
    }

    fn ask(&self) {
        self.tell(Event::Begins { kind: KIND, until: None, refused: &Versions::new() });
    }

    /// The newest beacon.
    fn newest(&self) -> (Revision, u64) {
        let id = self.global.author.id(beacon::KIND);
        let (revision, rows) = self.global.store.reader().rows(id);
        let number =
            rows.iter().next().map(|row| kinds::read::<beacon::Beacon>(row).unwrap().number);
        (revision, number.unwrap_or_default())
    }

    /// A beacon goes along the line, as far as that goes.
    async fn pass(&mut self, until: Until) {
        let (revision, number) = self.newest();
        self.tell(Event::Sent { kind: KIND, resources: 1, until: Some(revision) });
        if until >= Until::Taken {
            let (refused, said) = (&Versions::new(), &Refusals::default());
            self.tell(Event::Stands { kind: KIND, until: Some(revision), refused, said });
        }
        let proxy = self.echo.proxy.take().unwrap_or_default();
        let answered = if until >= Until::Answered { number } else { proxy.answered };
        self.echo.proxy = Some(beacon_echo::Proxy { name: "shop/web".into(), answered });
        if until >= Until::Reconciled {
            self.echo.reconciled = number;
        }
        if until >= Until::Stored {
            self.echo.stored = number;
            self.say().await;
        }
    }

    async fn say(&self) {
        let spec: AnySpec = Arc::new(self.echo.clone());
        let spec = beacon_echo::KIND.encode(&spec).unwrap();
        let labels = [(label::ORIGIN, label::ORIGIN_ZONE), (label::ZONE, "east")];
        let (key, labels) = (ResourceKey::global("echo-east"), Labels::from_iter(labels));
        let row = beacon_echo::KIND.resource(key, labels, spec, "".into(), Peer::Zone).unwrap();
        let kind = self.global.author.id(beacon_echo::KIND);
        let edit = Edit::Put(Arc::new(row));
        self.global.commit(Item { kind, expected: Expected::Anything, edit }).await;
    }

    fn zone(&self) -> Zone {
        let [zone] = &self.freshness.zones()[..] else { panic!("one zone") };
        zone.clone()
    }

    fn state(&self) -> (State, Option<Stage>) {
        let zone = self.zone();
        (zone.state, zone.late)
    }
}

/// Lets virtual time pass.
async fn pass(time: Duration) {
    timeout(time, std::future::pending::<()>()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_asks_for_no_beacon_is_unknown_and_one_that_is_away_grows_old() {
    let mut line = Line::new().await;
    line.shine();
    pass(2 * STALE).await;
    assert_eq!(line.state(), (State::Unknown, None));
    line.ask();
    line.pass(Until::Answered).await;
    pass(BEACON / 2).await;
    assert_eq!(line.state(), (State::Fresh, None));
    let text = line.metrics.encode().unwrap();
    let metric = r#"freshness_seconds{zone="east",stage="proxy"}"#;
    assert!(text.contains(metric), "{text}");
    line.tell(Event::Closed);
    pass(3 * STALE).await;
    assert_eq!(line.state(), (State::Away, None));
    assert!(line.zone().age > Some(3 * STALE));
    // It comes back as a version that knows no beacons.
    line.stream = StreamId::next();
    line.tell(Event::Opened { call: Call::GlobalToZone, token: true });
    assert_eq!(line.state(), (State::Unknown, None));
    line.tell(Event::Closed);
    assert_eq!(line.state(), (State::Away, None));
    assert_eq!(
        *line.heard.0.lock(),
        ["Closed", "Opened { call: GlobalToZone, token: true }", "Closed"],
        "beacons are nothing to others"
    );
}

#[tokio::test(start_paused = true)]
async fn each_stage_that_is_stuck_is_named() {
    let mut line = Line::new().await;
    line.shine();
    line.ask();
    pass(Duration::from_secs(1)).await;
    let stages = [
        (Some(Until::Answered), None),
        (Some(Until::Reconciled), Some(Stage::Proxy)),
        (Some(Until::Stored), Some(Stage::Tables)),
        (Some(Until::Taken), Some(Stage::Return)),
        (Some(Until::Sent), Some(Stage::Zone)),
        (None, Some(Stage::Stream)),
        (Some(Until::Answered), None),
    ];
    for (until, late) in stages {
        for _ in 0..4 {
            if let Some(until) = until {
                line.pass(until).await;
            }
            pass(BEACON).await;
        }
        assert_eq!(line.state().1, late);
    }
    // As soon as the bound is passed, and not sooner.
    line.pass(Until::Answered).await;
    let written = line.zone().age.unwrap();
    pass(STALE - written).await;
    assert_eq!(line.state(), (State::Fresh, None));
    pass(Duration::from_millis(1)).await;
    assert_eq!(line.state().0, State::Late);
}

#[tokio::test(start_paused = true)]
async fn a_global_whose_writer_is_stuck_says_that_of_itself() {
    let mut line = Line::new().await;
    line.ask();
    pass(STALE).await;
    assert_eq!(line.state().0, State::Fresh, "it has just begun");
    pass(Duration::from_secs(1)).await;
    assert_eq!(line.state(), (State::Late, Some(Stage::Global)));
    line.shine();
    pass(Duration::from_secs(1)).await;
    line.pass(Until::Answered).await;
    pass(Duration::from_secs(1)).await;
    assert_eq!(line.state(), (State::Fresh, None));
}

#[tokio::test(start_paused = true)]
async fn no_long_time_is_taken_for_a_stuck_line() {
    let mut line = Line::new().await;
    line.shine();
    line.ask();
    pass(Duration::from_secs(1)).await;
    for _ in 0..10_000 {
        line.pass(Until::Answered).await;
        pass(BEACON / 2).await;
        assert_eq!(line.state(), (State::Fresh, None));
        pass(BEACON / 2).await;
        assert_eq!(line.state(), (State::Fresh, None));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_counts_and_not_what_there_was_to_be_sent() {
    let mut line = Line::new().await;
    line.shine();
    line.ask();
    pass(Duration::from_secs(1)).await;
    line.pass(Until::Answered).await;
    let (first, _) = line.newest();
    pass(2 * BEACON).await;
    line.tell(Event::Sent { kind: KIND, resources: 1, until: Some(first) });
    assert_eq!(line.state(), (State::Late, Some(Stage::Stream)));
    let (newest, _) = line.newest();
    line.tell(Event::Sent { kind: KIND, resources: 1, until: Some(newest) });
    assert_eq!(line.state(), (State::Late, Some(Stage::Zone)));
}

/// A store that refuses every write while it is full.
struct Full {
    store: Local,
    is_full: Arc<AtomicBool>,
}

impl store::Backend for Full {
    async fn commit(&self, batch: Vec<Item>) -> Result<Committed, StoreError> {
        match self.is_full.load(Ordering::Relaxed) {
            true => Err(StoreError::Storage(Arc::new(std::io::Error::other("full")))),
            false => self.store.commit(batch).await,
        }
    }

    async fn wait_for(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.wait_for(revision).await
    }

    fn reader(&self) -> Reader {
        self.store.reader()
    }

    fn epoch(&self) -> u64 {
        self.store.epoch()
    }
}

#[tokio::test(start_paused = true)]
async fn beacons_go_on_after_one_that_could_not_be_written() {
    let mut line = Line::new().await;
    let is_full = Arc::new(AtomicBool::new(true));
    let full = Full { store: line.global.store.clone(), is_full: is_full.clone() };
    let shining = line.freshness.clone().shine(full, CancellationToken::new());
    line.global.tasks.spawn(async { shining.await.unwrap() });
    line.ask();
    pass(2 * STALE).await;
    assert_eq!(line.state(), (State::Late, Some(Stage::Global)));
    is_full.store(false, Ordering::Relaxed);
    pass(BEACON).await;
    line.pass(Until::Answered).await;
    assert_eq!(line.state(), (State::Fresh, None));
}
