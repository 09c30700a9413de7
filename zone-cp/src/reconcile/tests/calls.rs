//! Whom proxies call.

use super::*;
use crate::{
    generate::{self, Destination, Endpoint, Outbound},
    reconcile::Traits,
};
use Type::{Cluster, Endpoint as Assignment, Listener, Route};
use kinds::mesh_service;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::view::Edit;
use xds::{Protocol, Type, draft::OutboundDraft, item, names::Sni};

const EAST_CART: &str = "kri_msvc_shop_east__cart_http";
const WEST_CART: &str = "kri_msvc_shop_west__cart_http";

fn destination(kri: &str, identity: &str) -> Destination {
    let kri: resource::Kri = kri.parse().unwrap();
    Destination {
        sni: Sni::of(&kri).unwrap(),
        kri,
        protocol: Protocol::Http,
        identities: [identity.parse().unwrap()].into(),
    }
}

fn outbound(kri: &str, binds: &[&str]) -> Outbound {
    let binds = binds.iter().map(|bind| bind.parse().unwrap()).collect();
    Outbound { kri: kri.parse().unwrap(), protocol: Protocol::Http, binds, redirected: false }
}

fn endpoint(priority: u32, zone: &str, address: &str) -> Endpoint {
    Endpoint { priority, zone: zone.into(), address: address.parse().unwrap() }
}

fn assert_located(stream: &Stream, name: &str, endpoints: &[Endpoint]) {
    let endpoints: BTreeSet<Endpoint> = endpoints.iter().cloned().collect();
    let expected = item(Assignment, &name.into(), &generate::load_assignment(name, &endpoints));
    assert_eq!(stream.get(Assignment, name), Some(expected));
}

fn marks(kinds: &[Type], name: &str) -> BTreeSet<(Type, String)> {
    kinds.iter().map(|kind| (*kind, name.to_owned())).collect()
}

fn web() -> Row {
    sidecar("web", 1, json!([]))
}

fn web_with(outbounds: Value) -> Row {
    let mut web = web();
    web.spec["networking"]["outbound"] = outbounds;
    web
}

#[test]
fn a_service_of_another_zone_is_called_through_the_ingresses_of_that_zone() {
    let mut zone = Zone::of(&[
        web(),
        remote("east", "cart").vips(&["241.0.0.9"]),
        zone_address("east", "in-1", "192.0.2.1", 10_001),
        zone_address("east", "in-2", "192.0.2.2", 10_001),
        zone_address("south", "in-3", "192.0.2.3", 10_001),
    ]);
    let stream = zone.connect("web-1");
    let name = EAST_CART.into();
    let destination = destination(EAST_CART, "spiffe://shop.east.mesh.local/workload/cart");
    let outbound = outbound(EAST_CART, &["241.0.0.9:80"]);
    let draft = OutboundDraft::default();
    let cluster = generate::cluster(&destination, &credentials(), &draft.cluster);
    assert_eq!(stream.get(Cluster, EAST_CART), Some(item(Cluster, &name, &cluster)));
    let listener = generate::outbound_listener(&outbound, &draft.listener).unwrap();
    assert_eq!(stream.get(Listener, EAST_CART), Some(item(Listener, &name, &listener)));
    let route = generate::outbound_route(&outbound, &draft).unwrap();
    assert_eq!(stream.get(Route, EAST_CART), Some(item(Route, &name, &route)));
    let behind = ["192.0.2.1:10001", "192.0.2.2:10001"].map(|at| endpoint(1, "east", at));
    assert_located(&stream, EAST_CART, &behind);
    for kind in [Cluster, Assignment, Listener, Route] {
        assert_eq!(stream.names(kind), [EAST_CART]);
    }
}

#[test]
fn a_zone_without_ingress_has_no_endpoints_until_it_has_one() {
    let mut zone = Zone::of(&[web(), remote("east", "cart")]);
    let mut stream = zone.connect("web-1");
    assert_located(&stream, EAST_CART, &[]);
    let east = zone_address("east", "in-1", "192.0.2.1", 10_001);
    zone.put(&east);
    assert_eq!(stream.marks(), marks(&[Assignment], EAST_CART));
    assert_located(&stream, EAST_CART, &[endpoint(1, "east", "192.0.2.1:10001")]);
    zone.put(&zone_address("south", "in-2", "192.0.2.2", 10_001));
    assert_eq!(stream.marks(), BTreeSet::new());
    zone.delete(&east);
    assert_eq!(stream.marks(), marks(&[Assignment], EAST_CART));
    assert_located(&stream, EAST_CART, &[]);
}

#[test]
fn a_service_of_this_zone_is_called_at_its_replicas_that_are_ready() {
    let mut not_ready = http(8080);
    not_ready["state"] = "NotReady".into();
    let mut zone = Zone::of(&[
        web(),
        local("cart"),
        sidecar("cart", 1, json!([http(8080)])),
        sidecar("cart", 2, json!([not_ready])),
        sidecar("other", 3, json!([http(8080)])),
    ]);
    let mut stream = zone.connect("web-1");
    let at = |number| endpoint(0, "west", &format!("10.0.0.{number}:8080"));
    assert_located(&stream, WEST_CART, &[at(1)]);
    zone.put(&sidecar("cart", 2, json!([http(8080)])));
    assert_eq!(stream.marks(), marks(&[Assignment], WEST_CART));
    assert_located(&stream, WEST_CART, &[at(1), at(2)]);
    zone.delete(&sidecar("cart", 1, json!([])));
    assert_located(&stream, WEST_CART, &[at(2)]);
    zone.put(&sidecar("other", 3, json!([http(8080)])).label("kuma.io/workload", "cart"));
    assert_located(&stream, WEST_CART, &[at(2), at(3)]);
}

#[test]
fn who_cannot_prove_to_be_somebody_is_not_called() {
    let nobody = remote("east", "cart").with("/identities", json!([]));
    let mut zone = Zone::of(&[web(), nobody]);
    let mut stream = zone.connect("web-1");
    let all = [Cluster, Assignment, Listener, Route];
    assert_eq!(all.map(|kind| stream.names(kind)), [(); 4].map(|()| Vec::<String>::new()));
    let why = "spec.identities is empty: nobody can prove to be it";
    assert_eq!(zone.problems(), [("kri_msvc_shop_east__cart_".to_owned(), why.to_owned())]);

    zone.put(&remote("east", "cart"));
    assert_eq!(zone.problems(), []);
    assert_eq!(stream.marks(), marks(&[Cluster, Assignment, Route], EAST_CART));
    zone.put(&remote("east", "cart").with("/identities/0/value", "spiffe://x/other".into()));
    assert_eq!(stream.marks(), marks(&[Cluster], EAST_CART));
}

#[test]
fn a_proxy_without_certificate_calls_nobody_and_everybody_when_it_has_one() {
    let mut zone = Zone::of(&[web(), remote("east", "cart")]);
    let mut stream = zone.connect_as("web-1", BINDS).unwrap();
    assert_eq!(stream.names(Cluster), [""; 0]);
    zone.certified.issued.lock().insert("web-1".into(), issued("web-1", 1));
    zone.meshes.reidentify(&web().key());
    zone.settle();
    let mut expected = marks(&[Cluster, Assignment, Route], EAST_CART);
    expected.extend(marks(&[Type::Secret], "kri_mid_shop___identity_"));
    assert_eq!(stream.marks(), expected);
}

#[test]
fn a_listener_follows_the_virtual_addresses_and_nothing_else_does() {
    let cart = remote("east", "cart");
    let mut zone = Zone::of(&[web(), cart.clone()]);
    let mut stream = zone.connect("web-1");
    assert_eq!(stream.names(Listener), [""; 0]);
    for vips in [&["241.0.0.9"][..], &["241.0.0.9", "241.0.0.10"], &[]] {
        zone.put(&cart.clone().vips(vips));
        assert_eq!(stream.marks(), marks(&[Listener], EAST_CART));
        let binds: Vec<String> = vips.iter().map(|vip| format!("{vip}:80")).collect();
        let binds: Vec<&str> = binds.iter().map(String::as_str).collect();
        let draft = OutboundDraft::default();
        let listener = generate::outbound_listener(&outbound(EAST_CART, &binds), &draft.listener);
        let expected = listener.map(|it| item(Listener, &EAST_CART.into(), &it));
        assert_eq!(stream.get(Listener, EAST_CART), expected);
    }
}

#[test]
fn explicit_outbounds_are_all_that_a_proxy_without_virtual_addresses_has() {
    let to_cart = json!({ "kind": "MeshService", "name": "cart-of-east", "port": 80 });
    let outbounds = json!([
        { "port": 3001, "backendRef": to_cart },
        { "address": "127.0.0.2", "port": 3001, "backendRef": to_cart },
        { "port": 3002, "backendRef": { "kind": "MeshService", "name": "pay", "port": 81 } },
        { "port": 3003, "backendRef": { "kind": "MeshService", "name": "absent", "port": 80 } },
    ]);
    let pay = json!([
        { "port": 80, "appProtocol": "tcp" },
        { "port": 81, "appProtocol": "tcp" },
    ]);
    let mut zone = Zone::of(&[
        web_with(outbounds),
        remote("east", "cart").vips(&["241.0.0.9"]),
        remote("east", "other").vips(&["241.0.0.10"]),
        local("pay").with("/ports", pay),
    ]);
    zone.certified.issued.lock().insert("web-1".into(), issued("web-1", 1));
    let mut stream = zone.connect_as("web-1", Traits::default()).unwrap();
    assert_eq!(stream.names(Listener), [EAST_CART, "kri_msvc_shop_west__pay_81"]);
    let outbound = outbound(EAST_CART, &["127.0.0.1:3001", "127.0.0.2:3001"]);
    let listener = generate::outbound_listener(&outbound, &OutboundDraft::default().listener);
    let expected = item(Listener, &EAST_CART.into(), &listener.unwrap());
    assert_eq!(stream.get(Listener, EAST_CART), Some(expected));
    assert_eq!(stream.names(Route), [EAST_CART], "the other one speaks TCP");

    zone.put(&remote("east", "other"));
    assert_eq!(stream.marks(), BTreeSet::new());
    zone.put(&local("absent"));
    let absent = "kri_msvc_shop_west__absent_http";
    assert_eq!(stream.marks(), marks(&[Cluster, Assignment, Listener, Route], absent));
}

#[test]
fn of_several_services_that_labels_select_the_oldest_is_meant() {
    let labels = json!({ "kuma.io/display-name": "cart" });
    let by_labels = json!({ "kind": "MeshService", "labels": labels, "port": 80 });
    let mut zone = Zone::of(&[
        web_with(json!([{ "port": 3001, "backendRef": by_labels }])),
        remote("east", "cart").created(20),
        remote("a-south", "cart").created(30),
    ]);
    zone.certified.issued.lock().insert("web-1".into(), issued("web-1", 1));
    let mut stream = zone.connect_as("web-1", Traits::default()).unwrap();
    assert_eq!(stream.names(Listener), [EAST_CART]);
    zone.put(&local("cart").created(10));
    let all = [Cluster, Assignment, Listener, Route];
    let both: BTreeSet<_> = &marks(&all, EAST_CART) | &marks(&all, WEST_CART);
    assert_eq!(stream.marks(), both);
    assert_eq!(stream.names(Listener), [WEST_CART]);
}

#[test]
fn reachable_backends_limit_what_is_bound() {
    let by_name = json!({ "kind": "MeshService", "name": "pay" });
    let by_label = json!({
        "kind": "MeshService", "labels": { "kuma.io/zone": "east" }, "port": 80,
    });
    let mut web = web();
    web.spec["networking"]["transparentProxying"] =
        json!({ "reachableBackends": { "refs": [by_name, by_label] } });
    let ports = json!([{ "port": 80, "appProtocol": "tcp" }, { "port": 81, "appProtocol": "tcp" }]);
    let mut zone = Zone::of(&[
        web.clone(),
        local("pay").with("/ports", ports.clone()),
        local("cart"),
        remote("east", "cart").with("/ports", ports),
        remote("south", "cart"),
    ]);
    let mut stream = zone.connect("web-1");
    let both = ["kri_msvc_shop_west__pay_80", "kri_msvc_shop_west__pay_81"];
    assert_eq!(stream.names(Cluster), ["kri_msvc_shop_east__cart_80", both[0], both[1]]);
    web.spec["networking"]["transparentProxying"] = json!({ "reachableBackends": {} });
    zone.put(&web);
    assert_eq!(stream.names(Cluster), [""; 0]);
    assert!(stream.marks().contains(&(Cluster, both[0].to_owned())));
}

#[test]
fn a_policy_reaches_what_it_selects_and_only_where_it_changes_something() {
    let mut zone = Zone::of(&[web(), remote("east", "cart"), remote("east", "pay")]);
    let mut stream = zone.connect("web-1");
    let slow = timeout("slow", to_service("cart"), "40s");
    zone.put(&slow);
    assert_eq!(stream.marks(), marks(&[Route], EAST_CART));
    let mut draft = OutboundDraft::default();
    draft.route.timeout = Duration::from_secs(40);
    let route = generate::outbound_route(&outbound(EAST_CART, &[]), &draft).unwrap();
    assert_eq!(stream.get(Route, EAST_CART), Some(item(Route, &EAST_CART.into(), &route)));
    zone.put(&slow.clone().label("color", "red"));
    zone.put(&timeout("same", to_service("cart"), "40s"));
    zone.put(&timeout("not-here", to_service("absent"), "1s"));
    assert_eq!(stream.marks(), BTreeSet::new(), "the result is the same");
    zone.delete(&slow);
    assert_eq!(stream.marks(), BTreeSet::new(), "the other one says it as well");
    zone.delete(&timeout("same", to_service("cart"), "40s"));
    assert_eq!(stream.marks(), marks(&[Route], EAST_CART));
}

#[test]
fn of_policies_that_differ_by_name_only_one_wins_whether_they_or_the_proxy_came_first() {
    let alike = [("a", "40s"), ("b", "50s")];
    let alike = alike.map(|(name, request)| timeout(name, to_service("cart"), request));
    let rows = [web(), remote("east", "cart")];
    let mut before = Zone::of(&rows);
    let first = before.connect("web-1");
    alike.iter().for_each(|policy| before.put(policy));
    let mut after = Zone::of(&[&rows[..], &alike].concat());
    let second = after.connect("web-1");
    assert_eq!(second.get(Route, EAST_CART), first.get(Route, EAST_CART));
}

#[test]
fn a_policy_for_some_proxies_divides_them() {
    let mut zone = Zone::of(&[web(), sidecar("web", 2, json!([])), remote("east", "cart")]);
    let (mut one, mut two) = (zone.connect("web-1"), zone.connect("web-2"));
    assert_eq!(one.get(Route, EAST_CART), two.get(Route, EAST_CART));
    let gold = || sidecar("web", 2, json!([])).label("tier", "gold");
    let slow = |request| {
        let target = json!({ "kind": "Dataplane", "labels": { "tier": "gold" } });
        timeout("slow", to_service("cart"), request).with("/targetRef", target)
    };
    zone.put(&slow("40s"));
    zone.put(&gold());
    assert_eq!((one.marks(), two.marks()), (BTreeSet::new(), marks(&[Route], EAST_CART)));
    assert_ne!(one.get(Route, EAST_CART), two.get(Route, EAST_CART));
    zone.put(&slow("50s"));
    assert_eq!((one.marks(), two.marks()), (BTreeSet::new(), marks(&[Route], EAST_CART)));
    zone.delete(&slow("50s"));
    assert_eq!((one.marks(), two.marks()), (BTreeSet::new(), marks(&[Route], EAST_CART)));
    assert_eq!(one.get(Route, EAST_CART), two.get(Route, EAST_CART));
    zone.put(&slow("40s"));
    assert_eq!((one.marks(), two.marks()), (BTreeSet::new(), marks(&[Route], EAST_CART)));
}

#[test]
fn what_is_lost_from_the_history_is_looked_at_as_a_whole() {
    let mut zone = Zone::of(&[web(), remote("east", "cart"), remote("east", "pay")]);
    let mut stream = zone.connect("web-1");
    let many = (0..200).map(|n| remote("south", &format!("s-{n}")));
    let puts = many.map(|row| (row.kind, Edit::Put(Arc::new(row.resource()))));
    let gone = (mesh_service::KIND, Edit::Delete(remote("east", "pay").key()));
    zone.batch(puts.chain([gone]).collect());
    assert_eq!(stream.names(Cluster).len(), 201);
    assert!(stream.marks().contains(&(Cluster, "kri_msvc_shop_east__pay_http".into())));
    zone.put(&remote("east", "pay"));
    assert_eq!(stream.names(Cluster).len(), 202);
}

#[test]
fn a_service_that_cannot_be_read_stays_as_it_was() {
    let mut zone = Zone::of(&[web(), remote("east", "cart")]);
    let mut stream = zone.connect("web-1");
    let before = stream.everything();
    let resource = remote("east", "cart").resource();
    let head = resource.head.clone();
    let broken = resource::Resource { head, spec: "{".into(), ..resource };
    let edit = Edit::Put(Arc::new(broken));
    zone.batch(vec![(mesh_service::KIND, edit)]);
    assert_eq!((stream.marks(), stream.everything()), (BTreeSet::new(), before));
    let names: Vec<String> = zone.problems().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["cart-of-east"]);
}
