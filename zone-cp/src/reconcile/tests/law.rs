//! The law: who reads what is marked, and only that, has at any time what there is, and reads nothing
//! in vain; and what there is follows from what the store holds, not from how it came to hold that.

use super::*;
use crate::identities::Issued;
use delta::Item;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use xds::Type;

const PROXIES: [&str; 3] = ["cart-1", "web-2", "ingress-3"];

/// Something in the store, in one of several versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Cart,
    Web,
    Ingress,
    LocalService(u8),
    RemoteService(u8),
    Address(u8),
    Timeout(u8),
    Permission(u8),
    Passthrough(u8),
}

#[derive(Clone, Debug)]
enum Step {
    Put(Thing, u8),
    Delete(Thing),
    /// By one of two identities, by one of two SPIRE agents, or by none.
    Certify(u8, u8),
    Trust(bool),
}

impl Thing {
    fn row(self, version: u8) -> Row {
        let odd = version % 2 == 1;
        match self {
            Self::Cart => {
                let inbounds = match version {
                    0 => json!([http(8080)]),
                    1 => json!([http(8080), tcp(9000)]),
                    2 => json!([tcp(9000)]),
                    _ => json!([tcp(9001), http(8081)]),
                };
                let cart = sidecar("cart", 1, inbounds);
                let cart = cart.label("tier", if odd { "gold" } else { "iron" });
                match version {
                    4 => directly(cart, &["*"]),
                    5 => directly(cart, &["web"]).at("10.0.0.9"),
                    _ => cart,
                }
            }
            Self::Web => web(version),
            Self::Ingress => {
                let mut row = ingress(3);
                if odd {
                    row.spec["networking"]["listeners"][0]["port"] = 10_002.into();
                }
                row
            }
            Self::LocalService(which) => {
                let row = local(if which == 0 { "cart" } else { "web" }).created(version.into());
                match version {
                    0 => row,
                    1 => row.vips(&["241.0.0.1"]),
                    2 => row.with("/identities", json!([])),
                    _ => row.label("kuma.io/kds-sync", "disabled").vips(&["241.0.0.2"]),
                }
            }
            Self::RemoteService(which) => {
                let row = remote("east", if which == 0 { "cart" } else { "pay" });
                match version {
                    0 => row,
                    1 => row.vips(&["241.0.0.3"]),
                    2 => row.with("/ports/0/appProtocol", "tcp".into()).vips(&["241.0.0.3"]),
                    _ => row.with("/identities/0/value", "spiffe://other/id".into()).created(1),
                }
            }
            Self::Address(which) => {
                let zone = if odd { "east" } else { "south" };
                zone_address(zone, &format!("in-{which}"), &format!("192.0.2.{version}"), 10_001)
            }
            Self::Timeout(which) => {
                let to = if odd { to_service("cart") } else { json!({ "kind": "Mesh" }) };
                let mut row = timeout(&format!("t-{which}"), to, &format!("{version}s"));
                if version > 1 {
                    row.spec["targetRef"] =
                        json!({ "kind": "Dataplane", "labels": { "tier": "gold" } });
                }
                row
            }
            Self::Permission(which) => {
                let ids = ["spiffe://a/x", "spiffe://b/x", "spiffe://c/x"];
                let ids = ids.get(..usize::from(version).min(3)).unwrap_or_default();
                let mut row = permission(&format!("p-{which}"), ids);
                if ids.is_empty() {
                    row = permission(&format!("p-{which}"), &["spiffe://d/x"]);
                    row.spec["targetRef"] =
                        json!({ "kind": "Dataplane", "labels": { "tier": "gold" } });
                }
                row
            }
            Self::Passthrough(which) => outside(which, version),
        }
    }
}

/// What proxies may call outside of the mesh.
fn outside(which: u8, version: u8) -> Row {
    let one = json!({ "type": "IP", "value": "192.0.2.9", "port": 80 + version });
    let mut web = json!({ "type": "Domain", "value": "a.example", "port": 80 });
    web["protocol"] = if which == 0 { "http".into() } else { "http2".into() };
    let conf = match version {
        0 => json!({ "passthroughMode": "None" }),
        1 => json!({ "passthroughMode": "All" }),
        2 => json!({ "appendMatch": [one] }),
        _ => json!({ "appendMatch": [web, one] }),
    };
    let mut row = passthrough(&format!("o-{which}"), conf);
    if version % 2 == 1 {
        row.spec["targetRef"] = json!({ "kind": "Dataplane", "labels": { "tier": "gold" } });
    }
    row
}

/// A client, by what it calls.
fn web(version: u8) -> Row {
    let mut web = sidecar("web", 2, json!([http(7070)]));
    let to = json!({ "kind": "MeshService", "name": "pay-of-east", "port": 80 });
    let labels = json!({ "kuma.io/display-name": "cart" });
    let by_labels = json!({ "kind": "MeshService", "labels": labels, "port": 80 });
    web.spec["networking"]["outbound"] = match version {
        0 => json!([{ "port": 3001, "backendRef": to }]),
        1 => json!([{ "port": 3001, "backendRef": by_labels }]),
        2 => json!([
            { "port": 3001, "backendRef": by_labels },
            { "port": 3002, "backendRef": to },
        ]),
        _ => json!([]),
    };
    let only = json!({ "refs": [{ "kind": "MeshService", "name": "cart" }] });
    if version % 2 == 1 {
        web.spec["networking"]["transparentProxying"] = json!({ "reachableBackends": only });
    }
    web = match version {
        4 => directly(web, &["cart", "pay"]),
        5 => directly(web, &["*"]),
        _ => web,
    };
    web.label("tier", if version > 1 { "gold" } else { "iron" })
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        Just(Thing::Cart),
        Just(Thing::Web),
        Just(Thing::Ingress),
        (0..2_u8).prop_map(Thing::LocalService),
        (0..2_u8).prop_map(Thing::RemoteService),
        (0..2_u8).prop_map(Thing::Address),
        (0..2_u8).prop_map(Thing::Timeout),
        (0..2_u8).prop_map(Thing::Permission),
        (0..2_u8).prop_map(Thing::Passthrough),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (thing(), 0..6_u8).prop_map(|(thing, version)| Step::Put(thing, version)),
        2 => thing().prop_map(Step::Delete),
        2 => (0..3_u8, 0..5_u8).prop_map(|(proxy, by)| Step::Certify(proxy, by)),
        1 => any::<bool>().prop_map(Step::Trust),
    ]
}

fn zone_with_proxies() -> (Zone, Vec<Stream>) {
    let mut zone = Zone::of(&[Thing::Cart.row(0), Thing::Web.row(0), Thing::Ingress.row(0)]);
    let streams = PROXIES.map(|name| zone.connect_as(name, BINDS).unwrap());
    (zone, streams.into())
}

/// What a proxy holds that reads only what is marked.
struct Reader {
    stream: Stream,
    held: BTreeMap<(Type, String), Item>,
}

impl Reader {
    fn read(&mut self) {
        for (kind, name) in self.stream.marks() {
            let now = self.stream.get(kind, &name);
            let key = (kind, name);
            // An ingress that calls others as well has their endpoints for two reasons, and other
            // permissions may admit the same callers.
            let exact = !matches!(kind, Type::Endpoint | Type::Secret);
            let in_vain = exact && self.held.get(&key) == now.as_ref();
            assert!(!in_vain, "{key:?} is marked and did not change");
            match now {
                Some(item) => drop(self.held.insert(key, item)),
                None => drop(self.held.remove(&key)),
            }
        }
    }
}

fn apply(zone: &mut Zone, step: &Step) {
    match step {
        Step::Put(thing, version) => zone.put(&thing.row(*version)),
        Step::Delete(thing) => zone.delete(&thing.row(0)),
        Step::Certify(proxy, by) => {
            let name = PROXIES.get(usize::from(*proxy)).unwrap();
            let mut all = zone.certified.issued.lock();
            match by {
                0 => drop(all.remove(*name)),
                1 => drop(all.insert((*name).into(), issued(name, 1))),
                2 | 3 => drop(all.insert((*name).into(), by_agent(name, u64::from(*by)))),
                _ => {
                    let other = "kri_mid_shop___other_".parse().unwrap();
                    let identity = std::sync::Arc::new(other);
                    all.insert((*name).into(), Issued { identity, ..issued(name, 1) });
                }
            }
            drop(all);
            let key = resource::ResourceKey::in_mesh(&shop(), name);
            zone.meshes.reidentify(&key);
            zone.settle();
        }
        Step::Trust(east) => {
            let zones: &[&str] = if *east { &["east", "west"] } else { &["west"] };
            *zone.certified.trust.lock() = trust(zones);
            zone.meshes.retrust(&shop());
        }
    }
}

/// Without what depends on the past: numbers of generations.
fn timeless(all: BTreeMap<(Type, String), Item>) -> BTreeMap<(Type, String), Item> {
    let past = |kind: Type| matches!(kind, Type::Extension | Type::Runtime);
    all.into_iter().filter(|((kind, _), _)| !past(*kind)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn who_reads_what_is_marked_has_what_there_is(
        steps in proptest::collection::vec(step(), 0..40),
    ) {
        let (mut zone, streams) = zone_with_proxies();
        let mut readers: Vec<Reader> = streams
            .into_iter()
            .map(|stream| Reader { held: stream.everything(), stream })
            .collect();
        for step in &steps {
            apply(&mut zone, step);
            for reader in &mut readers {
                reader.read();
                let there = reader.stream.everything();
                prop_assert_eq!(&reader.held, &there, "after {:?}", step);
            }
        }
    }

    #[test]
    fn what_there_is_does_not_depend_on_the_order_of_changes(
        steps in proptest::collection::vec(step(), 0..30),
        order in any::<prop::sample::Index>(),
    ) {
        let (mut zone, streams) = zone_with_proxies();
        steps.iter().for_each(|step| apply(&mut zone, step));
        let mut last: BTreeMap<Thing, u8> =
            [Thing::Cart, Thing::Web, Thing::Ingress].map(|thing| (thing, 0)).into();
        for step in &steps {
            match step {
                Step::Put(thing, version) => drop(last.insert(*thing, *version)),
                Step::Delete(thing) => drop(last.remove(thing)),
                Step::Certify(..) | Step::Trust(_) => {}
            }
        }
        let mut rows: Vec<Row> = last.iter().map(|(thing, version)| thing.row(*version)).collect();
        if !rows.is_empty() {
            let at = order.index(rows.len());
            rows.rotate_left(at);
            rows.reverse();
        }
        let mut other = Zone::of(&rows);
        *other.certified.issued.lock() = zone.certified.issued.lock().clone();
        *other.certified.trust.lock() = zone.certified.trust.lock().clone();
        other.meshes.retrust(&shop());
        for (name, stream) in PROXIES.iter().zip(streams) {
            let Ok(fresh) = other.connect_as(name, BINDS) else { continue };
            prop_assert_eq!(timeless(stream.everything()), timeless(fresh.everything()));
        }
    }
}
