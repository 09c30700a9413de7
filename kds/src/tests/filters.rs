//! Whom a resource is for may change: it goes from where it was, and comes where it was not.

use super::world::{Address, Global, Plane, Zone, away};
use crate::testkinds::{SERVICE, TIMEOUT};
use resource::{Kind, label};
use tokio::task::JoinSet;

const SPEC: &str = r#"{"port":1}"#;

async fn put(plane: &Plane, kind: Kind, name: &str, sync: Option<&str>) {
    let labels = match sync {
        Some(sync) => plane.labels().with(label::SYNC, sync),
        None => plane.labels(),
    };
    let spec = if kind.name == SERVICE.name { SPEC } else { r#"{"seconds":1}"# };
    plane.write(kind, name, labels, [spec, ""]).await;
}

#[tokio::test(start_paused = true)]
async fn what_stops_being_for_a_zone_is_taken_from_it_and_what_begins_to_be_arrives() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let address = Address::of(&global);
    let [east, west] = ["east", "west"].map(|zone| Zone::start(&mut tasks, zone, &address));

    // From global to its zones.
    let there = |name| away(TIMEOUT, name, None);
    put(&global.plane, TIMEOUT, "stays", Some("disabled")).await;
    put(&global.plane, TIMEOUT, "goes", None).await;
    put(&global.plane, TIMEOUT, "also", Some("enabled")).await;
    east.plane.until(TIMEOUT, &["goes", "also"].map(there)).await;
    put(&global.plane, TIMEOUT, "goes", Some("disabled")).await;
    put(&global.plane, TIMEOUT, "stays", None).await;
    for zone in [&east, &west] {
        zone.plane.until(TIMEOUT, &["stays", "also"].map(there)).await;
    }

    // From a zone to global, and from there to another zone.
    let [here, other] = [away(SERVICE, "web", Some("east")), away(SERVICE, "cart", Some("east"))];
    put(&east.plane, SERVICE, "web", None).await;
    put(&east.plane, SERVICE, "cart", Some("disabled")).await;
    for plane in [&global.plane, &west.plane] {
        plane.until(SERVICE, std::slice::from_ref(&here)).await;
    }
    put(&east.plane, SERVICE, "web", Some("disabled")).await;
    put(&east.plane, SERVICE, "cart", None).await;
    for plane in [&global.plane, &west.plane] {
        plane.until(SERVICE, std::slice::from_ref(&other)).await;
    }
}
