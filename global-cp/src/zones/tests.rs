use super::*;
use daemon::Clock;
use jiff::Timestamp;
use kds::observe::{Call, Event, Observer as _, StreamId};
use kinds::zone;
use resource::{Peer, ZoneName};
use serde_json::json;
use std::time::Duration;
use store::{Backend as _, Expected, Item, Local, Memory, view::Edit};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

/// A store of global, and the task that keeps the insights.
struct Global {
    store: Local,
    author: Author,
    clock: Clock,
    insights: Arc<Insights>,
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
        let global = Self { store, author, clock, insights, tasks };
        let key = ResourceKey::global("east");
        global.commit(global.author.create(zone::KIND, key, json!({})).unwrap()).await;
        global
    }

    async fn commit(&self, item: Item) {
        let committed = self.store.commit(vec![item]).await.unwrap();
        self.store.wait_for(committed.revision).await.unwrap();
    }

    async fn tell(&self, stream: StreamId, event: Event<'_>) {
        self.insights.observe(stream, &ZoneName::new("east").unwrap(), event);
        // In paused time this lets everybody finish, and moves the clock by no more.
        sleep(Duration::from_millis(1)).await;
    }

    async fn open(&self) -> StreamId {
        let stream = StreamId::next();
        self.tell(stream, Event::Opened { call: Call::GlobalToZone, token: true }).await;
        stream
    }

    fn is_online(&self) -> bool {
        is_online(&self.author, &self.store.reader(), "east")
    }

    fn commits(&self) -> u64 {
        self.store.reader().revision().0
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
    let global = Global::new().await;
    assert!(!global.is_online());
    let stream = global.open().await;
    assert!(global.is_online());
    global.tell(stream, Event::Closed).await;
    assert!(!global.is_online());
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_that_overlaps_never_shows_the_zone_offline() {
    let global = Global::new().await;
    let (old, new) = (global.open().await, global.open().await);
    global.tell(new, Event::Closed).await;
    assert!(global.is_online(), "the older stream is still there");
    let newest = global.open().await;
    global.tell(old, Event::Closed).await;
    assert!(global.is_online());
    global.tell(newest, Event::Closed).await;
    assert!(!global.is_online());
}

#[tokio::test(start_paused = true)]
async fn counters_are_written_together_and_nothing_while_idle() {
    let global = Global::new().await;
    let stream = global.open().await;
    let before = global.commits();
    for _ in 0..500 {
        global.tell(stream, Event::Acked { kind: "Mesh" }).await;
    }
    assert_eq!(global.commits(), before);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(global.commits(), before + 1);
    let key = ResourceKey::global("east");
    let row = global.author.get(&global.store.reader(), zone_insight::KIND, &key).unwrap();
    let insight = kinds::read::<ZoneInsight>(&row).unwrap();
    let status = insight.0.subscriptions[0].status.as_ref().unwrap();
    assert_eq!(status.total.unwrap().responses_acknowledged, 500);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(global.commits(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_left_open_is_closed_at_start() {
    let mut global = Global::new().await;
    global.open().await;
    // The writer goes on; the task and what it knew are gone.
    global.insights = insights(&global.author, &global.store, &global.clock);
    assert!(global.is_online());
    global.insights.close_all(&global.store).await.unwrap();
    assert!(!global.is_online());
    global.tasks.spawn(keep(global.insights.clone(), global.store.clone()));
    global.open().await;
    assert!(global.is_online());
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_was_deleted_leaves_no_insight_behind() {
    let global = Global::new().await;
    let (kind, key) = (global.author.id(zone::KIND), ResourceKey::global("east"));
    let edit = Edit::Delete(key.clone());
    global.commit(Item { kind, expected: Expected::Anything, edit }).await;
    let stream = global.open().await;
    global.tell(stream, Event::Closed).await;
    let reader = global.store.reader();
    assert!(global.author.get(&reader, zone::KIND, &key).is_none());
    assert!(global.author.get(&reader, zone_insight::KIND, &key).is_none());
}
