use super::*;
use crate::{
    metadata::own_features,
    received::Unreadable,
    testkinds::{MESH, SERVICE, TIMEOUT, TRUST, zone},
};
use bytes::Bytes;
use resource::{MeshName, Scope};
use store::table::Table;

const GOOD: &str = r#"{"seconds":1}"#;
const NEW: &str = r#"{"seconds":2}"#;
const BAD: &str = "{";

fn key(kind: Kind, name: &str) -> ResourceKey {
    let mesh = (kind.scope == Scope::Mesh).then(|| MeshName::new("default").unwrap());
    ResourceKey { mesh, name: name.into() }
}

fn labels(labels: &[(&str, &str)]) -> Labels {
    labels.iter().copied().collect()
}

fn of_zone(zone: &str) -> Labels {
    labels(&[(label::ORIGIN, "zone"), (label::ZONE, zone)])
}

fn of_global() -> Labels {
    labels(&[(label::ORIGIN, "global")])
}

fn received(kind: Kind, name: &str, labels: Labels, spec: &'static str) -> Received {
    let key = key(kind, name);
    let (name, status) = (transit_name(&key).into(), Bytes::new());
    Received { name, key, labels, spec: spec.into(), status }
}

fn rows(kind: Kind, all: impl IntoIterator<Item = (&'static str, Labels)>, peer: Peer) -> Rows {
    let mut rows = Table::default();
    for (name, labels) in all {
        let spec = if kind.name == MESH.name { "{}" } else { GOOD };
        let row = kind.resource(key(kind, name), labels, spec.into(), Bytes::new(), peer);
        rows.insert(Arc::new(row.unwrap()));
    }
    rows
}

fn east(dialect: Dialect) -> Sender {
    let who = Who::Zone { name: zone("east"), visibility: Visibility::Shown, names: Names::Hashed };
    Sender { who, dialect }
}

fn global(dialect: Dialect) -> Sender {
    Sender { who: Who::Global, dialect }
}

fn ours() -> Dialect {
    Dialect::Ours(own_features())
}

/// `a`, `b` and `c` of east, `w` of west, `g` of global: as global has them.
fn at_global() -> Rows {
    let of_east = ["a", "b", "c"].map(|name| (name, of_zone("east")));
    let others = [("w", of_zone("west")), ("g", Labels::default())];
    rows(TIMEOUT, of_east.into_iter().chain(others), Peer::Zone)
}

/// What is done, and what is refused and why.
fn steps(
    kind: Kind,
    sender: &Sender,
    rows: &Rows,
    response: Batch<'_>,
) -> (Vec<String>, Vec<String>) {
    let applied = apply((KindId::FIRST, &kind), sender, rows, response);
    let step = |item: Item| match item.edit {
        Edit::Put(row) => format!("put {}", row.head.key.name),
        Edit::Delete(key) => format!("delete {}", key.name),
    };
    let refused = applied.refused.iter().map(ToString::to_string).collect();
    (applied.batch.into_iter().map(step).collect(), refused)
}

fn delta(upserts: &[Result<Received, Unreadable>]) -> Batch<'_> {
    Batch { upserts, ..Batch::default() }
}

fn timeout(name: &str, spec: &'static str) -> Result<Received, Unreadable> {
    Ok(received(TIMEOUT, name, of_zone("east"), spec))
}

const MALFORMED: &str = "malformed MeshTimeout: EOF while parsing an object at line 1 column 1";

#[test]
fn one_bad_resource_does_not_hold_back_the_others() {
    let upserts = [timeout("new", GOOD), timeout("a", BAD)];
    let (batch, refused) = steps(TIMEOUT, &east(Dialect::Plain), &at_global(), delta(&upserts));
    assert_eq!(batch, ["put new"]);
    assert_eq!(refused, [format!("a.default: {MALFORMED}")]);
}

#[test]
fn a_complete_state_drops_the_rest_but_not_what_it_failed_to_read() {
    let upserts = [timeout("a", NEW), timeout("b", BAD)];
    let before = Named::default();
    let response = Batch { complete: Some(&before), ..delta(&upserts) };
    let (batch, _) = steps(TIMEOUT, &east(Dialect::Plain), &at_global(), response);
    assert_eq!(batch, ["put a", "delete c"]);

    // Something was sent of which nobody knows what it is: it may be `c`.
    let refusal = Refusal { name: "?".into(), reason: "unreadable".into() };
    let upserts = [Err(Unreadable { key: None, refusal: refusal.clone() })];
    let response = Batch { complete: Some(&before), ..delta(&upserts) };
    let steps_of = |response| steps(TIMEOUT, &east(Dialect::Plain), &at_global(), response);
    assert_eq!(steps_of(response), (vec![], vec!["?: unreadable".to_owned()]));
    // So it is if that was in a part before.
    let before = Named { unknown: true, ..Named::default() };
    let response = Batch { complete: Some(&before), ..Batch::default() };
    assert_eq!(steps_of(response).0, [""; 0]);
    // And what a part before contained is not absent either.
    let keys = ["a", "c"].map(|name| key(TIMEOUT, name)).into();
    let before = Named { keys, unknown: false };
    let response = Batch { complete: Some(&before), ..Batch::default() };
    assert_eq!(steps_of(response).0, ["delete b"]);
    let unreadable = [Err(Unreadable { key: Some(key(TIMEOUT, "b")), refusal })];
    let response = Batch { complete: Some(&before), ..delta(&unreadable) };
    assert_eq!(steps_of(response).0, [""; 0]);
}

#[test]
fn a_delta_drops_only_what_it_names_and_does_not_bring_back() {
    let removals = ["b", "absent", "a"].map(|name| key(TIMEOUT, name));
    let upserts = [timeout("a", NEW)];
    let response = Batch { removals: &removals, ..delta(&upserts) };
    let (batch, refused) = steps(TIMEOUT, &east(Dialect::Plain), &at_global(), response);
    assert_eq!((batch, refused), (vec!["put a".into(), "delete b".into()], vec![]));
}

#[test]
fn a_zone_changes_nothing_of_others() {
    let upserts = [timeout("w", NEW), timeout("g", NEW)];
    let removals = ["w", "g"].map(|name| key(TIMEOUT, name));
    let before = Named::default();
    let response = Batch { removals: &removals, complete: Some(&before), ..delta(&upserts) };
    let (batch, refused) = steps(TIMEOUT, &east(Dialect::Plain), &at_global(), response);
    assert_eq!(batch, ["delete a", "delete b", "delete c"]);
    let owners = [r#"zone "west""#, "this control plane"];
    let why = |(name, owner)| format!("{name}.default: meta.name: belongs to {owner}");
    let names = ["w", "g"].into_iter();
    assert_eq!(refused, names.zip(owners).map(why).collect::<Vec<_>>());
    let removed = Batch { removals: &removals, ..Batch::default() };
    assert_eq!(steps(TIMEOUT, &east(ours()), &at_global(), removed), (vec![], vec![]));
}

#[test]
fn one_name_twice_is_refused_once() {
    let upserts = [timeout("new", GOOD), timeout("new", NEW)];
    let (batch, refused) = steps(TIMEOUT, &east(Dialect::Plain), &at_global(), delta(&upserts));
    assert_eq!(batch, ["put new"]);
    assert_eq!(refused, ["new.default: meta.name: occurs twice in the response"]);
}

fn stored(kind: Kind, sender: &Sender, rows: &Rows, received: Received) -> Resource {
    let upserts = [Ok(received)];
    let applied = apply((KindId::FIRST, &kind), sender, rows, delta(&upserts));
    assert_eq!(applied.refused, []);
    let [item] = <[_; 1]>::try_from(applied.batch).unwrap();
    match item.edit {
        Edit::Put(row) => Arc::unwrap_or_clone(row),
        Edit::Delete(key) => panic!("{key} was deleted"),
    }
}

#[test]
fn what_is_known_is_not_written_so_that_its_audience_stays() {
    let known = timeout("a", GOOD);
    let rows = at_global();
    assert_eq!(steps(TIMEOUT, &east(Dialect::Plain), &rows, delta(&[known])), (vec![], vec![]));
    let labelled = of_zone("east").with("a", "b");
    let changed = received(TIMEOUT, "a", labelled.clone(), GOOD);
    let row = stored(TIMEOUT, &east(Dialect::Plain), &rows, changed);
    assert_eq!(row.head.labels, labelled, "labels are replaced, and count");
}

#[test]
fn what_others_decided_about_an_audience_holds_while_nothing_changes_that_decides() {
    const OLD: &str = r#"{"domain":"east","bundle":1}"#;
    let (key, none) = (key(TRUST, "a"), Bytes::new());
    let row = TRUST.resource(key, of_zone("east"), OLD.into(), none, Peer::Zone).unwrap();
    let shown = Audience { hidden: false, ..row.head.audience.clone() };
    let mut rows = Table::default();
    rows.insert(Arc::new(row.shown_to(shown)));
    let hidden = |labels: Labels, spec| {
        let changed = received(TRUST, "a", labels, spec);
        stored(TRUST, &east(Dialect::Plain), &rows, changed).head.audience.hidden
    };
    let renewed = r#"{"domain":"east","bundle":2}"#;
    assert!(!hidden(of_zone("east"), renewed), "it would be taken from others and given back");
    assert!(hidden(of_zone("east"), r#"{"domain":"west","bundle":1}"#), "nobody judged that");
    assert!(hidden(of_zone("east").with("a", "b"), renewed), "labels count too");
}

#[test]
fn what_a_disabled_zone_sends_is_for_nobody() {
    let hidden = |visibility| {
        let Sender { who, dialect } = east(Dialect::Plain);
        let Who::Zone { name, names, .. } = who else { panic!("{who:?}") };
        let sender = Sender { who: Who::Zone { name, names, visibility }, dialect };
        let service = received(SERVICE, "new", of_zone("east"), r#"{"port":1}"#);
        stored(SERVICE, &sender, &Table::default(), service).head.audience.hidden
    };
    assert_eq!([Visibility::Shown, Visibility::Hidden].map(hidden), [false, true]);
}

#[test]
fn names_of_very_old_zones_get_the_zone_as_prefix() {
    let who = Who::Zone { name: zone("east"), visibility: Visibility::Shown, names: Names::Bare };
    let sender = Sender { who, dialect: Dialect::Plain };
    let rows = rows(TIMEOUT, [("east.old", of_zone("east"))], Peer::Zone);
    let upserts = [timeout("new", GOOD)];
    let removals = [key(TIMEOUT, "old")];
    let response = Batch { removals: &removals, ..delta(&upserts) };
    assert_eq!(steps(TIMEOUT, &sender, &rows, response).0, ["put east.new", "delete east.old"]);
}

#[test]
fn a_zone_of_ours_is_held_to_its_labels_and_names() {
    let mesh = MeshName::new("default").ok();
    let right = hashed_name(mesh.as_ref(), "web", [Some("east"), None]);
    let named = of_zone("east").with(label::DISPLAY_NAME, "web");
    let sender = east(ours());
    let refused = |name: &str, labels: Labels| {
        let upserts = [Ok(received(TIMEOUT, name, labels, GOOD))];
        steps(TIMEOUT, &sender, &Table::default(), delta(&upserts))
    };
    assert_eq!(refused(&right, named.clone()), (vec![format!("put {right}")], vec![]));
    let zone = r#"meta.labels["kuma.io/zone"]: is "west", must be "east""#;
    let none = r#"meta.labels["kuma.io/zone"]: is missing, must be "east""#;
    let origin = r#"meta.labels["kuma.io/origin"]: is "global", must be "zone""#;
    let cases = [
        (&*right, named.with(label::ZONE, "west"), zone.to_owned()),
        (&right, named.without(label::ZONE), none.to_owned()),
        (&right, named.with(label::ORIGIN, "global"), origin.to_owned()),
        ("web", named.clone(), format!("meta.name: must be {:?}", format!("{right}.default"))),
    ];
    for (name, labels, why) in cases {
        assert_eq!(refused(name, labels), (vec![], vec![format!("{name}.default: {why}")]));
    }
    // From a plain one it is set right.
    let plain = received(TIMEOUT, "web", named.with(label::ZONE, "west"), GOOD);
    let row = stored(TIMEOUT, &east(Dialect::Plain), &Table::default(), plain);
    assert_eq!((&row.head.labels, &*row.head.key.name), (&named, "web"));
}

#[test]
fn a_zone_takes_only_what_is_of_global() {
    // `own` was written here, `synced` came from global.
    let rows_of =
        |kind| rows(kind, [("own", of_zone("east")), ("synced", of_global())], Peer::Global);
    let send = |kind, name, labels| {
        let upserts =
            [Ok(received(kind, name, labels, if kind.name == "Mesh" { "{}" } else { NEW }))];
        let before = Named::default();
        let response = Batch { complete: Some(&before), ..delta(&upserts) };
        [Dialect::Plain, ours()]
            .map(|dialect| steps(kind, &global(dialect), &rows_of(kind), response))
    };
    let belongs = r#"own.default: meta.name: belongs to zone "east""#.to_owned();
    let refused = (vec!["delete synced".to_owned()], vec![belongs]);
    assert_eq!(send(TIMEOUT, "own", of_global()), [refused.clone(), refused]);

    let why = r#"new.default: meta.labels["kuma.io/origin"]: is missing, must be "global""#;
    let refused = (vec!["delete synced".to_owned()], vec![why.to_owned()]);
    assert_eq!(send(TIMEOUT, "new", Labels::default()), [refused.clone(), refused]);

    // What only global writes is global's, also where it was there before.
    let taken = (vec!["put own".to_owned(), "delete synced".to_owned()], vec![]);
    assert_eq!(send(MESH, "own", of_global()), [taken.clone(), taken.clone()]);
    let why = r#"own.: meta.labels["kuma.io/origin"]: is missing, must be "global""#;
    let refused = (vec!["delete synced".to_owned()], vec![why.to_owned()]);
    assert_eq!(send(MESH, "own", Labels::default()), [taken, refused]);
}

#[test]
fn a_zone_keeps_the_status_that_it_reports() {
    let row = |spec: &'static str, status: &'static str| {
        SERVICE.resource(key(SERVICE, "web"), of_global(), spec.into(), status.into(), Peer::Global)
    };
    let mut rows = Rows::default();
    let status = r#"{"proxies":3}"#;
    rows.insert(Arc::new(row(r#"{"port":1}"#, status).unwrap()));
    let sent = Received {
        status: r#"{"proxies":0}"#.into(),
        ..received(SERVICE, "web", of_global(), r#"{"port":2}"#)
    };
    let changed = stored(SERVICE, &global(ours()), &rows, sent.clone());
    assert_eq!((&*changed.spec, &*changed.status), (&br#"{"port":2}"#[..], status.as_bytes()));
    let created = stored(SERVICE, &global(ours()), &Table::default(), sent);
    assert_eq!(created.status, "", "global knows nothing of it");
}

#[test]
fn a_state_removes_all_if_it_leaves_nothing_of_what_is_there() {
    let rows_of = |names: &[&'static str]| {
        rows(MESH, names.iter().map(|name| (*name, Labels::default())), Peer::Global)
    };
    let removes = |held: &[&'static str], named: &[&str], unknown| {
        let keys = named.iter().map(|name| key(MESH, name)).collect();
        removes_all(&MESH, &global(ours()), &rows_of(held), &Named { keys, unknown })
    };
    assert!(removes(&["a", "b"], &[], false));
    assert!(removes(&["a", "b"], &["c"], false));
    assert!(!removes(&["a", "b"], &["b", "c"], false));
    assert!(!removes(&["a"], &[], true), "it may be there");
    assert!(!removes(&[], &[], false), "there is nothing to remove");
}

#[test]
fn what_could_not_be_read_is_read_again_when_it_comes_again() {
    let mut rows = at_global();
    let good = rows.get(&key(TIMEOUT, "a")).unwrap().clone();
    rows.insert(Arc::new(Resource::clone(&good).unreadable()));
    let again = [Ok(received(TIMEOUT, "a", of_zone("east"), GOOD))];
    let response = Batch { upserts: &again, ..Batch::default() };
    let sender = east(Dialect::Plain);
    let applied = apply((KindId::FIRST, &TIMEOUT), &sender, &rows, response);
    let [Item { edit: Edit::Put(row), .. }] = &*applied.batch else { panic!("{applied:?}") };
    assert!(!row.head.unreadable);
    rows.insert(row.clone());
    let applied = apply((KindId::FIRST, &TIMEOUT), &sender, &rows, response);
    assert!(applied.batch.is_empty(), "once");
}

#[test]
fn a_name_that_is_both_there_and_gone_is_there() {
    let same = [Ok(received(TIMEOUT, "a", of_zone("east"), GOOD))];
    let gone = [key(TIMEOUT, "a"), key(TIMEOUT, "b")];
    let response = Batch { upserts: &same, removals: &gone, complete: None };
    let (done, refused) = steps(TIMEOUT, &east(Dialect::Plain), &at_global(), response);
    assert_eq!((done.len(), refused.len()), (1, 0), "{done:?}");
    assert!(done[0].contains('b'), "{done:?}");
}
