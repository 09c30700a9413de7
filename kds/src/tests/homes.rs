//! Two zones of one name.

use super::{
    log::Log,
    world::{Address, Global, Plane, Zone, away},
};
use crate::{limit, testkinds::SERVICE};
use std::time::Duration;
use tokio::{task::JoinSet, time::timeout};

/// The zone `east` with the service `ours`, and another one of that name, elsewhere, with `theirs`.
async fn two_of_one_name(tasks: &mut JoinSet<()>, global: &Global) -> [Zone; 2] {
    let address = Address::of(global);
    let plane = Plane::new(tasks, Some("east"), 7);
    let first = Zone::living_at(tasks, ("east", &address), (plane, "here"));
    first.until_complete().await;
    first.plane.put(SERVICE, "ours", r#"{"port":1}"#).await;
    let plane = Plane::new(tasks, Some("east"), 8);
    plane.put(SERVICE, "theirs", r#"{"port":1}"#).await;
    let second = Zone::living_at(tasks, ("east", &address), (plane, "there"));
    [first, second]
}

fn of_east(name: &str) -> String {
    away(SERVICE, name, Some("east"))
}

#[tokio::test(start_paused = true)]
async fn a_zone_is_not_disturbed_by_another_one_of_its_name() {
    let (mut tasks, log) = (JoinSet::new(), Log::listen());
    let global = Global::start(&mut tasks, "c1", 1).await;
    let [first, second] = two_of_one_name(&mut tasks, &global).await;
    let state = second.until(|state| state.last_failure.is_some()).await;
    let said =
        "another zone has this name: the one at here is connected, and this is the one at there";
    let why = state.last_failure.unwrap();
    assert!(why.contains(said), "{why}");
    assert!(log.said("call of a zone refused", said));
    // As long as both are there.
    let disturbed = async { first.until(|state| state.last_failure.is_some()).await };
    assert!(timeout(Duration::from_secs(200), disturbed).await.is_err());
    first.plane.put(SERVICE, "later", r#"{"port":1}"#).await;
    global.plane.until(SERVICE, &[of_east("later"), of_east("ours")]).await;
    assert_eq!(second.handle.state().borrow().complete.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_zone_may_come_back_before_another_one_of_its_name() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let [first, second] = two_of_one_name(&mut tasks, &global).await;
    global.plane.until(SERVICE, &[of_east("ours")]).await;
    for _ in 0..3 {
        first.stop.cancel();
        first.until(|state| state.connected_since.is_none()).await;
        tokio::time::advance(limit::RETURN - Duration::from_secs(1)).await;
        let plane = first.plane.clone();
        let again = Zone::living_at(&mut tasks, ("east", &Address::of(&global)), (plane, "here"));
        again.until_complete().await;
        assert_eq!(second.handle.state().borrow().complete.len(), 0);
        again.stop.cancel();
    }
    // It is gone for good.
    second.until_complete().await;
    global.plane.until(SERVICE, &[of_east("theirs")]).await;
}
