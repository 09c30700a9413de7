//! What is redirected to a proxy.

use super::*;
use std::net::IpAddr;
use xds::{
    Type,
    draft::{At, Passthrough, Place, Speaks},
};

fn redirection() -> Redirection {
    Redirection {
        families: [Family::V4, Family::V6].into(),
        outbound: Some(15001),
        inbound: Some(15006),
        served: [28_080, 29_080].into(),
    }
}

fn network(text: &str) -> At {
    At::Network(text.parse().unwrap())
}

fn place(port: Option<u16>, at: At, speaks: Speaks) -> Place {
    Place { port, at, speaks }
}

fn places(all: &[Place]) -> Passthrough {
    Passthrough::Places(all.iter().cloned().collect())
}

fn put(redirection: &Redirection, passthrough: &Passthrough, resources: &mut golden::Resources) {
    for ((_, name), part) in redirection.parts(passthrough) {
        match part {
            Part::Outbound(it) => resources.listeners.push(leaving_listener(&name, &it)),
            Part::Inbound(it) => resources.listeners.push(arriving_listener(&name, &it)),
            Part::Cluster(it) => resources.clusters.push(outside_cluster(&name, &it)),
            Part::Route(it) => resources.routes.push(outside_route(&name, &it)),
        }
    }
}

#[test]
fn a_workload_that_knows_nothing_of_its_sidecar() {
    let cart = "kri_msvc_shop_east__cart_http";
    let east = "spiffe://shop.east.mesh.local/workload/cart";
    let outbound = Outbound {
        redirected: true,
        ..outbound(cart, Protocol::Http, &["241.0.0.9:80", "[fd00::9]:80"])
    };
    let endpoints = [endpoint(1, "east", "127.2.0.10:21001")];
    let called = (destination(cart, Protocol::Http, &[east]), outbound, endpoints.into());
    let mut resources = outbound_files(&[called]);
    let inbound = Inbound { redirected: true, ..http_inbound() };
    let draft = InboundDraft::default();
    resources.listeners.push(inbound_listener(&inbound, &credentials(), &draft.listener, None));
    resources.routes.extend(inbound_route(&inbound, &draft));
    resources.clusters.push(inbound_cluster(&inbound, &draft.cluster));
    put(&redirection(), &Passthrough::Everything, &mut resources);
    check("sidecar-redirected", &resources);
}

/// Replicas of a service of HTTP and of one of TCP, which its application calls one by one.
#[test]
fn replicas_that_are_called_at_their_own_addresses() {
    let (credentials, mut draft) = (credentials(), OutboundDraft::default());
    draft.cluster.connect_timeout = Duration::from_secs(3);
    draft.route.timeout = Duration::from_secs(4);
    let cart = "spiffe://shop.east.mesh.local/workload/cart";
    let cart = destination("kri_msvc_shop_east__cart_http", Protocol::Http, &[cart]);
    let redis = "spiffe://shop.east.mesh.local/workload/redis";
    let redis = destination("kri_msvc_shop_east__redis_redis", Protocol::Tcp, &[redis]);
    let mut resources = golden::Resources::default();
    for (destination, address) in
        [(&cart, "127.2.0.7:28080"), (&cart, "[fd00::7]:28080"), (&redis, "127.2.0.9:26379")]
    {
        resources.listeners.push(direct_listener(destination, at(address), &draft.listener));
    }
    for destination in [&cart, &redis] {
        resources.clusters.push(direct_cluster(destination, &credentials, &draft.cluster));
        resources.routes.extend(direct_route(destination, &draft));
    }
    resources.secrets.push(identity_secret(&identity(), "CHAIN", "KEY"));
    resources.secrets.extend(trust_secret(&trust()));
    check("sidecar-direct", &resources);
}

#[test]
fn places_outside_of_the_mesh() {
    let http = Speaks::Requests(Protocol::Http);
    let all = [
        place(None, network("10.0.0.0/8"), Speaks::Bytes),
        place(Some(5432), network("10.1.2.3/32"), Speaks::Bytes),
        place(Some(3306), network("10.1.2.4/32"), Speaks::MySql),
        place(Some(8080), network("192.0.2.0/24"), http),
        place(None, network("fd00::/8"), Speaks::Tls),
        place(Some(443), At::Host("api.example.com".into()), Speaks::Tls),
        place(Some(443), At::Under("example.com".into()), Speaks::Tls),
        place(Some(8443), At::Anywhere, Speaks::Tls),
        place(Some(80), At::Host("www.example.com".into()), http),
        place(Some(80), At::Under("example.org".into()), http),
        place(Some(80), At::Host("grpc.example.com".into()), Speaks::Requests(Protocol::Grpc)),
        place(Some(81), At::Anywhere, Speaks::Requests(Protocol::Http2)),
    ];
    let mut resources = golden::Resources::default();
    let only = Redirection { inbound: None, ..redirection() };
    put(&only, &places(&all), &mut resources);
    check("sidecar-passthrough", &resources);
}

#[test]
fn to_let_nothing_through_is_to_have_no_cluster_for_it() {
    let redirection = redirection();
    let everything = redirection.parts(&Passthrough::Everything);
    let nothing = redirection.parts(&places(&[]));
    let gone: Vec<_> = everything.keys().filter(|key| !nothing.contains_key(*key)).collect();
    let cluster = |version| (Type::Cluster, xds::names::passthrough_outbound(version));
    assert_eq!(gone, [&cluster(4), &cluster(6)]);
    assert!(nothing.iter().all(|(key, part)| everything.get(key) == Some(part)));
}

#[test]
fn without_ports_or_families_nothing_is_redirected() {
    let none = Redirection { outbound: None, inbound: None, ..redirection() };
    assert_eq!(none.parts(&Passthrough::Everything), [].into());
    let place = place(Some(80), At::Anywhere, Speaks::Requests(Protocol::Http));
    assert_eq!(none.parts(&places(&[place])), [].into());
    let none = Redirection { families: [].into(), ..redirection() };
    assert_eq!(none.parts(&Passthrough::Everything), [].into());
}

#[test]
fn a_place_of_a_family_that_is_not_redirected_is_left_out() {
    let v4 = Redirection { families: [Family::V4].into(), inbound: None, ..redirection() };
    let parts = v4.parts(&places(&[place(None, network("fd00::/8"), Speaks::Bytes)]));
    let name = xds::names::passthrough_outbound(4);
    let leaving = Leaving { family: Family::V4, port: 15001, places: [].into() };
    assert_eq!(parts, [((Type::Listener, name), Part::Outbound(leaving))].into());
}

/// The kernel would hand the calls of the proxy to its own application back to it.
#[test]
fn an_application_is_called_from_an_address_that_is_not_redirected() {
    let source = |application: &str, redirected| {
        let inbound = Inbound { application: at(application), redirected, ..tcp_inbound() };
        let cluster = inbound_cluster(&inbound, &InboundDraft::default().cluster);
        let source = cluster.upstream_bind_config?.source_address?.address;
        Some(source.parse::<IpAddr>().unwrap())
    };
    let [v4, v6] = [Family::V4, Family::V6].map(|family| Some(Family::source(family)));
    assert_eq!(source("127.0.0.1:80", true), v4);
    assert_eq!(source("10.0.0.1:80", true), v4);
    assert_eq!(source("[fd00::1]:80", true), v6);
    // What goes there is not redirected.
    assert_eq!(source("[::1]:80", true), None);
    assert_eq!(source("10.0.0.1:80", false), None);
}

/// The filters that look at connections, and where they do not.
fn looking(all: &[Place]) -> Vec<String> {
    let places = all.iter().cloned().collect();
    let leaving = Leaving { family: Family::V4, port: 15001, places };
    let listener = leaving_listener("x", &leaving);
    assert_eq!(listener.continue_on_listener_filters_timeout, listener.listener_filters.len() > 1);
    let filters = listener.listener_filters.iter().skip(1);
    filters.map(|filter| format!("{:?}", filter.filter_disabled)).collect()
}

#[test]
fn who_speaks_second_is_not_kept_waiting() {
    let bytes = place(None, network("10.0.0.0/8"), Speaks::Bytes);
    let mysql = place(Some(3306), network("10.0.0.0/8"), Speaks::MySql);
    let tls = |port: Option<u16>| place(port, At::Under("example".into()), Speaks::Tls);
    assert_eq!(looking(&[]), [""; 0]);
    assert_eq!(looking(&[bytes.clone(), mysql.clone()]), [""; 0]);
    assert_eq!(looking(&[mysql.clone(), tls(Some(3306))]), [""; 0]);
    let some = looking(&[bytes, mysql.clone(), tls(Some(443))]);
    let [one, two] = &some[..] else { panic!("{some:?}") };
    assert!(one == two && one.contains("NotMatch") && one.contains("start: 443"), "{one}");
    assert!(!one.contains("3306"), "{one}");
    let all = looking(&[mysql, tls(None)]);
    assert!(all[0].contains("start: 3306, end: 3307") && !all[0].contains("NotMatch"), "{all:?}");
    assert_eq!(looking(&[tls(None)]), ["None", "None"]);
}
