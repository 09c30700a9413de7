//! What every backend must do. The tests of each run all of it.

use super::{Backend, Expected, Item, Journal, Kinds, LocalWriter, Outcome, open, view};
use daemon::Clock;
use jiff::Timestamp;
use resource::{
    Audience, Flow, Json, Kind, Labels, Peer, Resource, ResourceKey, Scope, Spec, Status, Times,
    Violations, ZoneName,
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};
use view::{Edit, KindId, Revision};

/// A kind for tests of stores.
#[derive(Debug, Serialize, Deserialize)]
struct Sample {
    value: String,
}

/// Another one, which not every program knows.
#[derive(Debug, Serialize, Deserialize)]
struct Extra {
    value: String,
}

#[derive(Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
struct Seen {
    seen: bool,
}

impl Status for Seen {}

macro_rules! kind {
    ($spec:ident, $plural:literal, $short:literal) => {
        impl Spec for $spec {
            type Encoding = Json;
            type Status = Seen;

            const KIND: &'static str = stringify!($spec);
            const PLURAL: &'static str = $plural;
            const SHORT: &'static str = $short;
            const SCOPE: Scope = Scope::Global;
            const FLOW: Flow = Flow::GlobalToZones;

            fn validate(&self, violations: &mut Violations) {
                if self.value.is_empty() {
                    violations.add("spec.value", "must not be empty");
                }
            }
        }
    };
}

kind!(Sample, "samples", "s");
kind!(Extra, "extras", "e");

/// The id of the first kind of [`kinds`].
pub const SAMPLES: KindId = KindId::FIRST;

/// The kinds of a store under test.
#[must_use]
pub fn kinds() -> Kinds {
    Kinds { list: [Kind::of::<Sample>()].into(), peer: Peer::Zone }
}

/// The same and one more, `Extra`, as a newer program might have.
#[must_use]
pub fn more_kinds() -> Kinds {
    Kinds { list: [Kind::of::<Extra>(), Kind::of::<Sample>()].into(), peer: Peer::Zone }
}

/// A clock that moves on by a second whenever somebody looks.
#[must_use]
pub fn clock() -> Clock {
    let seconds = AtomicI64::new(1_000_000);
    Clock::of(move || {
        Timestamp::from_second(seconds.fetch_add(1, Ordering::Relaxed)).unwrap_or_default()
    })
}

/// The key of the sample `name`.
#[must_use]
pub fn key(name: &str) -> ResourceKey {
    ResourceKey::global(name)
}

/// The sample `name` as it is written.
#[must_use]
pub fn resource(name: &str, value: &str) -> Arc<Resource> {
    with_status(name, value, "")
}

fn with_status(name: &str, value: &str, status: &'static str) -> Arc<Resource> {
    let spec = format!(r#"{{"value":"{value}"}}"#);
    let labels = Labels::from_iter([("team", r#"the "A" team"#)]);
    let (kind, status) = (Kind::of::<Sample>(), status.into());
    Arc::new(kind.resource(key(name), labels, spec.into(), status, Peer::Zone).expect("a sample"))
}

fn item(row: Arc<Resource>) -> Item {
    Item { kind: SAMPLES, expected: Expected::Anything, edit: Edit::Put(row) }
}

/// Puts the sample `name`.
#[must_use]
pub fn put(name: &str, value: &str) -> Item {
    item(resource(name, value))
}

/// Deletes the sample `name`.
#[must_use]
pub fn delete(name: &str) -> Item {
    Item { kind: SAMPLES, expected: Expected::Anything, edit: Edit::Delete(key(name)) }
}

fn expecting(expected: Expected, item: Item) -> Item {
    Item { expected, ..item }
}

/// Everything about a resource that a store keeps.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    key: ResourceKey,
    labels: Labels,
    spec: String,
    status: String,
    audience: Audience,
    times: Times,
    version: resource::Version,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (audience, times) = (&self.audience, &self.times);
        write!(f, "{} {}{} {audience:?} {times:?}", self.key, self.spec, self.status)
    }
}

/// What `store` holds of the kind `kind`, and the last revision that touched it.
pub fn kept(store: &impl Backend, kind: KindId) -> (Revision, Vec<Kept>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kept = |row: &Arc<Resource>| Kept {
        key: row.head.key.clone(),
        labels: row.head.labels.clone(),
        spec: text(&row.spec),
        status: text(&row.status),
        audience: row.head.audience.clone(),
        times: row.head.times,
        version: row.head.version,
    };
    let (revision, rows) = store.reader().rows(kind);
    (revision, rows.iter().map(kept).collect())
}

/// Polls the writer in place, so that a test needs no threads.
pub async fn while_running<T>(
    writer: LocalWriter<impl Journal>,
    test: impl Future<Output = T>,
) -> T {
    // Dropping the writer between two polls loses nothing: it holds no request then.
    tokio::select! {
        biased;
        result = test => result,
        ended = writer.run() => panic!("the writer ended: {ended:?}"),
    }
}

/// What every journal must do.
pub async fn check(journal: impl Journal) {
    let (store, writer) = open(journal, kinds(), clock()).unwrap();
    while_running(writer, async {
        a_batch_is_one_revision(&store).await;
        check_store(&store).await;
        times_are_those_of_our_clock(&store).await;
    })
    .await;
}

/// What every store must do, also one whose rows live elsewhere: there a batch may be seen in
/// parts, and resources may get labels that say where they are. It must be empty.
pub async fn check_store(store: &impl Backend) {
    what_was_committed_is_seen(store).await;
    a_conflict_holds_back_no_other(store).await;
    what_changes_nothing_is_not_announced(store).await;
    of_two_creations_one_wins(store).await;
    an_item_sees_those_before_it(store).await;
    a_status_is_kept_and_is_a_change(store).await;
    a_change_of_the_audience_alone_is_a_change(store).await;
    a_creation_time_stays_until_the_resource_goes(store).await;
}

fn version(store: &impl Backend, name: &str) -> Option<resource::Version> {
    store.reader().get(SAMPLES, &key(name)).map(|row| row.head.version)
}

/// What every journal that keeps things must do. `journal` opens one that is new at first, and the
/// same again.
pub async fn check_restarts<J: Journal>(mut journal: impl FnMut() -> J) {
    let (store, writer) = open(journal(), more_kinds(), clock()).unwrap();
    let (extras, samples) = (KindId::FIRST, KindId::new(1).unwrap());
    let moved = |item: Item, kind| Item { kind, ..item };
    while_running(writer, async {
        let hidden = Audience { hidden: true, ..Audience::default() };
        let owned = Audience { owner: ZoneName::new("east").ok(), ..Audience::default() };
        let zones = ["east", "west"].map(|name| ZoneName::new(name).ok());
        let only = |zones: &[Option<ZoneName>]| Some(zones.iter().flatten().cloned().collect());
        let limited = Audience { only: only(&zones), ..Audience::default() };
        let for_nobody = Audience { only: only(&[]), ..owned.clone() };
        let batch = [
            put("a", "1s"),
            item(with_status("b", "2s", r#"{"seen":true}"#)),
            item(resource("c", "3s").shown_to(hidden).into()),
            item(resource("d", "4s").shown_to(owned).into()),
            item(resource("e", "4s").shown_to(limited).into()),
            item(resource("f", "4s").shown_to(for_nobody).into()),
            put("gone", "5s"),
        ];
        store.commit(batch.map(|item| moved(item, samples)).into()).await.unwrap();
        store.commit(vec![moved(delete("gone"), samples)]).await.unwrap();
        store.commit(vec![moved(put("a", "6s"), samples)]).await.unwrap();
        store.commit(vec![moved(put("x", "7s"), extras)]).await.unwrap();
    })
    .await;
    let (before, beyond) = (kept(&store, samples), kept(&store, extras));
    let (epoch, revision) = (store.epoch(), store.reader().revision());
    assert_eq!((before.0, beyond.0, revision), (Revision(3), Revision(4), Revision(4)));
    assert_ne!(epoch, 0);
    drop(store);

    // A program that does not know one of the kinds.
    let (store, writer) = open(journal(), kinds(), clock()).unwrap();
    assert_eq!((kept(&store, SAMPLES), store.epoch()), (before.clone(), epoch));
    assert_eq!(store.reader().revision(), revision, "revisions never go back");
    let committed = while_running(writer, store.commit(vec![delete("b")])).await.unwrap();
    assert_eq!(committed.revision, Revision(5));
    drop(store);

    let (store, _writer) = open(journal(), more_kinds(), clock()).unwrap();
    assert_eq!(kept(&store, extras), beyond, "kinds that were not known stay");
    let mut after = before.1;
    after.remove(1);
    assert_eq!(kept(&store, samples), (Revision(5), after));
    assert_eq!(store.epoch(), epoch);
}

async fn a_batch_is_one_revision(store: &impl Backend) {
    let before = store.reader().revision();
    let committed = store.commit(vec![put("a", "1s"), put("b", "1s")]).await.unwrap();
    assert_eq!(committed.revision, Revision(before.0 + 1));
    let committed = store.commit(vec![delete("a"), delete("b")]).await.unwrap();
    assert_eq!(committed.revision, Revision(before.0 + 2));
}

async fn what_was_committed_is_seen(store: &impl Backend) {
    let before = store.reader().revision();
    let committed = store.commit(vec![put("a", "1s"), put("b", "1s")]).await.unwrap();
    assert_eq!(committed.outcomes, [Outcome::Done, Outcome::Done]);
    assert!(committed.revision > before);
    store.wait_for(committed.revision).await.unwrap();
    let reader = store.reader();
    assert_eq!(reader.snapshot().rows(SAMPLES).len(), 2);
    assert_eq!(&*reader.get(SAMPLES, &key("a")).unwrap().spec, br#"{"value":"1s"}"#);
    let team = reader.get(SAMPLES, &key("a")).unwrap();
    assert_eq!(team.head.labels.get("team"), Some(r#"the "A" team"#));
}

async fn a_conflict_holds_back_no_other(store: &impl Backend) {
    let there = version(store, "a").unwrap();
    let other = resource("a", "9s").head.version;
    let committed = store
        .commit(vec![
            expecting(Expected::Version(other), put("a", "2s")),
            expecting(Expected::Nothing, put("b", "2s")),
            expecting(Expected::Version(other), delete("absent")),
            expecting(Expected::Version(there), put("a", "3s")),
        ])
        .await
        .unwrap();
    let conflict = |found| Outcome::Conflict { found };
    assert_eq!(
        committed.outcomes,
        [conflict(Some(there)), conflict(version(store, "b")), conflict(None), Outcome::Done]
    );
}

async fn what_changes_nothing_is_not_announced(store: &impl Backend) {
    let before = store.reader().revision();
    let committed = store.commit(vec![put("a", "3s"), delete("absent")]).await.unwrap();
    assert_eq!(committed.outcomes, [Outcome::Unchanged, Outcome::Unchanged]);
    assert_eq!(committed.revision, before);
}

async fn of_two_creations_one_wins(store: &impl Backend) {
    let create = |value| store.commit(vec![expecting(Expected::Nothing, put("c", value))]);
    let (one, two) = tokio::join!(create("1s"), create("2s"));
    let outcomes = [one.unwrap().outcomes, two.unwrap().outcomes].concat();
    let found = version(store, "c");
    assert!(found.is_some());
    assert_eq!(outcomes, [Outcome::Done, Outcome::Conflict { found }]);
}

async fn an_item_sees_those_before_it(store: &impl Backend) {
    let committed = store
        .commit(vec![
            delete("c"),
            expecting(Expected::Nothing, put("c", "4s")),
            expecting(Expected::Nothing, put("c", "5s")),
        ])
        .await
        .unwrap();
    let found = version(store, "c");
    assert_eq!(committed.outcomes, [Outcome::Done, Outcome::Done, Outcome::Conflict { found }]);
    let row = store.reader().get(SAMPLES, &key("c")).unwrap();
    assert_eq!(&*row.spec, br#"{"value":"4s"}"#);
}

async fn a_status_is_kept_and_is_a_change(store: &impl Backend) {
    let reported = with_status("d", "1s", r#"{"seen":true}"#);
    assert_eq!(store.commit(vec![put("d", "1s")]).await.unwrap().outcomes, [Outcome::Done]);
    let plain = version(store, "d").unwrap();
    let batch = vec![item(reported.clone()), item(reported.clone())];
    let committed = store.commit(batch).await.unwrap();
    assert_eq!(committed.outcomes, [Outcome::Done, Outcome::Unchanged]);
    let row = store.reader().get(SAMPLES, &key("d")).unwrap();
    assert_eq!(&*row.status, br#"{"seen":true}"#);
    assert_eq!(row.head.offered, plain);
    assert_ne!(row.head.version, row.head.offered);
}

async fn a_change_of_the_audience_alone_is_a_change(store: &impl Backend) {
    let before = store.reader().get(SAMPLES, &key("d")).unwrap();
    let hidden = Audience { hidden: true, ..Audience::default() };
    let batch = vec![expecting(
        Expected::Version(before.head.version),
        item(before.shown_to(hidden.clone()).into()),
    )];
    let committed = store.commit(batch.clone()).await.unwrap();
    assert_eq!(committed.outcomes, [Outcome::Done]);
    let row = store.reader().get(SAMPLES, &key("d")).unwrap();
    assert_eq!((row.head.version, &row.head.audience), (before.head.version, &hidden));
    assert_eq!(store.commit(batch).await.unwrap().outcomes, [Outcome::Unchanged]);
}

async fn a_creation_time_stays_until_the_resource_goes(store: &impl Backend) {
    let [first, second, third] = times(store).await;
    assert!(first.created <= first.modified);
    assert_eq!(second.created, first.created);
    assert!(second.modified >= first.modified, "{second:?} after {first:?}");
    assert!(third.created >= second.modified, "{third:?} after {second:?}");
}

async fn times_are_those_of_our_clock(store: &impl Backend) {
    store.commit(vec![delete("e")]).await.unwrap();
    let [first, second, third] = times(store).await;
    assert_eq!(first.created, first.modified);
    assert!(second.modified > first.modified, "{second:?} after {first:?}");
    assert!(third.created > second.modified, "{third:?} after {second:?}");
}

/// The times of a resource that is new, that was changed, and that was deleted and made again.
async fn times(store: &impl Backend) -> [Times; 3] {
    let times = || store.reader().get(SAMPLES, &key("e")).unwrap().head.times;
    store.commit(vec![put("e", "1s")]).await.unwrap();
    let first = times();
    // What comes from elsewhere brings the times of that place.
    let elsewhere = resource("e", "2s");
    let elsewhere = Arc::unwrap_or_clone(elsewhere).written(Times::default());
    store.commit(vec![item(elsewhere.into())]).await.unwrap();
    let second = times();
    store.commit(vec![put("e", "2s")]).await.unwrap();
    assert_eq!(times(), second, "nothing changed");
    store.commit(vec![delete("e")]).await.unwrap();
    store.commit(vec![put("e", "2s")]).await.unwrap();
    [first, second, times()]
}
