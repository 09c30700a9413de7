//! What a change costs.

use super::*;
use serde_json::json;
use std::collections::BTreeSet;
use xds::Type::{Cluster, Endpoint, Listener, Route};

const SERVICES: usize = 1_000;
const PROXIES: u8 = 100;

fn service(number: usize) -> String {
    format!("kri_msvc_shop_west__service-{number}_http")
}

/// A mesh in which every proxy calls every service, and has asked for all of it.
fn busy() -> (Zone, Vec<Stream>) {
    let mut zone = Zone::of(&[]);
    for number in 0..SERVICES {
        zone.put(&local(&format!("service-{number}")).vips(&["241.0.0.1"]));
    }
    let mut streams = Vec::new();
    for number in 0..PROXIES {
        zone.put(&sidecar("web", number, json!([])));
        streams.push(zone.connect(&format!("web-{number}")));
    }
    for stream in &streams {
        for number in 0..SERVICES {
            for kind in [Cluster, Endpoint, Listener, Route] {
                stream.get(kind, &service(number)).unwrap();
            }
        }
    }
    (zone, streams)
}

#[test]
fn a_change_generates_what_changed_once_for_all() {
    let (mut zone, mut streams) = busy();
    let made = zone.made();
    // One of the trust bundle.
    assert_eq!(made, 4 * SERVICES + 1, "of each service one of each type, not for each proxy");

    zone.put(&sidecar("service-7", 200, json!([http(8080)])));
    let concerned: BTreeSet<_> = [(Endpoint, service(7))].into();
    let mut sent = BTreeSet::new();
    for stream in &mut streams {
        assert_eq!(stream.marks(), concerned);
        sent.insert(stream.get(Endpoint, &service(7)).unwrap().version);
    }
    assert_eq!((zone.made(), sent.len()), (made + 1, 1));

    zone.put(&timeout("slow", to_service("service-8"), "40s"));
    let concerned: BTreeSet<_> = [(Route, service(8))].into();
    for stream in &mut streams {
        assert_eq!(stream.marks(), concerned);
        stream.get(Route, &service(8)).unwrap();
    }
    assert_eq!(zone.made(), made + 2);

    // What proxies already have is the same for one that comes later.
    zone.put(&sidecar("web", 250, json!([])));
    let late = zone.connect("web-250");
    for number in 0..SERVICES {
        late.get(Endpoint, &service(number)).unwrap();
    }
    assert_eq!(zone.made(), made + 2);
    assert!(streams.iter_mut().all(|stream| stream.marks().is_empty()));
}
