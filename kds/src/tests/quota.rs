//! A zone that has more than it may.

use super::world::{Address, Global, Zone, away};
use crate::{
    quota::{Quota, Quotas},
    testkinds::{ECHO, SERVICE, TIMEOUT},
};
use std::collections::BTreeMap;
use tokio::task::JoinSet;

const SMALL: &str = r#"{"port":1}"#;
const OTHER: &str = r#"{"port":2}"#;

#[tokio::test(start_paused = true)]
async fn what_is_over_the_quota_is_refused_and_passes_when_there_is_room() {
    let mut tasks = JoinSet::new();
    let all = Quota { resources: 2, bytes: u64::MAX };
    let global = Global::start_within(&mut tasks, Quotas { all, ..Quotas::NONE }).await;
    let address = Address::of(&global);
    let [east, west] = ["east", "west"].map(|zone| Zone::start(&mut tasks, zone, &address));
    let at_global = |name, zone| away(SERVICE, name, Some(zone));
    let [a, b, c] = ["a", "b", "c"].map(|name| at_global(name, "east"));
    east.plane.put(SERVICE, "a", SMALL).await;
    east.plane.put(SERVICE, "b", SMALL).await;
    global.plane.until(SERVICE, &[a.clone(), b.clone()]).await;
    east.plane.put(SERVICE, "c", SMALL).await;
    // Comes after it on the same stream; what there is may still be changed.
    east.plane.put(SERVICE, "a", OTHER).await;
    global.plane.until_so(SERVICE, |all| all.get(&a).is_some_and(|spec| spec == OTHER)).await;
    assert_eq!(global.plane.get(SERVICE, &c).map(|row| row.head.key.clone()), None);
    // Another zone has a quota of its own.
    west.plane.put(SERVICE, "a", SMALL).await;
    let of_west = at_global("a", "west");
    global.plane.until(SERVICE, &[a.clone(), b.clone(), of_west.clone()]).await;

    east.plane.delete(SERVICE, "b").await;
    global.plane.until(SERVICE, &[a, c.clone(), of_west]).await;
    assert_eq!(global.plane.spec(SERVICE, &c), SMALL);
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_room_when_there_is_some_waits_on() {
    let mut tasks = JoinSet::new();
    let all = Quota { resources: 1, bytes: u64::MAX };
    let global = Global::start_within(&mut tasks, Quotas { all, ..Quotas::NONE }).await;
    let east = Zone::start(&mut tasks, "east", &Address::of(&global));
    let at_global = |name: &str| away(SERVICE, name, Some("east"));
    let mut names = vec!["a", "b", "c"];
    for name in &names {
        east.plane.put(SERVICE, name, SMALL).await;
        global.plane.until_so(SERVICE, |all| all.len() == 1).await;
    }
    while !names.is_empty() {
        let has = |name: &str| global.plane.get(SERVICE, &at_global(name)).is_some();
        let taken = names.iter().position(|name| has(name)).unwrap();
        let name = names.swap_remove(taken);
        east.plane.delete(SERVICE, name).await;
        let others: Vec<String> = names.iter().map(|name| at_global(name)).collect();
        let next = |all: &BTreeMap<String, String>| {
            all.len() == others.len().min(1) && all.keys().all(|name| others.contains(name))
        };
        global.plane.until_so(SERVICE, next).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_full_holds_back_no_other() {
    let mut tasks = JoinSet::new();
    let few = Quota { resources: 1, bytes: u64::MAX };
    let quotas = Quotas { kinds: [(SERVICE.name.to_owned(), few)].into(), ..Quotas::NONE };
    let global = Global::start_within(&mut tasks, quotas).await;
    let east = Zone::start(&mut tasks, "east", &Address::of(&global));
    let at_global = |kind, name| away(kind, name, Some("east"));
    east.plane.put(SERVICE, "a", SMALL).await;
    let [a, b] = ["a", "b"].map(|name| at_global(SERVICE, name));
    global.plane.until(SERVICE, std::slice::from_ref(&a)).await;
    east.plane.put(SERVICE, "b", SMALL).await;
    for name in ["x", "y"] {
        east.plane.put(TIMEOUT, name, r#"{"seconds":1}"#).await;
    }
    global.plane.until(TIMEOUT, &["x", "y"].map(|name| at_global(TIMEOUT, name))).await;
    // Comes after it on the same stream.
    east.plane.put(SERVICE, "a", OTHER).await;
    global.plane.until_so(SERVICE, |all| all.get(&a).is_some_and(|spec| spec == OTHER)).await;
    assert_eq!(global.plane.get(SERVICE, &b).map(|row| row.head.key.clone()), None);
    east.plane.delete(SERVICE, "a").await;
    global.plane.until(SERVICE, &[b]).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_zone_says_of_beacons_takes_no_room_and_has_its_own() {
    let mut tasks = JoinSet::new();
    let all = Quota { resources: 1, bytes: u64::MAX };
    let global = Global::start_within(&mut tasks, Quotas { all, ..Quotas::NONE }).await;
    let east = Zone::start(&mut tasks, "east", &Address::of(&global));
    let [echo, another] = ["echo", "another"].map(|name| away(ECHO, name, Some("east")));
    east.plane.put(ECHO, "echo", r#"{"stored":1}"#).await;
    global.plane.until(ECHO, std::slice::from_ref(&echo)).await;
    east.plane.put(SERVICE, "a", SMALL).await;
    global.plane.until(SERVICE, &[away(SERVICE, "a", Some("east"))]).await;
    // The zone is full now.
    for number in 2..5 {
        let spec = format!(r#"{{"stored":{number}}}"#);
        east.plane.put(ECHO, "echo", &spec).await;
        global.plane.until_so(ECHO, |all| all.get(&echo) == Some(&spec)).await;
    }
    east.plane.put(ECHO, "another", r#"{"stored":1}"#).await;
    let state = east.until(|state| state.refused_by_global.contains_key(ECHO.name)).await;
    assert_eq!(global.plane.get(ECHO, &another).map(|row| row.head.key.clone()), None);
    let reason = "quota: zone east has 1 BeaconEcho resources, and may have 1";
    let refused = state.refused_by_global.get(ECHO.name).unwrap();
    assert_eq!(refused.values().collect::<Vec<_>>(), [reason]);
}
