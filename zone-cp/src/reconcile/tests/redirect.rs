//! Proxies to whom the kernel hands connections.

use super::*;
use crate::generate::{self, Family, Leaving, Outbound, Outside};
use Type::{Cluster, Endpoint, Listener, Route, Secret};
use serde_json::json;
use std::collections::BTreeSet;
use xds::{
    Protocol, Type,
    draft::{OutboundDraft, Speaks},
    item,
};

const CART: &str = "kri_msvc_shop_east__cart_http";
const OUT: [&str; 2] = [
    "self_transparentproxy_passthrough_outbound_ipv4",
    "self_transparentproxy_passthrough_outbound_ipv6",
];
const IN: [&str; 2] = [
    "self_transparentproxy_passthrough_inbound_ipv4",
    "self_transparentproxy_passthrough_inbound_ipv6",
];

fn marks(pairs: &[(Type, &str)]) -> BTreeSet<(Type, String)> {
    pairs.iter().map(|(kind, name)| (*kind, (*name).to_owned())).collect()
}

fn web() -> Row {
    sidecar("web", 1, json!([]))
}

fn names(stream: &Stream, kind: Type) -> BTreeSet<String> {
    stream.names(kind).into_iter().collect()
}

fn all(names: &[&[&str]]) -> BTreeSet<String> {
    names.concat().into_iter().map(str::to_owned).collect()
}

#[test]
fn one_listener_of_each_direction_and_family_binds_and_services_do_not() {
    let cart = remote("east", "cart").vips(&["241.0.0.9"]);
    let mut zone = Zone::of(&[redirected(web()), cart]);
    zone.certified.issued.lock().insert("web-1".into(), issued("web-1", 1));
    // It does not say that it binds virtual addresses, and need not.
    let stream = zone.connect_as("web-1", Default::default()).unwrap();
    assert_eq!(names(&stream, Listener), all(&[&[CART], &OUT, &IN]));
    assert_eq!(names(&stream, Cluster), all(&[&[CART], &OUT, &IN]));
    let outbound = Outbound {
        kri: CART.parse().unwrap(),
        protocol: Protocol::Http,
        binds: ["241.0.0.9:80".parse().unwrap()].into(),
        redirected: true,
    };
    let listener = generate::outbound_listener(&outbound, &OutboundDraft::default().listener);
    let listener = listener.unwrap();
    assert_eq!(listener.bind_to_port, Some(false));
    assert_eq!(stream.get(Listener, CART), Some(item(Listener, &CART.into(), &listener)));
    let leaving = Leaving { family: Family::V4, port: 15001, places: [].into() };
    let expected = generate::leaving_listener(OUT[0], &leaving);
    assert_eq!(stream.get(Listener, OUT[0]), Some(item(Listener, &OUT[0].into(), &expected)));
    let original = Outside::Original { from: None, speaks: Speaks::Bytes };
    let expected = generate::outside_cluster(OUT[0], &original);
    assert_eq!(stream.get(Cluster, OUT[0]), Some(item(Cluster, &OUT[0].into(), &expected)));
}

/// A proxy without a certificate calls nobody of the mesh, and its application still runs.
#[test]
fn what_is_outside_the_mesh_needs_no_certificate() {
    let mut zone = Zone::of(&[redirected(web())]);
    let stream = zone.connect_as("web-1", Default::default()).unwrap();
    assert_eq!(names(&stream, Listener), all(&[&OUT, &IN]));
}

#[test]
fn a_new_service_changes_no_listener_that_binds() {
    let mut zone = Zone::of(&[redirected(web())]);
    let mut stream = zone.connect("web-1");
    zone.put(&remote("east", "cart").vips(&["241.0.0.9"]));
    let expected = [(Cluster, CART), (Endpoint, CART), (Listener, CART), (Route, CART)];
    assert_eq!(stream.marks(), marks(&expected));
}

#[test]
fn a_proxy_whose_connections_are_redirected_gets_listeners_in_place_of_those_it_bound() {
    let cart = remote("east", "cart").vips(&["241.0.0.9"]);
    let serving = || sidecar("web", 1, json!([http(8080)]));
    let mut zone = Zone::of(&[serving(), cart]);
    let mut stream = zone.connect("web-1");
    let before = stream.get(Listener, CART);
    assert_eq!(names(&stream, Listener), all(&[&[CART, "self_inbound_dp_http"]]));
    zone.put(&redirected(serving()));
    let mut expected = marks(&[
        (Listener, CART),
        (Listener, "self_inbound_dp_http"),
        (Cluster, "self_inbound_dp_http"),
    ]);
    for name in OUT.into_iter().chain(IN) {
        expected.extend(marks(&[(Listener, name), (Cluster, name)]));
    }
    assert_eq!(stream.marks(), expected);
    assert_ne!(stream.get(Listener, CART), before);
    zone.put(&serving());
    assert_eq!(stream.marks(), expected);
    assert_eq!(stream.get(Listener, CART), before);
}

/// As a pod of a headless Service is.
#[test]
fn a_proxy_that_is_called_at_its_own_address_listens_there_for_its_callers_only() {
    let here = sidecar("web", 1, json!([http(8080)]));
    let cart = remote("east", "cart").vips(&["10.0.0.1"]);
    let mut zone = Zone::of(&[redirected(here), redirected(sidecar("web", 2, json!([]))), cart]);
    let mut stream = zone.connect("web-1");
    let own = all(&[&["self_inbound_dp_http"], &OUT, &IN]);
    assert_eq!((names(&stream, Listener), stream.get(Listener, CART)), (own, None));
    assert!(stream.get(Cluster, CART).is_some());
    let neighbour = zone.connect("web-2");
    assert!(neighbour.get(Listener, CART).is_some());
    zone.put(&remote("east", "cart").vips(&["241.0.0.9"]));
    assert!(stream.marks().contains(&(Listener, CART.to_owned())));
    assert!(stream.get(Listener, CART).is_some());
}

#[test]
fn only_the_family_and_direction_that_are_redirected_have_listeners() {
    let mut one = redirected(web());
    one.spec["networking"]["transparentProxying"] =
        json!({ "redirectPortOutbound": 15001, "ipFamilyMode": "IPv4" });
    let mut zone = Zone::of(&[one]);
    let stream = zone.connect("web-1");
    assert_eq!(stream.names(Listener), [OUT[0]]);
    let v6 = json!([{ "name": "http", "port": 8080, "protocol": "http", "address": "fd00::1" }]);
    let mut one = redirected(sidecar("web", 1, v6));
    one.spec["networking"]["transparentProxying"]["ipFamilyMode"] = "IPv4".into();
    zone.put(&one);
    let bound = |stream: &Stream| stream.get(Listener, "self_inbound_dp_http").unwrap();
    let binds = bound(&stream);
    one.spec["networking"]["transparentProxying"]["ipFamilyMode"] = "DualStack".into();
    zone.put(&one);
    assert_ne!(bound(&stream), binds, "an address that is not redirected is bound");
}

/// They are for applications that know their sidecar.
#[test]
fn outbounds_that_are_named_are_not_used_and_that_is_said() {
    let mut web = redirected(web());
    let to_cart = json!({ "kind": "MeshService", "name": "cart-of-east", "port": 80 });
    web.spec["networking"]["outbound"] = json!([{ "port": 3001, "backendRef": to_cart }]);
    let mut zone = Zone::of(&[web, remote("east", "cart")]);
    let stream = zone.connect("web-1");
    assert_eq!(names(&stream, Listener), all(&[&OUT, &IN]));
    let why = "networking.outbound: not used, since connections are redirected";
    assert_eq!(zone.problems(), [("web-1".to_owned(), why.to_owned())]);
}

#[test]
fn reachable_backends_limit_what_has_a_listener() {
    let mut web = redirected(web());
    let only = json!({ "refs": [{ "kind": "MeshService", "name": "cart-of-east" }] });
    web.spec["networking"]["transparentProxying"]["reachableBackends"] = only;
    let services = ["cart", "pay"].map(|name| remote("east", name).vips(&["241.0.0.9"]));
    let mut zone = Zone::of(&[&[web][..], &services].concat());
    let stream = zone.connect("web-1");
    assert_eq!(names(&stream, Listener), all(&[&[CART], &OUT, &IN]));
}

/// What listens for services stays as it is, and so does the listener that hands connections on.
#[test]
fn without_passthrough_only_the_clusters_are_gone() {
    let cart = remote("east", "cart").vips(&["241.0.0.9"]);
    let mut zone = Zone::of(&[redirected(web()), cart]);
    let mut stream = zone.connect("web-1");
    let none = passthrough("none", json!({ "passthroughMode": "None" }));
    zone.put(&none);
    assert_eq!(stream.marks(), marks(&[(Cluster, OUT[0]), (Cluster, OUT[1])]));
    assert_eq!(names(&stream, Cluster), all(&[&[CART], &IN]));
    assert_eq!(stream.get(Cluster, OUT[0]), None);
    zone.put(&passthrough("none", json!({})));
    assert_eq!(stream.marks(), marks(&[]), "to let nothing through is to let no place through");
    zone.delete(&none);
    assert_eq!(stream.marks(), marks(&[(Cluster, OUT[0]), (Cluster, OUT[1])]));
    assert_eq!(names(&stream, Cluster), all(&[&[CART], &OUT, &IN]));
}

#[test]
fn places_have_chains_of_the_listener_and_clusters_and_routes_of_their_own() {
    let cart = remote("east", "cart").vips(&["241.0.0.9"]);
    let mut zone = Zone::of(&[redirected(web()), cart]);
    let mut stream = zone.connect("web-1");
    let database = json!({ "type": "IP", "value": "192.0.2.9", "port": 5432 });
    let host =
        |name: &str| json!({ "type": "Domain", "value": name, "port": 80, "protocol": "http" });
    let these =
        |places: &[&serde_json::Value]| passthrough("some", json!({ "appendMatch": places }));
    let (one, two) = (host("one.example"), host("two.example"));
    zone.put(&these(&[&database, &one]));
    let (tcp, http) = ("meshpassthrough_tcp_192.0.2.9_5432", "meshpassthrough_http_one.example_80");
    let route = "meshpassthrough_http_80";
    let both = [(Listener, OUT[0]), (Listener, OUT[1]), (Cluster, OUT[0]), (Cluster, OUT[1])];
    let places = [(Cluster, tcp), (Cluster, http), (Route, route)];
    assert_eq!(stream.marks(), marks(&[&both[..], &places].concat()));
    let other = "meshpassthrough_http_two.example_80";
    zone.put(&these(&[&database, &one, &two]));
    // What tells hosts apart is not the listener, so nothing drains.
    assert_eq!(stream.marks(), marks(&[(Cluster, other), (Route, route)]));
}

#[test]
fn a_policy_about_the_outside_is_for_those_whom_it_selects() {
    let gold = redirected(sidecar("web", 2, json!([]))).label("tier", "gold");
    let mut zone = Zone::of(&[redirected(web()), gold, sidecar("web", 3, json!([]))]);
    let mut streams = ["web-1", "web-2", "web-3"].map(|name| zone.connect(name));
    let target = json!({ "kind": "Dataplane", "labels": { "tier": "gold" } });
    zone.put(&passthrough("none", json!({ "passthroughMode": "None" })).with("/targetRef", target));
    let expected = [marks(&[]), marks(&[(Cluster, OUT[0]), (Cluster, OUT[1])]), marks(&[])];
    assert_eq!(streams.each_mut().map(Stream::marks), expected);
    zone.put(&passthrough("none", json!({ "passthroughMode": "None" })));
    let expected = [marks(&[(Cluster, OUT[0]), (Cluster, OUT[1])]), marks(&[]), marks(&[])];
    assert_eq!(streams.each_mut().map(Stream::marks), expected);
}

#[test]
fn what_redirected_proxies_get_alike_is_made_once() {
    let mut zone = Zone::of(&[]);
    let connected = (1..=20).map(|number| {
        zone.put(&redirected(sidecar("web", number, json!([]))));
        zone.connect(&format!("web-{number}"))
    });
    let streams: Vec<Stream> = connected.collect();
    let before = zone.made();
    let read = |zone: &Zone| {
        for stream in &streams {
            for kind in [Listener, Cluster, Route, Secret] {
                let ours = |name: &&String| name.starts_with("self_") || name.starts_with("mesh");
                stream
                    .names(kind)
                    .iter()
                    .filter(ours)
                    .for_each(|name| drop(stream.get(kind, name)));
            }
        }
        zone.made()
    };
    assert_eq!(read(&zone) - before, 8);
    let place = json!({ "type": "IP", "value": "192.0.2.9" });
    zone.put(&passthrough("one", json!({ "appendMatch": [place] })));
    let before = zone.made();
    // The listeners for IPv6 know nothing of an address of IPv4, and those of incoming ones of none.
    assert_eq!(read(&zone) - before, 2);
}

#[test]
fn an_inbound_that_comes_is_one_more_port_that_is_not_passed_on() {
    let mut zone = Zone::of(&[redirected(sidecar("web", 1, json!([http(8080)])))]);
    let mut stream = zone.connect("web-1");
    zone.put(&redirected(sidecar("web", 1, json!([http(8081)]))));
    let mut expected = marks(&[(Listener, IN[0]), (Listener, IN[1])]);
    expected
        .extend(marks(&[(Listener, "self_inbound_dp_http"), (Cluster, "self_inbound_dp_http")]));
    assert_eq!(stream.marks(), expected);
}
