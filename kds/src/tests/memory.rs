//! Which global a zone belongs to, and what it asks of it when it comes back.

use super::world::{Address, Global, Plane, Zone, away};
use crate::{
    memory::{Held, Identity},
    testkinds::{CONFIG, MESH, SERVICE, TIMEOUT},
    zone::NothingHeld,
};
use std::time::Duration;
use tokio::{task::JoinSet, time::timeout};

const ONE: &str = r#"{"seconds":1}"#;
/// Sooner than a zone asks for another reason whether global is there.
const SOON: Duration = Duration::from_secs(1);
const TWO: &str = r#"{"seconds":2}"#;

fn identity(id: &str, epoch: u64) -> Identity {
    Identity { id: id.into(), epoch: Some(epoch) }
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_comes_back_gets_the_differences_only() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    for name in ["a", "b", "c"] {
        global.plane.put(TIMEOUT, name, ONE).await;
    }
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    east.until_complete().await;
    east.stop.cancel();
    east.until(|state| state.connected_since.is_none()).await;
    global.plane.delete(TIMEOUT, "a").await;
    global.plane.put(TIMEOUT, "d", ONE).await;

    global.counts.clear();
    let east = Zone::run(&mut tasks, "east", &address, east.plane);
    assert!(east.handle.state().borrow().complete_once, "it has all it needs without global");
    let names = ["b", "c", "d"].map(|name| away(TIMEOUT, name, None));
    east.plane.until(TIMEOUT, &names).await;
    east.until_complete().await;
    let sent = global.counts.resources.lock().clone();
    assert_eq!(sent, [("MeshTimeout", 1)].into(), "what is known is not sent again");
}

#[tokio::test(start_paused = true)]
async fn what_changed_on_a_stream_does_not_make_a_zone_forget_the_rest() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    east.until_complete().await;
    for (kind, name) in [(TIMEOUT, "a"), (MESH, "shop"), (TIMEOUT, "b")] {
        global.plane.put(kind, name, ONE).await;
    }
    let names = ["a", "b"].map(|name| away(TIMEOUT, name, None));
    east.plane.until(TIMEOUT, &names).await;
    east.stop.cancel();
    east.until(|state| state.connected_since.is_none()).await;
    let east = Zone::run(&mut tasks, "east", &address, east.plane);
    assert!(east.handle.state().borrow().complete_once, "it has all it needs without global");
}

/// What a newer global might have: a zone that does not know it yet refuses it.
async fn put_odd(global: &Global) -> String {
    global.plane.put_unchecked(TIMEOUT, "odd", r#"{"minutes":1}"#).await;
    away(TIMEOUT, "odd", None)
}

#[tokio::test(start_paused = true)]
async fn what_a_zone_refused_is_not_sent_again_when_it_comes_back() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let odd = put_odd(&global).await;
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    let state = east.until_complete().await;
    let name = format!("{}.default", odd.trim_start_matches("default/"));
    let reason = "malformed MeshTimeout: missing field `seconds` at line 1 column 13";
    let refused = [(name, reason.to_owned())].into();
    assert_eq!(state.refused, [("MeshTimeout", refused)].into());
    global.until("refused", TIMEOUT, 1).await;

    let global = global.restart(&mut tasks, &address);
    east.until(|state| state.connected_since.is_none()).await;
    east.until_complete().await;
    assert_eq!((global.counts.of("sent", TIMEOUT), global.counts.of("refused", TIMEOUT)), (1, 0));
    global.plane.put(TIMEOUT, "odd", TWO).await;
    east.plane.until_so(TIMEOUT, |all| all.get(&odd).is_some_and(|spec| spec == TWO)).await;
}

#[tokio::test(start_paused = true)]
async fn another_program_of_a_zone_judges_anew_what_was_refused() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    put_odd(&global).await;
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    global.until("refused", TIMEOUT, 1).await;
    east.until_complete().await;
    east.stop.cancel();
    east.until(|state| state.connected_since.is_none()).await;
    let _east = Zone::run(&mut tasks, "east", &address, east.plane);
    global.until("refused", TIMEOUT, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_global_goes_on_where_it_was_with_a_zone() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    for name in ["a", "b", "c"] {
        east.plane.put(SERVICE, name, r#"{"port":1}"#).await;
    }
    let named = |names: &[&str]| -> Vec<String> {
        names.iter().map(|name| away(SERVICE, name, Some("east"))).collect()
    };
    global.plane.until(SERVICE, &named(&["a", "b", "c"])).await;
    east.until_complete().await;
    east.stop.cancel();
    east.until(|state| state.connected_since.is_none()).await;
    east.plane.delete(SERVICE, "a").await;
    east.plane.put(SERVICE, "d", r#"{"port":1}"#).await;
    global.counts.clear();
    let east = Zone::run(&mut tasks, "east", &address, east.plane);
    global.plane.until(SERVICE, &named(&["b", "c", "d"])).await;
    east.until_complete().await;
    assert_eq!(global.counts.received.lock().get("MeshService"), Some(&1));

    // What others took away meanwhile is sent again.
    east.stop.cancel();
    east.until(|state| state.connected_since.is_none()).await;
    global.plane.delete(SERVICE, &away(SERVICE, "b", Some("east"))).await;
    let _east = Zone::run(&mut tasks, "east", &address, east.plane);
    global.plane.until(SERVICE, &named(&["b", "c", "d"])).await;
}

#[tokio::test(start_paused = true)]
async fn what_others_took_away_of_a_zone_is_sent_again_however_long_ago_that_was() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    east.plane.put(SERVICE, "a", r#"{"port":1}"#).await;
    let a = away(SERVICE, "a", Some("east"));
    global.plane.until(SERVICE, std::slice::from_ref(&a)).await;
    east.until_complete().await;
    east.stop.cancel();
    east.until(|state| state.connected_since.is_none()).await;
    global.plane.delete(SERVICE, &a).await;
    // More than the log remembers.
    for number in 0..5000 {
        global.plane.put(SERVICE, "own", &format!(r#"{{"port":{number}}}"#)).await;
    }
    let _east = Zone::run(&mut tasks, "east", &address, east.plane);
    global.plane.until_so(SERVICE, |all| all.contains_key(&a)).await;
}

#[tokio::test(start_paused = true)]
async fn a_global_that_comes_back_empty_takes_nothing_away() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    global.plane.put(TIMEOUT, "web", ONE).await;
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    east.until_complete().await;
    let (meshes, timeouts) = (east.plane.all(MESH), east.plane.all(TIMEOUT));

    // Its disk was lost: the store begins anew, and nobody made a mesh yet.
    global.stop.cancel();
    let plane = Plane::new(&mut tasks, None, 2);
    plane.put(CONFIG, "kuma-cluster-id", r#"{"config":"c2"}"#).await;
    let empty = Global::serve(&mut tasks, plane);
    address.leads_to(&empty);
    let state = east.until(|state| state.held.is_some()).await;
    let (remembered, found) = (identity("c1", 1), identity("c2", 2));
    assert_eq!(state.held, Some(Held::Other { remembered, found: found.clone() }));
    assert!(state.complete_once);
    assert_eq!((east.plane.all(MESH), east.plane.all(TIMEOUT)), (meshes, timeouts));
    assert_eq!(empty.counts.of("acked", TIMEOUT), 0);
    let why = state.held.as_ref().map(Held::to_string);
    let mut told = empty.counts.held.subscribe();
    let heard = timeout(SOON, told.wait_for(|told| *told == why)).await.is_ok();
    assert!(heard, "global hears why nothing of it is applied");

    // Until an operator says that this is what is wanted.
    let another = Identity { epoch: Some(3), ..found.clone() };
    assert_eq!(east.handle.adopt(&another), Err(NothingHeld), "that is not the one that is held");
    assert_eq!(east.handle.adopt(&found), Ok(()));
    east.plane.until(MESH, &[]).await;
    east.plane.until(TIMEOUT, &[]).await;
    east.until_complete().await;
    assert_eq!(east.remembers().unwrap().identity, found);
    let heard = timeout(SOON, told.wait_for(Option::is_none)).await.is_ok();
    assert!(heard, "global hears that it is followed");
    assert_eq!(east.handle.adopt(&found), Err(NothingHeld));
}

#[tokio::test(start_paused = true)]
async fn a_global_that_was_set_back_is_not_followed() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    for seconds in 1..8 {
        global.plane.put(TIMEOUT, "web", &format!(r#"{{"seconds":{seconds}}}"#)).await;
    }
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    east.until_complete().await;
    // What came on the stream counts, not only where global was when it began.
    let (last, web) = (r#"{"seconds":8}"#, away(TIMEOUT, "web", None));
    global.plane.put(TIMEOUT, "web", last).await;
    east.plane.until_so(TIMEOUT, |all| all.get(&web).is_some_and(|spec| spec == last)).await;
    let timeouts = east.plane.all(TIMEOUT);

    // The same store as it was long ago, restored without anybody noticing.
    global.stop.cancel();
    let old = Global::start(&mut tasks, "c1", 1).await;
    old.plane.put(TIMEOUT, "web", ONE).await;
    address.leads_to(&old);
    let state = east.until(|state| state.held.is_some()).await;
    let identity = identity("c1", 1);
    let held = Held::SetBack { remembered: 10, found: 3, identity: identity.clone() };
    assert_eq!(state.held, Some(held));
    assert_eq!(east.plane.all(TIMEOUT), timeouts);

    east.handle.adopt(&identity).unwrap();
    east.plane.until_so(TIMEOUT, |all| all.get(&web).is_some_and(|spec| spec == ONE)).await;
    east.until_complete().await;
    assert_eq!(east.remembers().unwrap().revision, 3);
}

/// The place that the zone is at is one that this global has come to on another way.
#[tokio::test(start_paused = true)]
async fn a_global_that_was_set_back_and_went_on_since_says_all_anew_once_it_is_confirmed() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    for name in ["gone", "web"] {
        global.plane.put(TIMEOUT, name, ONE).await;
    }
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    east.until_complete().await;

    global.stop.cancel();
    let old = Global::start(&mut tasks, "c1", 1).await;
    address.leads_to(&old);
    east.until(|state| state.held.is_some()).await;
    for seconds in 1..9 {
        old.plane.put(TIMEOUT, "web", &format!(r#"{{"seconds":{seconds}}}"#)).await;
    }
    east.handle.adopt(&identity("c1", 1)).unwrap();
    east.plane.until(TIMEOUT, &[away(TIMEOUT, "web", None)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_zone_with_meshes_of_its_own_waits_before_it_gives_them_up() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    global.plane.put(TIMEOUT, "web", ONE).await;
    let plane = Plane::new(&mut tasks, Some("east"), 7);
    plane.put(MESH, "own", "{}").await;
    let east = Zone::run(&mut tasks, "east", &Address::of(&global), plane);
    let state = east.until(|state| state.held.is_some()).await;
    let held = Held::RemovesAll { kind: "Mesh", identity: identity("c1", 1) };
    assert_eq!(state.held, Some(held));
    assert_eq!(east.plane.all(MESH), [("own".into(), "{}".into())].into());
    assert_eq!(east.plane.all(TIMEOUT), [].into(), "nothing at all is applied");
    assert_eq!(east.remembers(), None);

    east.handle.adopt(&identity("c1", 1)).unwrap();
    east.plane.until(MESH, &["default".into()]).await;
    east.plane.until(TIMEOUT, &[away(TIMEOUT, "web", None)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_mesh_that_was_deleted_on_purpose_goes_and_so_may_the_last_one() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    east.until_complete().await;
    global.plane.delete(MESH, "default").await;
    east.plane.until(MESH, &[]).await;
    assert_eq!(east.handle.state().borrow().held, None);
}
