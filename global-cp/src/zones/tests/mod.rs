mod freshness;
mod propagation;

use super::*;
use daemon::Clock;
use jiff::Timestamp;
use kds::observe::{Call, Event, Observer as _, StreamId};
use kinds::zone;
use resource::{Peer, ZoneName};
use serde_json::json;
use std::time::Duration;
use store::{
    Backend as _, Expected, Item, Local, Memory,
    view::{Edit, Feed, KindSet},
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

const OPENED: Event<'_> = Event::Opened { call: Call::GlobalToZone, token: true };

/// A store of global, and the task that keeps the insights.
struct Global {
    store: Local,
    author: Author,
    clock: Clock,
    insights: Arc<Insights>,
    /// Writes of ZoneInsights that no test waited for.
    written: Feed,
    tasks: JoinSet<()>,
}

impl Global {
    async fn new() -> Self {
        let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Zone };
        let clock = Clock::since("2026-11-24T12:00:00Z".parse::<Timestamp>().unwrap());
        let (store, writer) = store::open(Memory::new(1), kinds.clone(), clock.clone()).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async { writer.run().await.unwrap() });
        let author = Author { kinds: Arc::new(kinds), place: kinds::labels::Place::Global };
        let insights = insights(&author, &store, &clock);
        tasks.spawn(keep(insights.clone(), store.clone()));
        let kinds = KindSet::from_iter([author.id(zone_insight::KIND)]);
        let mut written = Feed::of(&store.reader(), kinds);
        // What there is: nothing.
        assert!(written.next().await.unwrap().is_empty());
        let global = Self { store, author, clock, insights, written, tasks };
        let key = ResourceKey::global("east");
        global.commit(global.author.create(zone::KIND, key, json!({})).unwrap()).await;
        global
    }

    async fn commit(&self, item: Item) {
        let committed = self.store.commit(vec![item]).await.unwrap();
        self.store.wait_for(committed.revision).await.unwrap();
    }

    fn tell(&self, stream: StreamId, event: Event<'_>) {
        self.insights.observe(stream, &ZoneName::new("east").unwrap(), event);
    }

    /// After how long an insight is written next, if within an hour.
    async fn write(&mut self) -> Option<Duration> {
        let start = Instant::now();
        let written = timeout(Duration::from_secs(3600), self.written.next()).await;
        written.is_ok().then(|| start.elapsed())
    }

    /// What happens is written at once.
    async fn at_once(&mut self, stream: StreamId, event: Event<'_>) {
        self.tell(stream, event);
        assert_eq!(self.write().await, Some(Duration::ZERO));
    }

    async fn open(&mut self) -> StreamId {
        let stream = StreamId::next();
        self.at_once(stream, OPENED).await;
        stream
    }

    fn is_online(&self) -> bool {
        is_online(&self.author, &self.store.reader(), "east")
    }
}

fn insights(author: &Author, store: &Local, clock: &Clock) -> Arc<Insights> {
    Arc::new(Insights::new(author.clone(), store.reader(), "g-1".into(), clock.clone()))
}

async fn keep(insights: Arc<Insights>, store: Local) {
    insights.run(store, CancellationToken::new()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_zone_is_shown_online_and_offline_at_once() {
    let mut global = Global::new().await;
    assert!(!global.is_online());
    let stream = global.open().await;
    assert!(global.is_online());
    global.at_once(stream, Event::Closed).await;
    assert!(!global.is_online());
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_that_overlaps_never_shows_the_zone_offline() {
    let mut global = Global::new().await;
    let (old, new) = (global.open().await, global.open().await);
    global.at_once(new, Event::Closed).await;
    assert!(global.is_online(), "the older stream is still there");
    let newest = global.open().await;
    global.at_once(old, Event::Closed).await;
    assert!(global.is_online());
    global.at_once(newest, Event::Closed).await;
    assert!(!global.is_online());
}

#[tokio::test(start_paused = true)]
async fn counters_are_written_together_and_nothing_while_idle() {
    let mut global = Global::new().await;
    let stream = global.open().await;
    for _ in 0..500 {
        global.tell(stream, Event::Acked { kind: "Mesh", until: None });
    }
    assert_eq!(global.write().await, Some(Duration::from_secs(2)));
    let key = ResourceKey::global("east");
    let row = global.author.get(&global.store.reader(), zone_insight::KIND, &key).unwrap();
    let insight = kinds::read::<ZoneInsight>(&row).unwrap();
    let status = insight.0.subscriptions[0].status.as_ref().unwrap();
    assert_eq!(status.total.unwrap().responses_acknowledged, 500);
    assert_eq!(global.write().await, None, "nothing happens");
}

#[tokio::test(start_paused = true)]
async fn why_a_zone_takes_nothing_is_written_at_once_and_stays_until_it_does() {
    let mut global = Global::new().await;
    let held = |global: &Global| {
        let key = ResourceKey::global("east");
        let row = global.author.get(&global.store.reader(), zone_insight::KIND, &key).unwrap();
        kinds::status::<ZoneInsight>(&row).unwrap().held
    };
    let stream = global.open().await;
    let check = |held| Event::HealthChecked { held };
    global.at_once(StreamId::next(), check(Some("another global"))).await;
    assert_eq!(held(&global).as_deref(), Some("another global"));
    global.at_once(stream, Event::Closed).await;
    global.open().await;
    assert_eq!(held(&global).as_deref(), Some("another global"), "also of a zone that comes back");
    global.at_once(StreamId::next(), check(None)).await;
    assert_eq!(held(&global), None);
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_left_open_is_closed_at_start() {
    let mut global = Global::new().await;
    global.open().await;
    // A new process knows nothing of the streams that its predecessor had.
    global.insights = insights(&global.author, &global.store, &global.clock);
    assert!(global.is_online());
    global.insights.close_all(&global.store).await.unwrap();
    assert_eq!(global.write().await, Some(Duration::ZERO));
    assert!(!global.is_online());
    global.tasks.spawn(keep(global.insights.clone(), global.store.clone()));
    global.open().await;
    assert!(global.is_online());
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_was_deleted_leaves_no_insight_behind() {
    let mut global = Global::new().await;
    let (kind, key) = (global.author.id(zone::KIND), ResourceKey::global("east"));
    let edit = Edit::Delete(key.clone());
    global.commit(Item { kind, expected: Expected::Anything, edit }).await;
    let stream = StreamId::next();
    global.tell(stream, OPENED);
    global.tell(stream, Event::Closed);
    assert_eq!(global.write().await, None);
    let reader = global.store.reader();
    assert!(global.author.get(&reader, zone::KIND, &key).is_none());
    assert!(global.author.get(&reader, zone_insight::KIND, &key).is_none());
}

/// A store in which a zone is deleted, with all that goes with it, just before each commit.
struct Deleting<'a>(&'a Global);

impl store::Backend for Deleting<'_> {
    async fn commit(&self, batch: Vec<Item>) -> Result<store::Committed, store::StoreError> {
        for kind in [zone::KIND, zone_insight::KIND] {
            let delete = self.0.author.delete(kind, ResourceKey::global("east"));
            self.0.commit(delete).await;
        }
        self.0.store.commit(batch).await
    }

    async fn wait_for(&self, revision: store::view::Revision) -> Result<(), store::StoreError> {
        self.0.store.wait_for(revision).await
    }

    fn reader(&self) -> Reader {
        self.0.store.reader()
    }

    fn epoch(&self) -> u64 {
        self.0.store.epoch()
    }
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_is_deleted_while_its_insight_is_written_leaves_none_behind() {
    let mut global = Global::new().await;
    global.tasks.abort_all();
    let (store, writer) = {
        let kinds = (*global.author.kinds).clone();
        store::open(Memory::new(2), kinds, global.clock.clone()).unwrap()
    };
    global.tasks.spawn(async { writer.run().await.unwrap() });
    global.insights = insights(&global.author, &store, &global.clock);
    global.store = store;
    let key = ResourceKey::global("east");
    global.commit(global.author.create(zone::KIND, key.clone(), json!({})).unwrap()).await;
    global.tell(StreamId::next(), OPENED);
    let stop = CancellationToken::new();
    // It writes once more when it ends.
    stop.cancel();
    global.insights.clone().run(Deleting(&global), stop).await.unwrap();
    let reader = global.store.reader();
    assert!(global.author.get(&reader, zone_insight::KIND, &key).is_none());
}
