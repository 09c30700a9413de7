//! Proxies whose certificates a SPIRE agent has.

use super::*;
use Type::{Cluster, Extension, Listener, Route, Runtime, Secret};
use serde_json::json;
use std::collections::BTreeSet;
use xds::{
    Type,
    names::{RUNTIME, TRUST_BUNDLE},
};

const HTTP: &str = "self_inbound_dp_http";
const TCP: &str = "self_inbound_dp_tcp";
const IDENTITY: &str = "kri_mid_shop___identity_";
const WEB: &str = "spiffe://shop.west.mesh.local/workload/web";
const ADMIN: &str = "spiffe://shop.west.mesh.local/workload/admin";
const PAY: &str = "kri_msvc_shop_east__pay_http";

fn marks(pairs: &[(Type, &str)]) -> BTreeSet<(Type, String)> {
    pairs.iter().map(|(kind, name)| (*kind, (*name).to_owned())).collect()
}

fn zone() -> Zone {
    let cart = sidecar("cart", 1, json!([http(8080), tcp(9000)]));
    let pay = remote("east", "pay").vips(&["241.0.0.3"]);
    Zone::of(&[cart, pay, zone_address("east", "in", "192.0.2.1", 10_001)])
}

impl Zone {
    /// Its proxy is identified so from now on.
    fn certify(&mut self, issued: crate::identities::Issued) {
        self.certified.issued.lock().insert("cart-1".into(), issued);
        self.meshes.reidentify(&sidecar("cart", 1, json!([])).key());
        self.settle();
    }
}

fn says(item: &delta::Item, text: &str) -> bool {
    item.bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn such_a_proxy_gets_no_secret_and_is_told_whom_to_ask() {
    let mut zone = zone();
    zone.certified.issued.lock().insert("cart-1".into(), by_agent("cart-1", 1));
    let stream = zone.connect_as("cart-1", BINDS).unwrap();
    assert_eq!(stream.names(Secret), Vec::<String>::new());
    for name in [TCP, IDENTITY, TRUST_BUNDLE] {
        assert_eq!(stream.get(Secret, name), None);
    }
    let id = "spiffe://shop.west.mesh.local/workload/cart";
    for (kind, name) in [(Listener, HTTP), (Listener, TCP), (Cluster, PAY)] {
        let item = stream.get(kind, name).unwrap();
        for text in [id, "ALL", xds::names::SPIRE_AGENT] {
            assert!(says(&item, text), "{name}: no {text}");
        }
        assert!(!says(&item, TRUST_BUNDLE) && !says(&item, IDENTITY), "{name}");
    }
}

#[test]
fn whom_its_listener_of_tcp_lets_through_stands_in_the_listener() {
    let mut zone = zone();
    zone.put(&permission("p", &[WEB]));
    zone.certified.issued.lock().insert("cart-1".into(), by_agent("cart-1", 1));
    let mut stream = zone.connect_as("cart-1", BINDS).unwrap();
    zone.put(&permission("p", &[WEB, ADMIN]));
    let widened = [(Route, HTTP), (Extension, TCP), (Secret, TCP), (Listener, TCP)];
    assert_eq!(stream.marks(), marks(&widened));
    assert!(says(&stream.get(Listener, TCP).unwrap(), ADMIN));
    zone.put(&permission("p", &[WEB]));
    let narrowed = [&widened[..], &[(Runtime, RUNTIME)]].concat();
    assert_eq!(stream.marks(), marks(&narrowed));
    assert!(!says(&stream.get(Listener, TCP).unwrap(), ADMIN));

    // A second policy admits nobody else: the permission is another one, its callers are the same.
    zone.put(&permission("q", &[WEB]));
    assert_eq!(stream.marks(), marks(&[(Route, HTTP), (Extension, TCP), (Secret, TCP)]));
}

#[test]
fn who_has_it_may_change() {
    let mut zone = zone();
    let mut stream = zone.connect("cart-1");
    let both = [
        (Cluster, PAY),
        (Listener, HTTP),
        (Listener, TCP),
        (Secret, TCP),
        (Secret, IDENTITY),
        (Secret, TRUST_BUNDLE),
    ];
    let before = stream.everything();
    zone.certify(by_agent("cart-1", 1));
    assert_eq!(stream.marks(), marks(&both));
    let there = stream.everything();
    assert!(there.keys().all(|(kind, _)| *kind != Secret));

    // The agent renews by itself.
    zone.certify(by_agent("cart-1", 1));
    assert_eq!(stream.marks(), BTreeSet::new());
    zone.certify(by_agent("cart-1", 2));
    assert_eq!(stream.marks(), marks(&[(Cluster, PAY), (Listener, HTTP), (Listener, TCP)]));

    zone.certify(issued("cart-1", 1));
    assert_eq!(stream.marks(), marks(&both));
    assert_eq!(stream.everything(), before);
}

/// Two proxies of one identity ask their agents for two certificates.
#[test]
fn proxies_share_nothing_that_names_one_of_them() {
    let mut zone = zone();
    zone.put(&sidecar("web", 2, json!([])));
    zone.certified.issued.lock().insert("cart-1".into(), by_agent("cart-1", 1));
    zone.certified.issued.lock().insert("web-2".into(), by_agent("web-2", 1));
    let streams = ["cart-1", "web-2"].map(|name| zone.connect_as(name, BINDS).unwrap());
    let [cart, web] = streams.map(|stream| stream.get(Cluster, PAY).unwrap());
    assert!(says(&cart, "workload/cart") && !says(&cart, "workload/web"));
    assert!(says(&web, "workload/web") && !says(&web, "workload/cart"));
}
