//! What proxies serve, and to whom.

use super::*;
use crate::{
    generate::{self, Inbound, IngressListener, IngressService, TcpPermissions, Withdrawn},
    reconcile::{NotServed, ProxyKey, Traits},
};
use Type::{Cluster, Endpoint, Extension, Listener, Route, Runtime, Secret};
use kinds::mesh;
use resource::MeshName;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use xds::{
    Match, Protocol, Type,
    draft::{Grant, InboundDraft, ListenerDraft, Permissions},
    item,
    names::{RUNTIME, Sni, TRUST_BUNDLE},
    target::{SpiffeIdMatch, SpiffeIdMatchType},
};

const HTTP: &str = "self_inbound_dp_http";
const TCP: &str = "self_inbound_dp_tcp";
const IDENTITY: &str = "kri_mid_shop___identity_";
const WEB: &str = "spiffe://shop.west.mesh.local/workload/web";
const ADMIN: &str = "spiffe://shop.west.mesh.local/workload/admin";

fn marks(pairs: &[(Type, &str)]) -> BTreeSet<(Type, String)> {
    pairs.iter().map(|(kind, name)| (*kind, (*name).to_owned())).collect()
}

fn inbound(section: &str, protocol: Protocol, port: u16) -> Inbound {
    Inbound {
        section: section.into(),
        protocol,
        bind: format!("10.0.0.1:{port}").parse().unwrap(),
        application: format!("127.0.0.1:{}", port + 10_000).parse().unwrap(),
        redirected: false,
    }
}

/// Let in by the policy `name`.
fn allowed(name: &str, callers: &[&str]) -> Permissions {
    let exact = |id: &&str| Match {
        spiffe_id: Some(SpiffeIdMatch {
            r#type: SpiffeIdMatchType::Exact,
            value: (*id).to_owned(),
        }),
        sni: None,
    };
    let policy = format!("kri_mtp_shop___{name}_").parse().unwrap();
    let callers = callers.iter().map(exact).collect();
    Permissions { deny: vec![], allow: vec![Grant { policy, callers }] }
}

fn cart(inbounds: Value) -> Row {
    sidecar("cart", 1, inbounds)
}

#[test]
fn who_may_call_stands_in_the_route_and_nothing_else_changes_with_it() {
    let mut zone = Zone::of(&[cart(json!([http(8080)]))]);
    let mut stream = zone.connect("cart-1");
    let (inbound, mut draft) = (inbound("http", Protocol::Http, 8080), InboundDraft::default());
    let name = HTTP.into();
    let listener = generate::inbound_listener(&inbound, &credentials(), &draft.listener, None);
    assert_eq!(stream.get(Listener, HTTP), Some(item(Listener, &name, &listener)));
    let cluster = generate::inbound_cluster(&inbound, &draft.cluster);
    assert_eq!(stream.get(Cluster, HTTP), Some(item(Cluster, &name, &cluster)));
    let route = generate::inbound_route(&inbound, &draft).unwrap();
    assert_eq!(stream.get(Route, HTTP), Some(item(Route, &name, &route)), "nobody may call");

    let policy = permission("web", &[WEB]);
    zone.put(&policy);
    assert_eq!(stream.marks(), marks(&[(Route, HTTP)]));
    draft.permissions = allowed("web", &[WEB]);
    let route = generate::inbound_route(&inbound, &draft).unwrap();
    assert_eq!(stream.get(Route, HTTP), Some(item(Route, &name, &route)));

    let elsewhere = json!({ "kind": "Dataplane", "labels": { "kuma.io/workload": "pay" } });
    let mut other = permission("other", &[ADMIN]);
    other.spec["targetRef"] = elsewhere;
    zone.put(&other);
    zone.put(&policy.clone().label("color", "red"));
    assert_eq!(stream.marks(), BTreeSet::new());
    zone.delete(&policy);
    assert_eq!(stream.marks(), marks(&[(Route, HTTP)]));
}

#[test]
fn a_policy_for_a_section_is_about_no_other() {
    let mut admin = http(9090);
    admin["name"] = "admin".into();
    let mut zone = Zone::of(&[cart(json!([http(8080), admin]))]);
    let mut stream = zone.connect("cart-1");
    let mut policy = permission("web", &[WEB]);
    policy.spec["targetRef"] = json!({ "kind": "Dataplane", "sectionName": "admin" });
    zone.put(&policy);
    assert_eq!(stream.marks(), marks(&[(Route, "self_inbound_dp_admin")]));
}

#[test]
fn an_inbound_without_identity_is_not_served() {
    let mut zone = Zone::of(&[cart(json!([http(8080), tcp(9000)]))]);
    let mut stream = zone.connect_as("cart-1", Traits::default()).unwrap();
    let all = [Cluster, Endpoint, Listener, Route, Extension];
    assert!(all.iter().all(|kind| stream.names(*kind).is_empty()));
    assert_eq!(stream.names(Secret), [TRUST_BUNDLE]);
    assert_eq!((stream.get(Listener, HTTP), stream.get(Secret, TCP)), (None, None));

    zone.certified.issued.lock().insert("cart-1".into(), issued("cart-1", 1));
    zone.meshes.reidentify(&cart(json!([])).key());
    zone.settle();
    let expected = [
        (Cluster, HTTP),
        (Listener, HTTP),
        (Route, HTTP),
        (Cluster, TCP),
        (Listener, TCP),
        (Secret, TCP),
        (Extension, TCP),
        (Secret, IDENTITY),
    ];
    assert_eq!(stream.marks(), marks(&expected));
    assert_eq!(stream.names(Listener), [HTTP, TCP]);
}

#[test]
fn a_renewed_certificate_is_one_secret() {
    let mut zone = Zone::of(&[cart(json!([http(8080)])), remote("east", "pay")]);
    let mut stream = zone.connect("cart-1");
    let secret = |serial| {
        let issued = issued("cart-1", serial);
        let svid = issued.svid().unwrap();
        let (chain, key) = (&svid.chain_pem, &svid.key_pem);
        Some(item(Secret, &IDENTITY.into(), &generate::identity_secret(&identity(), chain, key)))
    };
    assert_eq!(stream.get(Secret, IDENTITY), secret(1));
    zone.certified.issued.lock().insert("cart-1".into(), issued("cart-1", 2));
    zone.meshes.reidentify(&cart(json!([])).key());
    zone.settle();
    assert_eq!(stream.marks(), marks(&[(Secret, IDENTITY)]));
    assert_eq!(stream.get(Secret, IDENTITY), secret(2));
    zone.meshes.reidentify(&cart(json!([])).key());
    zone.settle();
    assert_eq!(stream.marks(), BTreeSet::new(), "it is the same one");
}

#[test]
fn whose_certificates_count_is_a_secret_of_everybody() {
    let mut zone = Zone::of(&[cart(json!([http(8080), tcp(9000)])), sidecar("web", 2, json!([]))]);
    let (mut server, mut client) = (zone.connect("cart-1"), zone.connect("web-2"));
    let bundle = generate::trust_secret(&trust(&["west"])).unwrap();
    let expected = Some(item(Secret, &TRUST_BUNDLE.into(), &bundle));
    assert_eq!(client.get(Secret, TRUST_BUNDLE), expected);
    *zone.certified.trust.lock() = trust(&["east", "west"]);
    zone.meshes.retrust(&shop());
    assert_eq!(server.marks(), marks(&[(Secret, TRUST_BUNDLE), (Secret, TCP)]));
    assert_eq!(client.marks(), marks(&[(Secret, TRUST_BUNDLE)]));
    let bundle = generate::trust_secret(&trust(&["east", "west"])).unwrap();
    let expected = Some(item(Secret, &TRUST_BUNDLE.into(), &bundle));
    assert_eq!(
        [client, server].map(|it| it.get(Secret, TRUST_BUNDLE)),
        [expected.clone(), expected]
    );
}

/// A TCP inbound and what it admits.
struct Tcp {
    zone: Zone,
    stream: Stream,
}

impl Tcp {
    fn new() -> Self {
        let mut zone = Zone::of(&[cart(json!([tcp(9000)])), permission("p", &[WEB])]);
        let stream = zone.connect("cart-1");
        Self { zone, stream }
    }

    /// Asserts who is admitted, and returns the generation by which.
    fn admits(&self, permissions: &Permissions) -> u64 {
        let inbound = inbound("tcp", Protocol::Tcp, 9000);
        let name = TCP.into();
        let generation = (0..100).find(|generation| {
            let tcp = TcpPermissions { generation: *generation, permissions: permissions.clone() };
            let extension = generate::inbound_permissions(&inbound, &tcp);
            self.stream.get(Extension, TCP) == Some(item(Extension, &name, &extension))
        });
        let generation = generation.expect("these permissions hold");
        let tcp = TcpPermissions { generation, permissions: permissions.clone() };
        let secret = generate::inbound_secret(&inbound, &tcp, &trust(&["west"])).unwrap();
        assert_eq!(self.stream.get(Secret, TCP), Some(item(Secret, &name, &secret)));
        generation
    }

    fn assert_withdrawn(&self, generations: &[u64]) {
        let cut = |generation: &u64| Withdrawn { section: "tcp".into(), generation: *generation };
        let runtime = generate::runtime(&generations.iter().map(cut).collect());
        let expected = item(Runtime, &RUNTIME.into(), &runtime);
        assert_eq!(self.stream.get(Runtime, RUNTIME), Some(expected));
    }
}

/// Somebody more may connect.
const WIDENED: [(Type, &str); 2] = [(Secret, TCP), (Extension, TCP)];
/// Somebody may not connect any more.
const NARROWED: [(Type, &str); 3] = [(Secret, TCP), (Extension, TCP), (Runtime, RUNTIME)];

#[test]
fn who_may_connect_is_a_generation_and_one_that_admitted_more_is_withdrawn() {
    let mut tcp = Tcp::new();
    let first = tcp.admits(&allowed("p", &[WEB]));
    tcp.assert_withdrawn(&[]);

    tcp.zone.put(&permission("p", &[WEB, ADMIN]));
    assert_eq!(tcp.stream.marks(), marks(&WIDENED));
    let second = tcp.admits(&allowed("p", &[WEB, ADMIN]));
    tcp.assert_withdrawn(&[]);

    tcp.zone.put(&permission("p", &[WEB]));
    assert_eq!(tcp.stream.marks(), marks(&NARROWED));
    let third = tcp.admits(&allowed("p", &[WEB]));
    tcp.assert_withdrawn(&[first, second]);

    tcp.zone.delete(&permission("p", &[WEB]));
    let fourth = tcp.admits(&Permissions::default());
    tcp.assert_withdrawn(&[first, second, third]);
    let all = BTreeSet::from([first, second, third, fourth]);
    assert_eq!(all.len(), 4, "no number is used again");
}

#[test]
fn a_refusal_withdraws_too() {
    let mut tcp = Tcp::new();
    let first = tcp.admits(&allowed("p", &[WEB]));
    let mut policy = permission("p", &[WEB]);
    policy.spec["rules"][0]["default"]["deny"] =
        json!([{ "spiffeID": { "type": "Exact", "value": WEB } }]);
    tcp.zone.put(&policy);
    tcp.assert_withdrawn(&[first]);
}

#[test]
fn generations_survive_the_process() {
    let tcp = Tcp::new();
    let first = tcp.admits(&allowed("p", &[WEB]));
    drop(tcp.stream);
    let mut zone = tcp.zone.restarted();
    let stream = zone.connect("cart-1");
    let mut tcp = Tcp { zone, stream };
    assert_eq!(tcp.admits(&allowed("p", &[WEB])), first, "nothing changed meanwhile");

    drop(tcp.stream);
    tcp.zone.put(&permission("p", &[ADMIN]));
    let mut zone = tcp.zone.restarted();
    let stream = zone.connect("cart-1");
    let tcp = Tcp { zone, stream };
    let second = tcp.admits(&allowed("p", &[ADMIN]));
    assert_ne!(first, second);
    tcp.assert_withdrawn(&[first]);
}

#[test]
fn permissions_that_changed_while_the_process_was_away_close_nothing() {
    let mut tcp = Tcp::new();
    drop(tcp.stream);
    tcp.zone.put(&permission("p", &[WEB, ADMIN]));
    let zone = tcp.zone.restarted();
    zone.certified.issued.lock().insert("cart-1".into(), issued("cart-1", 1));
    let key = ProxyKey { mesh: shop(), name: "cart-1".into() };
    let (source, changes) = zone.meshes.connect(&key, Traits::default()).unwrap();
    let mut tcp = Tcp { zone, stream: Stream { source, changes } };
    tcp.stream.marks();
    tcp.admits(&allowed("p", &[WEB]));
    tcp.zone.settle();
    assert_eq!(tcp.stream.marks(), marks(&WIDENED));
    tcp.admits(&allowed("p", &[WEB, ADMIN]));
    tcp.assert_withdrawn(&[]);
}

#[test]
fn what_is_written_down_about_a_proxy_outlives_it_by_a_day() {
    let tcp = Tcp::new();
    let first = tcp.admits(&allowed("p", &[WEB]));
    let mut zone = tcp.zone;
    let day = jiff::SignedDuration::from_hours(24);
    zone.delete(&cart(json!([])));
    let mut zone = zone.restarted();
    *zone.time.lock() = start() + day - jiff::SignedDuration::from_secs(1);
    zone.settle();
    assert_eq!(zone.written(), 1);
    *zone.time.lock() = start() + day;
    zone.settle();
    assert_eq!(zone.written(), 0);

    zone.put(&cart(json!([super::tcp(9000)])));
    let stream = zone.connect("cart-1");
    let again = Tcp { zone, stream }.admits(&allowed("p", &[WEB]));
    assert!(again > first, "a number is not used again");
}

#[test]
fn a_withdrawn_generation_is_forgotten_when_its_last_connection_is_gone() {
    let mut tcp = Tcp::new();
    let first = tcp.admits(&allowed("p", &[WEB]));
    tcp.zone.put(&permission("p", &[ADMIN]));
    let second = tcp.admits(&allowed("p", &[ADMIN]));
    // As long as a connection may be silent, unless a policy says otherwise.
    *tcp.zone.time.lock() = start() + jiff::SignedDuration::from_secs(7199);
    tcp.zone.put(&permission("p", &[ADMIN, WEB]));
    let third = tcp.admits(&allowed("p", &[ADMIN, WEB]));
    tcp.assert_withdrawn(&[first]);
    *tcp.zone.time.lock() = start() + jiff::SignedDuration::from_secs(7200);
    tcp.zone.delete(&permission("p", &[WEB]));
    tcp.assert_withdrawn(&[second, third]);
}

#[test]
fn permissions_hold_when_they_are_written_down_and_the_old_ones_until_then() {
    let mut zone = Zone::of(&[cart(json!([tcp(9000)]))]);
    zone.certified.issued.lock().insert("cart-1".into(), issued("cart-1", 1));
    let key = ProxyKey { mesh: shop(), name: "cart-1".into() };
    let (source, changes) = zone.meshes.connect(&key, Traits::default()).unwrap();
    let mut stream = Stream { source, changes };
    stream.marks();
    assert_eq!((stream.names(Listener), stream.get(Listener, TCP)), (vec![], None));
    let (written, record) = zone.meshes.unwritten().remove(0);
    zone.meshes.written(&written, record);
    let opened = [(Cluster, TCP), (Listener, TCP), (Secret, TCP), (Extension, TCP)];
    assert_eq!(stream.marks(), marks(&opened));

    let before = stream.everything();
    zone.put_unwritten(&permission("p", &[WEB]));
    assert_eq!((stream.marks(), stream.everything()), (BTreeSet::new(), before));
    zone.settle();
    assert_eq!(stream.marks(), marks(&WIDENED));
}

#[test]
fn an_ingress_offers_every_service_of_the_zone_by_its_server_name() {
    let hidden = local("hidden").label("kuma.io/kds-sync", "disabled");
    let mut zone = Zone::of(&[
        ingress(1),
        local("cart"),
        hidden,
        remote("east", "pay"),
        sidecar("cart", 1, json!([http(8080)])),
        sidecar("web", 2, json!([])),
    ]);
    let mut stream = zone.connect_as("ingress-1", Traits::default()).unwrap();
    let kri: resource::Kri = "kri_msvc_shop_west__cart_http".parse().unwrap();
    let sni = "sni.msvc.shop.west.cart.http";
    let service =
        IngressService { sni: Sni::of(&kri).unwrap(), kri: kri.clone(), endpoints: kri.clone() };
    let cluster = generate::ingress_cluster(&service);
    assert_eq!(stream.names(Cluster), [sni]);
    assert_eq!(stream.get(Cluster, sni), Some(item(Cluster, &sni.into(), &cluster)));
    let bind = "10.0.1.1:10001".parse().unwrap();
    let listener = IngressListener { section: "in".into(), bind };
    let listener = generate::ingress_listener(&listener, &ListenerDraft::default());
    let name = "self_zoneingress_dp_in";
    assert_eq!(stream.get(Listener, name), Some(item(Listener, &name.into(), &listener)));
    assert_eq!(*stream.source.endpoints_of(&sni.into()), kri.to_string());
    assert_eq!(*stream.source.endpoints_of(&HTTP.into()), *HTTP);
    let client = zone.connect("web-2");
    let same = client.get(Endpoint, &kri.to_string());
    assert!(same.is_some());
    assert_eq!(stream.get(Endpoint, &kri.to_string()), same);

    zone.put(&local("shop"));
    assert_eq!(
        stream.marks(),
        marks(&[
            (Cluster, "sni.msvc.shop.west.shop.http"),
            (Endpoint, "kri_msvc_shop_west__shop_http")
        ])
    );
    zone.put(&sidecar("cart", 3, json!([http(8080)])));
    assert_eq!(stream.marks(), marks(&[(Endpoint, "kri_msvc_shop_west__cart_http")]));
    zone.put(&remote("south", "pay"));
    zone.put(&local("cart").with("/identities", json!([])));
    assert_eq!(stream.marks(), BTreeSet::new());
    zone.delete(&local("cart"));
    let gone = [(Cluster, sni), (Endpoint, "kri_msvc_shop_west__cart_http")];
    assert_eq!(stream.marks(), marks(&gone));
    assert_eq!(stream.get(Cluster, sni), None);
}

#[test]
fn a_proxy_serves_what_its_dataplane_says_now() {
    let mut zone = Zone::of(&[cart(json!([http(8080)]))]);
    let mut stream = zone.connect("cart-1");
    zone.put(&cart(json!([http(8081)])));
    assert_eq!(stream.marks(), marks(&[(Cluster, HTTP), (Listener, HTTP)]));
    assert_eq!(zone.problems(), []);
    zone.put(&cart(json!([http(8081)])).with("/networking/address", "cart.example".into()));
    let why = r#"networking.address: "cart.example" is not an IP address"#;
    assert_eq!(zone.problems(), [("cart-1".to_owned(), why.to_owned())]);
    zone.delete(&cart(json!([])));
    let gone = [(Cluster, HTTP), (Listener, HTTP), (Route, HTTP), (Secret, IDENTITY)];
    assert_eq!(stream.marks(), marks(&gone));
    let left: Vec<_> = stream.everything().into_keys().collect();
    let always = [(Secret, TRUST_BUNDLE), (Runtime, RUNTIME)];
    assert_eq!(left, always.map(|(kind, name)| (kind, name.to_owned())));
}

#[test]
fn nobody_is_served_before_the_zone_is_complete() {
    let mut zone = Zone::empty();
    let key =
        |mesh: &str, name: &str| ProxyKey { mesh: MeshName::new(mesh).unwrap(), name: name.into() };
    let refused = |zone: &Zone, key: &ProxyKey| zone.meshes.connect(key, Traits::default()).err();
    zone.put(&row(mesh::KIND, "shop", json!({})));
    zone.put(&cart(json!([])));
    let cart_1 = key("shop", "cart-1");
    assert_eq!(refused(&zone, &cart_1), Some(NotServed::Incomplete));
    zone.meshes.open();
    assert_eq!(refused(&zone, &cart_1), None);
    let absent = key("shop", "absent");
    assert_eq!(refused(&zone, &absent), Some(NotServed::NoDataplane(absent)));
    let elsewhere = key("other", "cart-1");
    assert_eq!(refused(&zone, &elsewhere), Some(NotServed::NoMesh(elsewhere.mesh.clone())));
    zone.delete(&row(mesh::KIND, "shop", json!({})));
    assert_eq!(refused(&zone, &cart_1), Some(NotServed::NoMesh(shop())));
}

#[test]
fn a_proxy_has_one_stream() {
    let mut zone = Zone::of(&[cart(json!([http(8080)]))]);
    let mut first = zone.connect("cart-1");
    let second = zone.connect("cart-1");
    assert_eq!(first.names(Listener), [""; 0]);
    let mut changed = tokio_test::task::spawn(first.changes.changed());
    assert_eq!(changed.poll(), std::task::Poll::Ready(Err(xds::Gone)));
    drop(changed);
    drop(first);
    assert_eq!(*zone.certified.forgotten.lock(), [""; 0]);
    assert_eq!(second.names(Listener), [HTTP]);
    drop(second);
    assert_eq!(*zone.certified.forgotten.lock(), ["cart-1"]);
}
