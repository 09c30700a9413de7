//! A global of ours and zones of ours.

use super::{
    log::Log,
    world::{Address, Global, Zone, away},
};
use crate::{
    testkinds::{MESH, SERVICE, TIMEOUT},
    zone::State,
};
use resource::{Labels, label};
use store::Backend as _;
use tokio::task::JoinSet;

const ONE: &str = r#"{"seconds":1}"#;
const TWO: &str = r#"{"seconds":2}"#;

#[tokio::test(start_paused = true)]
async fn a_zone_gets_everything_then_what_changes() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    global.plane.put(TIMEOUT, "web", ONE).await;
    let east = Zone::start(&mut tasks, "east", &Address::of(&global));
    east.until_complete().await;
    let web = away(TIMEOUT, "web", None);
    assert_eq!(east.plane.all(TIMEOUT), [(web.clone(), ONE.into())].into());
    assert_eq!(east.plane.all(MESH), [("default".into(), "{}".into())].into());
    let row = east.plane.get(TIMEOUT, &web).unwrap();
    let labels = [(label::DISPLAY_NAME, "web"), (label::ORIGIN, "global")];
    assert_eq!(row.head.labels, Labels::from_iter(labels));

    global.counts.clear();
    global.plane.put(TIMEOUT, "db", TWO).await;
    let db = away(TIMEOUT, "db", None);
    east.plane.until(TIMEOUT, &[web.clone(), db.clone()]).await;
    global.plane.delete(TIMEOUT, "web").await;
    east.plane.until(TIMEOUT, std::slice::from_ref(&db)).await;
    global.plane.put(TIMEOUT, "db", ONE).await;
    east.plane.until_so(TIMEOUT, |all| all.get(&db).is_some_and(|spec| spec == ONE)).await;
    assert_eq!(global.counts.of("sent", TIMEOUT), 3, "one response for each change");
    assert_eq!(global.counts.of("sent", MESH), 0);
}

#[tokio::test(start_paused = true)]
async fn services_of_zones_with_one_name_stay_apart() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    let west = Zone::start(&mut tasks, "west", &address);
    east.plane.put(SERVICE, "web", r#"{"port":1}"#).await;
    west.plane.put(SERVICE, "web", r#"{"port":2}"#).await;
    east.plane.put(SERVICE, "other/web", r#"{"port":3}"#).await;

    let [web_east, web_west, other] = [("web", "east"), ("web", "west"), ("other/web", "east")]
        .map(|(name, zone)| away(SERVICE, name, Some(zone)));
    global.plane.until(SERVICE, &[web_east.clone(), web_west.clone(), other.clone()]).await;
    east.plane.until(SERVICE, &["default/web".into(), "other/web".into(), web_west.clone()]).await;
    west.plane.until(SERVICE, &["default/web".into(), web_east.clone(), other]).await;
    assert_eq!(west.plane.spec(SERVICE, &web_east), r#"{"port":1}"#);
    assert_eq!(east.plane.spec(SERVICE, &web_west), r#"{"port":2}"#);
    let relayed = west.plane.get(SERVICE, &web_east).unwrap();
    let labels = [(label::DISPLAY_NAME, "web"), (label::ORIGIN, "global"), (label::ZONE, "east")];
    assert_eq!(relayed.head.labels, Labels::from_iter(labels));
}

#[tokio::test(start_paused = true)]
async fn a_status_goes_up_and_sends_nothing_down() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    let west = Zone::start(&mut tasks, "west", &address);
    let labels = east.plane.labels();
    east.plane.write(SERVICE, "web", labels.clone(), [r#"{"port":1}"#, ""]).await;
    let web = away(SERVICE, "web", Some("east"));
    west.plane.until(SERVICE, std::slice::from_ref(&web)).await;

    global.counts.clear();
    east.plane.write(SERVICE, "web", labels, [r#"{"port":1}"#, r#"{"proxies":3}"#]).await;
    let arrived = || global.plane.get(SERVICE, &web).unwrap().status == r#"{"proxies":3}"#;
    global.plane.until_so(SERVICE, |_| arrived()).await;
    // A change of its own shows that west heard of everything before it.
    global.plane.put(TIMEOUT, "web", ONE).await;
    west.plane.until(TIMEOUT, &[away(TIMEOUT, "web", None)]).await;
    assert_eq!(global.counts.of("sent", SERVICE), 0, "a status is nothing to those below");
    assert_eq!(west.plane.get(SERVICE, &web).unwrap().status, "");
}

#[tokio::test(start_paused = true)]
async fn a_zone_knows_until_where_global_has_what_it_wrote() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    east.until(|state| state.connected_since.is_some()).await;
    east.plane.put(SERVICE, "web", r#"{"port":1}"#).await;
    let (written, _) = east.plane.store.reader().rows(east.plane.id(SERVICE));
    let known = |state: &State| state.known_to_global.get(SERVICE.name).copied();
    east.until(|state| known(state) == Some(written)).await;
    assert!(global.plane.get(SERVICE, &away(SERVICE, "web", Some("east"))).is_some());

    // What global refuses it does not have.
    east.plane.put_unchecked(SERVICE, "bad", r#"{"port":"none"}"#).await;
    east.until(|state| state.refused_by_global.contains_key(SERVICE.name)).await;
    assert_eq!(known(&east.handle.state().borrow()), Some(written));
    east.plane.put(SERVICE, "more", r#"{"port":2}"#).await;
    let more = away(SERVICE, "more", Some("east"));
    global.plane.until_so(SERVICE, |all| all.contains_key(&more)).await;
    assert_eq!(known(&east.handle.state().borrow()), Some(written), "one is still missing");
}

#[tokio::test(start_paused = true)]
async fn what_global_does_not_take_again_and_again_is_logged_once_at_each_end() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let east = Zone::start(&mut tasks, "east", &Address::of(&global));
    east.until_complete().await;
    let log = Log::listen();
    for number in 1..20 {
        let spec = format!(r#"{{"port":"none","number":{number}}}"#);
        east.plane.put_unchecked(SERVICE, "bad", &spec).await;
        east.until(|state| state.refused_by_global.contains_key(SERVICE.name)).await;
        east.plane.put(SERVICE, "good", &format!(r#"{{"port":{number}}}"#)).await;
        let good = away(SERVICE, "good", Some("east"));
        let there = format!(r#"{{"port":{number}}}"#);
        global.plane.until_so(SERVICE, |all| all.get(&good) == Some(&there)).await;
    }
    log.warned("zone=east", &["resources of a zone refused", "global refused resources"]);
}

#[tokio::test(start_paused = true)]
async fn a_zone_whose_admission_is_withdrawn_is_gone_at_once() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let east = Zone::start(&mut tasks, "east", &Address::of(&global));
    east.until_complete().await;
    global.withdrawn.cancel();
    let state = east.until(|state| state.connected_since.is_none()).await;
    let why = state.last_failure.unwrap();
    assert!(why.contains("the peer's admission was withdrawn"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_large_state_comes_in_parts_and_what_is_gone_meanwhile_goes() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    global.plane.put(TIMEOUT, "old", ONE).await;
    east.plane.until(TIMEOUT, &[away(TIMEOUT, "old", None)]).await;
    east.stop.cancel();
    east.until(|state| state.connected_since.is_none()).await;

    global.plane.delete(TIMEOUT, "old").await;
    // More than the log remembers, and more than a part holds.
    for number in 0..5000 {
        global.plane.put(TIMEOUT, &format!("new-{number}"), ONE).await;
    }
    global.counts.clear();
    let east = Zone::run(&mut tasks, "east", &address, east.plane);
    east.until_complete().await;
    let sent = global.counts.of("sent", TIMEOUT);
    assert!(sent > 5, "{sent} responses");
    let names: Vec<String> =
        (0..5000).map(|number| away(TIMEOUT, &format!("new-{number}"), None)).collect();
    east.plane.until(TIMEOUT, &names).await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_stream_of_a_zone_takes_over_its_uploads() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let address = Address::of(&global);
    let old = Zone::start(&mut tasks, "east", &address);
    old.until_complete().await;
    let new = Zone::start(&mut tasks, "east", &address);
    let state = old.until(|state| state.last_failure.is_some()).await;
    let why = state.last_failure.unwrap();
    assert!(why.contains("a newer stream of the zone took over"), "{why}");
    old.stop.cancel();
    new.plane.put(SERVICE, "web", r#"{"port":1}"#).await;
    global.plane.until(SERVICE, &[away(SERVICE, "web", Some("east"))]).await;
}
