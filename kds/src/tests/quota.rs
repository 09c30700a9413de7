//! A zone that has more than it may.

use super::world::{Address, Global, Zone, away};
use crate::{quota::Quota, testkinds::SERVICE};
use tokio::task::JoinSet;

const SMALL: &str = r#"{"port":1}"#;
const OTHER: &str = r#"{"port":2}"#;

#[tokio::test(start_paused = true)]
async fn what_is_over_the_quota_is_refused_and_passes_when_there_is_room() {
    let mut tasks = JoinSet::new();
    let quota = Quota { resources: 2, bytes: u64::MAX };
    let global = Global::start_within(&mut tasks, quota).await;
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
