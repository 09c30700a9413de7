//! Proxies whose applications call replicas at their own addresses.

use super::*;
use crate::generate::{self, Destination};
use Type::{Cluster, Endpoint, Listener, Route};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
use xds::{Protocol, Type, draft::OutboundDraft, item, names, names::Sni};

const CART: &str = "kri_msvc_shop_west__cart_http";
const DB: &str = "kri_msvc_shop_west__db_tcp";
const FIELD: &str = "networking.transparentProxying.directAccessServices";

/// A client that calls these at the addresses of their replicas.
fn web(names: &[&str]) -> Row {
    directly(sidecar("web", 9, json!([])), names)
}

/// The same, and it calls nobody else.
fn alone(mut web: Row) -> Row {
    web.spec["networking"]["transparentProxying"]["reachableBackends"] = json!({});
    web
}

/// A service of TCP, and a replica of it.
fn db() -> Row {
    let port = json!({ "name": "tcp", "port": 5432, "targetPort": "tcp", "appProtocol": "tcp" });
    local("db").with("/ports/0", port)
}

fn db_at(number: u8) -> Row {
    sidecar("db", number, json!([tcp(5432)]))
}

fn cart_at(number: u8) -> Row {
    sidecar("cart", number, json!([http(8080)]))
}

fn marks(pairs: &[(Type, &str)]) -> BTreeSet<(Type, String)> {
    pairs.iter().map(|(kind, name)| (*kind, (*name).to_owned())).collect()
}

/// What it has for replicas, by type and without what all of these names begin with.
fn has(stream: &Stream, kind: Type) -> Vec<String> {
    let names = stream.names(kind);
    names.iter().filter_map(|name| names::directed(name)).map(str::to_owned).collect()
}

fn at(number: u8, port: u16) -> String {
    format!("direct_access_10.0.0.{number}:{port}")
}

fn destination(kri: &str, protocol: Protocol, workload: &str) -> Destination {
    let kri: resource::Kri = kri.parse().unwrap();
    let id = format!("spiffe://shop.west.mesh.local/workload/{workload}");
    let identities = [id.parse().unwrap()].into();
    Destination { sni: Sni::of(&kri).unwrap(), kri, protocol, identities }
}

#[test]
fn each_replica_of_a_service_that_is_named_has_a_listener_and_all_have_one_cluster() {
    let rows = [web(&["cart", "db"]), local("cart"), cart_at(1), cart_at(2), db(), db_at(3)];
    let mut zone = Zone::of(&rows);
    zone.put(&local("pay"));
    zone.put(&sidecar("pay", 4, json!([http(8080)])));
    let stream = zone.connect("web-9");
    assert_eq!(zone.problems(), []);
    assert_eq!(has(&stream, Listener), ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:5432"]);
    assert_eq!(has(&stream, Cluster), [CART, DB]);
    assert_eq!(has(&stream, Route), [CART], "the other one speaks TCP");
    assert_eq!(has(&stream, Endpoint), [""; 0]);

    let draft = OutboundDraft::default();
    let cart = destination(CART, Protocol::Http, "cart");
    let db = destination(DB, Protocol::Tcp, "db");
    for (destination, number, port) in [(&cart, 1, 8080), (&cart, 2, 8080), (&db, 3, 5432)] {
        let name = at(number, port);
        let address = names::directed(&name).unwrap().parse().unwrap();
        let listener = generate::direct_listener(destination, address, &draft.listener);
        let expected = item(Listener, &name.as_str().into(), &listener);
        assert_eq!(stream.get(Listener, &name), Some(expected));
    }
    for (kri, destination) in [(CART, &cart), (DB, &db)] {
        let name = names::direct(kri);
        let cluster = generate::direct_cluster(destination, &credentials(), &draft.cluster);
        let expected = item(Cluster, &name.as_str().into(), &cluster);
        assert_eq!(stream.get(Cluster, &name), Some(expected));
        let route = generate::direct_route(destination, &draft);
        let expected = route.map(|route| item(Route, &name.as_str().into(), &route));
        assert_eq!(stream.get(Route, &name), expected);
    }
    for absent in [at(4, 8080), at(1, 8081), at(9, 8080), names::direct("kri_x")] {
        let found = [Cluster, Listener, Route].map(|kind| stream.get(kind, &absent));
        assert_eq!(found, [None, None, None], "{absent}");
    }
}

#[test]
fn a_replica_that_comes_or_goes_is_a_listener_and_nothing_else() {
    let other = redirected(sidecar("other", 8, json!([])));
    let rows = [web(&["cart"]), alone(directly(sidecar("few", 7, json!([])), &["cart"])), other];
    let mut zone = Zone::of(&[&rows[..], &[local("cart"), cart_at(1)]].concat());
    let mut streams = ["web-9", "few-7", "other-8"].map(|name| zone.connect(name));
    let before = streams[1].everything();
    let listener = at(2, 8080);
    let expected = [
        marks(&[(Endpoint, CART), (Listener, &listener)]),
        marks(&[(Listener, &listener)]),
        marks(&[(Endpoint, CART)]),
    ];
    zone.put(&cart_at(2));
    assert_eq!(streams.each_mut().map(Stream::marks), expected);
    let mut now = streams[1].everything();
    assert!(now.remove(&(Listener, listener.clone())).is_some());
    assert_eq!(now, before);
    zone.put(&cart_at(2).label("color", "red"));
    assert_eq!(streams.each_mut().map(Stream::marks), [marks(&[]), marks(&[]), marks(&[])]);
    zone.delete(&cart_at(2));
    assert_eq!(streams.each_mut().map(Stream::marks), expected);
    assert_eq!(streams[1].everything(), before);
    assert_eq!(has(&streams[2], Listener), [""; 0]);
}

/// Else it would be called in clear meanwhile, and whoever is connected would lose that.
#[test]
fn a_replica_that_takes_no_calls_now_keeps_its_listener() {
    let mut zone = Zone::of(&[web(&["cart"]), local("cart"), cart_at(1)]);
    let mut stream = zone.connect("web-9");
    let mut one = cart_at(1);
    for state in ["NotReady", "Ignored"] {
        one.spec["networking"]["inbound"][0]["state"] = state.into();
        zone.put(&one);
        assert_eq!(has(&stream, Listener), ["10.0.0.1:8080"]);
    }
    assert_eq!(stream.marks(), marks(&[(Endpoint, CART)]));
}

#[test]
fn a_star_is_every_service_of_this_zone_but_never_the_proxy_itself() {
    let here = sidecar("web", 9, json!([http(7070)]));
    let mut zone = Zone::of(&[
        directly(here.clone(), &["db", "*"]),
        sidecar("web", 8, json!([http(7070)])),
        local("web"),
        local("cart"),
        cart_at(1),
        remote("east", "cart"),
        zone_address("east", "in-1", "192.0.2.1", 10_001),
    ]);
    let mut stream = zone.connect("web-9");
    assert_eq!(zone.problems(), []);
    assert_eq!(has(&stream, Listener), ["10.0.0.1:8080", "10.0.0.8:7070"]);
    assert_eq!(stream.get(Listener, &at(9, 7070)), None);
    assert_eq!(has(&stream, Cluster), [CART, "kri_msvc_shop_west__web_http"]);
    zone.put(&db());
    zone.put(&db_at(3));
    let (listener, cluster) = (at(3, 5432), names::direct(DB));
    let usual = [(Cluster, DB), (Endpoint, DB)];
    let own = [(Cluster, &*cluster), (Listener, &listener)];
    assert_eq!(stream.marks(), marks(&[usual, own].concat()));
    // Of itself nothing is said, wherever it goes.
    zone.put(&directly(here, &["*"]).at("10.0.0.7"));
    assert_eq!(has(&stream, Listener), ["10.0.0.1:8080", "10.0.0.3:5432", "10.0.0.8:7070"]);
    let expected =
        marks(&[(Endpoint, "kri_msvc_shop_west__web_http"), (Listener, "self_inbound_dp_http")]);
    assert_eq!(stream.marks(), expected);
}

/// As it is where one address is used again.
#[test]
fn a_proxy_that_moves_has_no_listener_for_who_was_there() {
    let mut zone = Zone::of(&[web(&["cart"]), local("cart"), cart_at(1), cart_at(2)]);
    let mut stream = zone.connect("web-9");
    zone.put(&web(&["cart"]).at("10.0.0.1"));
    assert_eq!(stream.marks(), marks(&[(Listener, &at(1, 8080))]));
    assert_eq!(has(&stream, Listener), ["10.0.0.2:8080"]);
    assert_eq!(stream.get(Listener, &at(1, 8080)), None);
    zone.delete(&cart_at(1));
    assert_eq!(stream.marks(), marks(&[(Endpoint, CART)]));
    zone.put(&cart_at(1));
    zone.put(&web(&["cart"]));
    assert_eq!(stream.marks(), marks(&[(Endpoint, CART), (Listener, &at(1, 8080))]));
    assert_eq!(has(&stream, Listener), ["10.0.0.1:8080", "10.0.0.2:8080"]);
}

#[test]
fn a_name_of_no_service_is_shown_and_followed_as_soon_as_there_is_one() {
    let said = ["cart", "cart-of-east", "db"];
    let mut zone = Zone::of(&[web(&said), remote("east", "cart"), cart_at(1)]);
    let mut stream = zone.connect("web-9");
    let problem = |names: &str| {
        let text = format!("{FIELD}: no service of this zone is called {names}");
        vec![("web-9".to_owned(), text)]
    };
    assert_eq!(zone.problems(), problem(r#""cart" or "cart-of-east" or "db""#));
    assert_eq!(has(&stream, Listener), [""; 0]);
    zone.put(&local("cart"));
    assert_eq!(zone.problems(), problem(r#""cart-of-east" or "db""#));
    let (listener, way) = (at(1, 8080), names::direct(CART));
    let usual = [(Cluster, CART), (Endpoint, CART), (Route, CART)];
    let own = [(Cluster, &*way), (Route, &*way), (Listener, &listener)];
    assert_eq!(stream.marks(), marks(&[usual, own].concat()));
    // Another one of that name, by its label.
    zone.put(&local("other").label("kuma.io/display-name", "db"));
    assert_eq!(zone.problems(), problem(r#""cart-of-east""#));
    zone.put(&web(&["cart"]));
    assert_eq!(zone.problems(), []);
    stream.marks();
    zone.delete(&local("cart"));
    assert_eq!(zone.problems(), problem(r#""cart""#));
    assert_eq!(stream.marks(), marks(&[usual, own].concat()));
    assert_eq!(has(&stream, Cluster), [""; 0]);
    zone.delete(&web(&[]));
    assert_eq!(zone.problems(), []);
}

#[test]
fn who_names_nobody_gets_nothing_more() {
    let rows = [redirected(sidecar("web", 9, json!([]))), local("cart"), cart_at(1)];
    let mut zone = Zone::of(&rows);
    let mut stream = zone.connect("web-9");
    let before = stream.everything();
    assert!(!before.keys().any(|(_, name)| names::directed(name).is_some()));
    zone.put(&web(&["absent"]));
    assert_eq!((stream.marks(), stream.everything()), (marks(&[]), before.clone()));
    zone.put(&web(&["cart"]));
    let (listener, way) = (at(1, 8080), names::direct(CART));
    let own = marks(&[(Cluster, &way), (Route, &way), (Listener, &listener)]);
    assert_eq!(stream.marks(), own);
    zone.put(&redirected(sidecar("web", 9, json!([]))));
    assert_eq!((stream.marks(), stream.everything()), (own, before));
}

#[test]
fn what_is_not_redirected_is_not_called_so_and_that_is_said() {
    let mut web = web(&["cart"]);
    web.spec["networking"]["transparentProxying"]["redirectPortOutbound"] = 0.into();
    let mut zone = Zone::of(&[web, local("cart"), cart_at(1)]);
    let stream = zone.connect("web-9");
    assert_eq!(has(&stream, Listener), [""; 0]);
    let why = format!("{FIELD}: not used, since connections are not redirected");
    assert_eq!(zone.problems(), [("web-9".to_owned(), why)]);
}

#[test]
fn all_that_is_wrong_with_a_dataplane_is_said() {
    let mut web = web(&["cart"]);
    let to_cart = json!({ "kind": "MeshService", "name": "cart", "port": 80 });
    web.spec["networking"]["outbound"] = json!([{ "port": 3001, "backendRef": to_cart }]);
    let zone = Zone::of(&[web]);
    let why = "networking.outbound: not used, since connections are redirected";
    let text = format!(r#"{why}; {FIELD}: no service of this zone is called "cart""#);
    assert_eq!(zone.problems(), [("web-9".to_owned(), text)]);
}

#[test]
fn which_services_are_reachable_is_another_question() {
    let mut few = web(&["cart"]);
    let only = json!({ "refs": [{ "kind": "MeshService", "name": "db" }] });
    few.spec["networking"]["transparentProxying"]["reachableBackends"] = only;
    let mut zone = Zone::of(&[few, local("cart"), cart_at(1), db(), db_at(3)]);
    let mut stream = zone.connect("web-9");
    let usual = |stream: &Stream| {
        let mut names = stream.names(Cluster);
        names.retain(|name| name.starts_with("kri_"));
        names
    };
    assert_eq!((usual(&stream), has(&stream, Cluster)), (vec![DB.to_owned()], vec![CART.into()]));
    assert_eq!(stream.names(Endpoint), [DB]);
    zone.put(&alone(web(&["cart"])));
    assert_eq!(stream.marks(), marks(&[(Cluster, DB), (Endpoint, DB)]));
    assert_eq!((usual(&stream), has(&stream, Cluster)), (vec![], vec![CART.into()]));
    zone.put(&cart_at(2));
    assert_eq!(stream.marks(), marks(&[(Listener, &at(2, 8080))]));
}

/// A Service of a cluster, and one of the pods behind a headless one.
#[test]
fn services_of_clusters_are_called_by_their_names_and_namespaces() {
    let of = |name: &str, display: &str, service: &str, namespace: &str| {
        let mut row = db();
        row.name = name.into();
        row.label("kuma.io/display-name", display)
            .label("k8s.kuma.io/namespace", namespace)
            .label("k8s.kuma.io/service-name", service)
            .with("/selector/dataplaneLabels/matchLabels/kuma.io~1workload", name.into())
    };
    let rows = [
        of("db.shop", "db", "db", "shop"),
        of("db-0-abc.shop", "db-0-abc", "each", "shop"),
        of("db.other", "db", "db", "other"),
        of("db", "db", "db", "kuma-system"),
    ];
    let mut zone = Zone::of(&rows);
    for (number, row) in (1..).zip(&rows) {
        zone.put(&sidecar(&row.name, number, json!([tcp(5432)])));
    }
    let all = ["10.0.0.1:5432", "10.0.0.2:5432", "10.0.0.3:5432", "10.0.0.4:5432"];
    zone.put(&web(&[]));
    let stream = zone.connect("web-9");
    for (name, which) in [
        ("db.shop", &[0][..]),
        ("each.shop", &[1]),
        ("db-0-abc.shop", &[1]),
        ("db.other", &[2]),
        ("db.kuma-system", &[3]),
        // Without a namespace, in whichever.
        ("db", &[0, 2, 3]),
        ("each", &[1]),
        ("*", &[0, 1, 2, 3]),
        ("shop", &[]),
        ("each.other", &[]),
    ] {
        zone.put(&web(&[name]));
        let expected: Vec<&str> = which.iter().map(|number: &usize| all[*number]).collect();
        assert_eq!(has(&stream, Listener), expected, "{name}");
        assert_eq!(zone.problems().is_empty(), !which.is_empty(), "{name}");
    }
}

/// A Dataplane may be behind two services, with one port.
#[test]
fn of_two_services_at_one_address_the_first_one_counts() {
    let mut other = local("also");
    let labels = json!({ "kuma.io/workload": "cart" });
    other = other.with("/selector/dataplaneLabels/matchLabels", labels);
    let mut zone = Zone::of(&[alone(web(&["cart", "also"])), local("cart"), cart_at(1)]);
    let mut stream = zone.connect("web-9");
    let listener = at(1, 8080);
    let before = stream.get(Listener, &listener);
    zone.put(&other);
    let way = names::direct("kri_msvc_shop_west__also_http");
    let expected = marks(&[(Cluster, &way), (Route, &way), (Listener, &listener)]);
    assert_eq!(stream.marks(), expected);
    assert_ne!(stream.get(Listener, &listener), before);
    assert_eq!(has(&stream, Listener), ["10.0.0.1:8080"]);
    zone.delete(&other);
    assert_eq!(stream.marks(), expected);
    assert_eq!(stream.get(Listener, &listener), before);
}

/// Envoy takes two listeners of one address for a mistake.
#[test]
fn where_a_pod_of_a_headless_service_is_called_there_is_no_second_listener() {
    let port = json!({ "name": "http", "port": 8080, "targetPort": "http", "appProtocol": "http" });
    let headless = local("each").vips(&["10.0.0.1"]).with("/ports/0", port);
    let mut zone = Zone::of(&[web(&["cart"]), local("cart"), cart_at(1), headless.clone()]);
    let mut stream = zone.connect("web-9");
    let each = "kri_msvc_shop_west__each_http";
    assert_eq!(has(&stream, Listener), [""; 0]);
    assert!(stream.get(Listener, each).is_some());
    assert_eq!(stream.get(Listener, &at(1, 8080)), None);
    zone.put(&headless.clone().vips(&["10.0.0.6"]));
    assert_eq!(stream.marks(), marks(&[(Listener, each), (Listener, &at(1, 8080))]));
    assert_eq!(has(&stream, Listener), ["10.0.0.1:8080"]);
    zone.put(&headless);
    assert_eq!(stream.marks(), marks(&[(Listener, each), (Listener, &at(1, 8080))]));
    assert_eq!(has(&stream, Listener), [""; 0]);
    // Whoever does not call that one has a listener of the other sort.
    zone.put(&alone(web(&["cart"])));
    assert_eq!(has(&stream, Listener), ["10.0.0.1:8080"]);
    assert!(stream.marks().contains(&(Listener, at(1, 8080))));
}

#[test]
fn policies_about_calls_of_a_service_are_about_its_replicas_as_well() {
    let mut zone = Zone::of(&[web(&["*"]), local("cart"), cart_at(1), db(), db_at(3), db_at(4)]);
    let mut stream = zone.connect("web-9");
    let (cart, db) = (names::direct(CART), names::direct(DB));
    zone.put(&timeout("slow", to_service("cart"), "40s"));
    assert_eq!(stream.marks(), marks(&[(Route, CART), (Route, &cart)]));
    let mut draft = OutboundDraft::default();
    draft.route.timeout = Duration::from_secs(40);
    let route = generate::direct_route(&destination(CART, Protocol::Http, "cart"), &draft);
    let expected = item(Route, &cart.as_str().into(), &route.unwrap());
    assert_eq!(stream.get(Route, &cart), Some(expected));
    let conf = |text: &str| json!({ "idleTimeout": text, "connectionTimeout": "7s" });
    let quiet = timeout("quiet", to_service("db"), "1s").with("/to/0/default", conf("9s"));
    let before = stream.get(Listener, &at(3, 5432));
    zone.put(&quiet);
    let both =
        [(Listener, &*at(3, 5432)), (Listener, &at(4, 5432))].map(|(a, b)| (a, b.to_owned()));
    let mut expected = marks(&[(Cluster, DB), (Cluster, &db)]);
    expected.extend(both);
    assert_eq!(stream.marks(), expected);
    assert_ne!(stream.get(Listener, &at(3, 5432)), before);
    zone.delete(&quiet);
    assert_eq!(stream.marks(), expected);
    assert_eq!(stream.get(Listener, &at(3, 5432)), before);
}

#[test]
fn who_may_answer_is_who_may_answer_for_the_service() {
    let mut zone = Zone::of(&[alone(web(&["cart"])), local("cart"), cart_at(1)]);
    let mut stream = zone.connect("web-9");
    let way = names::direct(CART);
    let other: Value = "spiffe://shop.west.mesh.local/workload/other".into();
    zone.put(&local("cart").with("/identities/0/value", other));
    assert_eq!(stream.marks(), marks(&[(Cluster, &way)]));
    let destination = destination(CART, Protocol::Http, "other");
    let draft = OutboundDraft::default().cluster;
    let cluster = generate::direct_cluster(&destination, &credentials(), &draft);
    assert_eq!(stream.get(Cluster, &way), Some(item(Cluster, &way.as_str().into(), &cluster)));
    zone.put(&local("cart").with("/identities", json!([])));
    assert_eq!(has(&stream, Listener), [""; 0], "nobody can prove to be it");
    let expected =
        [(Cluster, &*way), (Route, &way), (Listener, &at(1, 8080))].map(|(a, b)| (a, b.to_owned()));
    assert_eq!(stream.marks(), expected.into());
}

#[test]
fn what_is_spoken_makes_other_listeners() {
    let mut zone = Zone::of(&[alone(web(&["cart"])), local("cart"), cart_at(1)]);
    let mut stream = zone.connect("web-9");
    zone.put(&local("cart").with("/ports/0/appProtocol", "tcp".into()));
    let (listener, way) = (at(1, 8080), names::direct(CART));
    let expected = marks(&[(Cluster, &way), (Route, &way), (Listener, &listener)]);
    assert_eq!(stream.marks(), expected);
    let destination = destination(CART, Protocol::Tcp, "cart");
    let draft = OutboundDraft::default().listener;
    let made = generate::direct_listener(&destination, "10.0.0.1:8080".parse().unwrap(), &draft);
    let expected = item(Listener, &listener.as_str().into(), &made);
    assert_eq!(stream.get(Listener, &listener), Some(expected));
}

#[test]
fn what_proxies_get_alike_is_made_once_and_does_not_stay() {
    let mut zone = Zone::of(&[local("cart"), cart_at(1), cart_at(2)]);
    let connected = (10..30).map(|number| {
        zone.put(&alone(directly(sidecar("web", number, json!([])), &["cart"])));
        zone.connect(&format!("web-{number}"))
    });
    let streams: Vec<Stream> = connected.collect();
    let read = |zone: &Zone| {
        for stream in &streams {
            for kind in [Listener, Cluster, Route] {
                for name in has(stream, kind) {
                    stream.get(kind, &names::direct(&name)).unwrap();
                }
            }
        }
        zone.made()
    };
    let before = zone.made();
    assert_eq!(read(&zone) - before, 4);
    zone.delete(&cart_at(2));
    assert_eq!(read(&zone) - before, 4);
    zone.put(&cart_at(2));
    assert_eq!(read(&zone) - before, 5, "what was made for it went with it");
}

#[test]
fn a_policy_for_some_proxies_divides_their_ways() {
    let gold = || alone(directly(sidecar("web", 8, json!([])), &["cart"])).label("tier", "gold");
    let mut zone = Zone::of(&[alone(web(&["cart"])), gold(), local("cart"), cart_at(1)]);
    let (mut one, mut two) = (zone.connect("web-9"), zone.connect("web-8"));
    let way = names::direct(CART);
    assert_eq!(one.get(Route, &way), two.get(Route, &way));
    let target = json!({ "kind": "Dataplane", "labels": { "tier": "gold" } });
    let slow = timeout("slow", to_service("cart"), "40s").with("/targetRef", target);
    zone.put(&slow);
    assert_eq!((one.marks(), two.marks()), (marks(&[]), marks(&[(Route, &way)])));
    assert_ne!(one.get(Route, &way), two.get(Route, &way));
    zone.put(&cart_at(2));
    let listener = marks(&[(Listener, &at(2, 8080))]);
    assert_eq!((one.marks(), two.marks()), (listener.clone(), listener));
    zone.delete(&slow);
    assert_eq!((one.marks(), two.marks()), (marks(&[]), marks(&[(Route, &way)])));
    assert_eq!(one.get(Route, &way), two.get(Route, &way));
}

/// A proxy without a certificate cannot show who calls.
#[test]
fn without_a_certificate_nobody_is_called_so() {
    let mut zone = Zone::of(&[alone(web(&["cart"])), local("cart"), cart_at(1)]);
    let mut stream = zone.connect_as("web-9", Default::default()).unwrap();
    assert_eq!(has(&stream, Listener), [""; 0]);
    for serial in 1..3 {
        zone.certified.issued.lock().insert("web-9".into(), issued("web-9", serial));
        zone.meshes.reidentify(&web(&[]).key());
        zone.settle();
        let (listener, way) = (at(1, 8080), names::direct(CART));
        let mut expected = marks(&[(Type::Secret, "kri_mid_shop___identity_")]);
        if serial == 1 {
            expected.extend(marks(&[(Cluster, &way), (Route, &way), (Listener, &listener)]));
        }
        assert_eq!(stream.marks(), expected);
    }
}
