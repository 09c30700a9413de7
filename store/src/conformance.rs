//! What every backend must do. The tests of each run all of it.

use super::{Backend, Expected, Item, Journal, Kinds, LocalWriter, Outcome, open, view};
use daemon::Clock;
use resource::{
    Flow, Json, Kind, Labels, NoStatus, Peer, Resource, ResourceKey, Scope, Spec, Violations,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use view::{Edit, KindId, Revision};

/// A kind for tests of stores.
#[derive(Debug, Serialize, Deserialize)]
struct Sample {
    value: String,
}

impl Spec for Sample {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "Sample";
    const PLURAL: &'static str = "samples";
    const SHORT: &'static str = "s";
    const SCOPE: Scope = Scope::Global;
    const FLOW: Flow = Flow::GlobalToZones;

    fn validate(&self, violations: &mut Violations) {
        if self.value.is_empty() {
            violations.add("spec.value", "must not be empty");
        }
    }
}

/// The id of [`kinds`]'s kind.
pub const SAMPLES: KindId = KindId::FIRST;

/// The kinds of a store under test.
#[must_use]
pub fn kinds() -> Kinds {
    Kinds { list: [Kind::of::<Sample>()].into(), peer: Peer::Zone }
}

/// The key of the sample `name`.
#[must_use]
pub fn key(name: &str) -> ResourceKey {
    ResourceKey::global(name)
}

fn resource(name: &str, value: &str) -> Arc<Resource> {
    let spec = format!(r#"{{"value":"{value}"}}"#);
    let labels = Labels::from_iter([("team", r#"the "A" team"#)]);
    let kind = Kind::of::<Sample>();
    let status = bytes::Bytes::new();
    Arc::new(kind.resource(key(name), labels, spec.into(), status, Peer::Zone).expect("a sample"))
}

/// Puts the sample `name`.
#[must_use]
pub fn put(name: &str, value: &str) -> Item {
    let edit = Edit::Put(resource(name, value));
    Item { kind: SAMPLES, expected: Expected::Anything, edit }
}

/// Deletes the sample `name`.
#[must_use]
pub fn delete(name: &str) -> Item {
    Item { kind: SAMPLES, expected: Expected::Anything, edit: Edit::Delete(key(name)) }
}

fn expecting(expected: Expected, item: Item) -> Item {
    Item { expected, ..item }
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

/// Everything.
pub async fn check(journal: impl Journal) {
    let (store, writer) = open(journal, kinds(), Clock::system()).unwrap();
    while_running(writer, async {
        a_batch_is_one_revision(&store).await;
        a_conflict_holds_back_no_other(&store).await;
        what_changes_nothing_is_not_announced(&store).await;
        of_two_creations_one_wins(&store).await;
        an_item_sees_those_before_it(&store).await;
    })
    .await;
}

async fn a_batch_is_one_revision(store: &impl Backend) {
    let before = store.reader().revision();
    let committed = store.commit(vec![put("a", "1s"), put("b", "1s")]).await.unwrap();
    assert_eq!(committed.outcomes, [Outcome::Done, Outcome::Done]);
    assert_eq!(committed.revision, Revision(before.0 + 1));
    store.wait_for(committed.revision).await.unwrap();
    assert_eq!(store.reader().snapshot().rows(SAMPLES).len(), 2);
}

async fn a_conflict_holds_back_no_other(store: &impl Backend) {
    let there = resource("a", "1s").head.version;
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
        [conflict(Some(there)), conflict(Some(there)), conflict(None), Outcome::Done]
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
    let found = Some(resource("c", "1s").head.version);
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
    let found = Some(resource("c", "4s").head.version);
    assert_eq!(committed.outcomes, [Outcome::Done, Outcome::Done, Outcome::Conflict { found }]);
    let row = store.reader().get(SAMPLES, &key("c")).unwrap();
    assert_eq!(Some(row.head.version), found);
}
