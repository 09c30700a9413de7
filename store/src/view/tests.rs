use super::*;
use tokio_test::{assert_pending, assert_ready_eq, assert_ready_ok, task};

const A: &str = "a";
const B: &str = "b";

fn kind(index: usize) -> KindId {
    KindId::new(index).unwrap()
}

fn key(name: &str) -> ResourceKey {
    ResourceKey { mesh: None, name: name.into() }
}

fn put(name: &str, spec: &'static str) -> Edit {
    let spec = spec.as_bytes().into();
    let (labels, status, audience) = Default::default();
    Edit::Put(Arc::new(Resource::new(key(name), labels, spec, status, audience)))
}

fn two_kinds(history: usize) -> (Writer, Reader) {
    view([Loaded::default(), Loaded::default()], history)
}

/// Name, whether it was there before, and what it says now.
fn seen(changes: Changes) -> Option<Vec<(String, bool, Option<String>)>> {
    let Changes::Keys { changes, .. } = changes else { return None };
    let text = |row: Arc<Resource>| String::from_utf8(row.spec.to_vec()).unwrap();
    let seen = |c: Change| (c.key.name.to_string(), c.before.is_some(), c.now.map(text));
    Some(changes.into_iter().map(seen).collect())
}

#[test]
fn many_changes_of_a_key_are_one_with_the_first_before_and_the_last_now() {
    let (writer, reader) = two_kinds(8);
    let first = writer.apply([(kind(0), put(A, "1"))]);
    writer.apply([(kind(0), put(A, "2")), (kind(0), put(B, "1"))]);
    writer.apply([(kind(0), put(A, "3")), (kind(0), Edit::Delete(key(B)))]);
    let changes = seen(reader.changes(kind(0), first)).unwrap();
    assert_eq!(changes, [(A.into(), true, Some("3".into())), (B.into(), false, None)]);
}

#[test]
fn a_log_that_does_not_reach_back_says_so() {
    let (writer, reader) = two_kinds(2);
    let start = writer.apply([(kind(0), put(A, "0"))]);
    for spec in ["1", "2", "3"] {
        writer.apply([(kind(0), put(A, spec))]);
    }
    assert_eq!(seen(reader.changes(kind(0), start)), None);
    assert_eq!(seen(reader.changes(kind(0), Revision(start.0 + 1))).map(|c| c.len()), Some(1));
    assert_eq!(seen(reader.changes(kind(0), Revision(99))), None, "from another life");
}

#[test]
fn the_history_of_a_key_is_its_own_and_begins_where_the_log_does() {
    let (writer, reader) = two_kinds(4);
    let history = |name: &str| {
        let history = reader.history(kind(0), &key(name));
        let changes = history.changes.iter().map(|(at, before)| (at.0, before.is_some()));
        (history.known_after.0, changes.collect::<Vec<_>>(), history.now.is_some())
    };
    writer.apply([(kind(0), put(A, "1")), (kind(0), put(B, "1"))]);
    writer.apply([(kind(0), put(B, "2"))]);
    assert_eq!(history(A), (0, vec![(1, false)], true));
    assert_eq!(history(B), (0, vec![(2, true), (1, false)], true));
    writer.apply([(kind(0), Edit::Delete(key(A))), (kind(0), put(B, "3"))]);
    assert_eq!(history(A), (1, vec![(3, true)], false), "four changes are known");
    assert_eq!(history("c"), (1, vec![], false));
}

#[test]
fn a_kind_keeps_its_revision_while_others_change() {
    let (writer, reader) = two_kinds(8);
    let touched = writer.apply([(kind(0), put(A, "1"))]);
    writer.apply([(kind(1), put(A, "1"))]);
    assert_eq!(reader.rows(kind(0)).0, touched);
    assert_eq!(reader.snapshot().revision, Revision(2));
}

#[test]
fn a_watch_is_woken_for_its_kinds_only_and_once_for_many_changes() {
    let (writer, reader) = two_kinds(8);
    let mut watch = reader.watch(KindSet::default().with(kind(1)));
    let mut dirty = task::spawn(watch.dirty());
    assert_pending!(dirty.poll());
    writer.apply([(kind(0), put(A, "1"))]);
    assert!(!dirty.is_woken());
    writer.apply([(kind(1), put(A, "1"))]);
    writer.apply([(kind(1), put(B, "1"))]);
    assert!(dirty.is_woken());
    assert_ready_eq!(dirty.poll(), Ok(KindSet::default().with(kind(1))));
    drop(dirty);
    let mut idle = task::spawn(watch.dirty());
    assert_pending!(idle.poll());
    drop(writer);
    assert!(idle.is_woken());
    drop(idle);
    assert_ready_eq!(task::spawn(watch.dirty()).poll(), Err(Closed));
    let mut late = reader.watch(KindSet::default());
    assert_ready_eq!(task::spawn(late.dirty()).poll(), Err(Closed));
}

#[test]
fn a_watch_can_learn_of_another_kind() {
    let (writer, reader) = two_kinds(8);
    let mut watch = reader.watch(KindSet::default().with(kind(1)));
    watch.add(kind(0));
    watch.add(kind(0));
    let watchers = |of: usize| writer.interests.watchers(kind(of));
    assert_eq!([watchers(0), watchers(1)], [1, 1], "however often it is asked for");
    writer.apply([(kind(0), put(A, "1"))]);
    assert_ready_eq!(task::spawn(watch.dirty()).poll(), Ok(KindSet::default().with(kind(0))));
    drop(watch);
    assert_eq!([watchers(0), watchers(1)], [0, 0], "who left is not looked at any more");
}

#[test]
fn a_large_kind_is_known_further_back_and_who_is_up_to_date_has_lost_nothing() {
    let (writer, reader) = two_kinds(2);
    let names: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let since = writer.apply(names.iter().map(|name| (kind(0), put(name, "1"))));
    for name in &names[..10] {
        writer.apply([(kind(0), put(name, "2"))]);
    }
    let changed = |since| seen(reader.changes(kind(0), since)).map(|changes| changes.len());
    assert_eq!(changed(since), Some(10), "a quarter of the rows");
    assert_eq!(changed(reader.revision()), Some(0));
    writer.apply([(kind(0), put("0", "3"))]);
    assert_eq!(changed(since), None);
}

#[test]
fn a_snapshot_stays_while_the_view_moves_on() {
    let (writer, reader) = two_kinds(8);
    writer.apply([(kind(0), put(A, "1"))]);
    let snapshot = reader.snapshot();
    writer.apply([(kind(0), Edit::Delete(key(A)))]);
    assert_eq!(snapshot.rows(kind(0)).len(), 1);
    assert_eq!(reader.snapshot().rows(kind(0)).len(), 0);
}

#[test]
fn waiting_for_a_revision_ends_when_it_can_be_read() {
    let (writer, reader) = two_kinds(8);
    let mut waiting = reader.clone();
    let mut waited = task::spawn(waiting.wait_for(Revision(2)));
    writer.apply([(kind(0), put(A, "1"))]);
    assert_pending!(waited.poll());
    writer.apply([(kind(1), put(A, "1"))]);
    assert!(waited.is_woken());
    assert_ready_ok!(waited.poll());
}

#[test]
fn how_much_there_is_of_a_zone_is_known_without_counting() {
    let zone = ZoneName::new("east").unwrap();
    let row = |name: &str, spec: &'static str, owner: Option<&ZoneName>| {
        let audience = resource::Audience { owner: owner.cloned(), ..Default::default() };
        let (labels, status) = Default::default();
        Arc::new(Resource::new(key(name), labels, spec.as_bytes().into(), status, audience))
    };
    let usage = |resources, bytes| Usage { resources, bytes };
    let (writer, reader) = two_kinds(8);
    let puts = [row(A, "123", Some(&zone)), row(B, "1", None)].map(|row| (kind(0), Edit::Put(row)));
    writer.apply(puts);
    writer.apply([(kind(1), Edit::Put(row(A, "12", Some(&zone))))]);
    assert_eq!(reader.usage(&zone), usage(2, 7), "of all kinds, with their names");
    let of_kinds = |reader: &Reader| [0, 1].map(|of| reader.usage_of_kind(&zone, kind(of)));
    assert_eq!(of_kinds(&reader), [usage(1, 4), usage(1, 3)]);
    writer.apply([(kind(0), Edit::Put(row(A, "1", Some(&zone))))]);
    assert_eq!(reader.usage(&zone), usage(2, 5));
    let loaded = Loaded { rows: reader.rows(kind(0)).1, revision: Revision(3) };
    let (_, again) = view([Loaded { rows: Rows::default(), revision: Revision(1) }, loaded], 8);
    assert_eq!(again.usage(&zone), usage(1, 2), "also what was there at the start");
    assert_eq!(of_kinds(&again), [usage(0, 0), usage(1, 2)]);
    writer.apply([(kind(0), Edit::Put(row(A, "1", None)))]);
    assert_eq!(of_kinds(&reader), [usage(0, 0), usage(1, 3)]);
    writer.apply([(kind(1), Edit::Delete(key(A)))]);
    assert_eq!(of_kinds(&reader), [usage(0, 0); 2]);
    writer.apply([(kind(1), Edit::Delete(key(A)))]);
    assert_eq!(reader.usage(&zone), Usage::default());
}
