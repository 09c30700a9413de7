mod accept;
mod fixture;
mod golden;
mod redirect;
mod spire;

use self::{fixture::*, golden::check};
use super::*;
use prost::Message;
use resource::Kri;
use std::collections::BTreeSet;
use std::time::Duration;
use xds::{
    Protocol,
    draft::{InboundDraft, ListenerDraft, OutboundDraft, Permissions, RouteDraft},
};

const WEB: &str = "spiffe://shop.west.mesh.local/workload/web";
const STRANGER: &str = "spiffe://shop.west.mesh.local/workload/stranger";

fn outbound_files(called: &[(Destination, Outbound, BTreeSet<Endpoint>)]) -> golden::Resources {
    let (credentials, draft) = (credentials(), OutboundDraft::default());
    let mut resources = golden::Resources::default();
    for (destination, outbound, endpoints) in called {
        resources.listeners.extend(outbound_listener(outbound, &draft.listener));
        resources.routes.extend(outbound_route(outbound, &draft));
        resources.clusters.push(cluster(destination, &credentials, &draft.cluster));
        resources.endpoints.push(load_assignment(&destination.kri.to_string(), endpoints));
    }
    resources.secrets.push(identity_secret(&identity(), "CHAIN", "KEY"));
    resources.secrets.extend(trust_secret(&trust()));
    resources
}

/// A service behind two ingresses, one in several zones, and one that speaks TCP.
#[test]
fn a_caller_without_interception() {
    let ingresses = [("east", "127.2.0.10:21001"), ("east", "127.2.0.11:21001")];
    let remote = |priority| ingresses.map(|(zone, at)| endpoint(priority, zone, at));
    let cart = "kri_msvc_shop_east__cart_http";
    let carts = "kri_mzsvc_shop___cart_http";
    let redis = "kri_msvc_shop_east__redis_redis";
    let east = "spiffe://shop.east.mesh.local/workload/cart";
    let west = "spiffe://shop.west.mesh.local/workload/cart";
    let store = "spiffe://shop.east.mesh.local/workload/redis";
    let both = [endpoint(0, "west", "127.1.0.7:28080")].into_iter().chain(remote(1)).collect();
    check(
        "sidecar-outbound",
        &outbound_files(&[
            (
                destination(cart, Protocol::Http, &[east]),
                outbound(cart, Protocol::Http, &["127.241.0.9:28080"]),
                remote(1).into(),
            ),
            (
                destination(carts, Protocol::Http, &[east, west]),
                outbound(carts, Protocol::Http, &["127.243.0.9:28080"]),
                both,
            ),
            (
                destination(redis, Protocol::Tcp, &[store]),
                outbound(redis, Protocol::Tcp, &["127.241.0.10:26379", "[fd00::a]:6379"]),
                remote(1).into(),
            ),
        ]),
    );
}

#[test]
fn an_http_inbound() {
    let inbound = http_inbound();
    let permissions = Permissions {
        deny: vec![grant(
            "kri_mtp_shop___strangers_",
            &[exact(STRANGER), prefix("spiffe://shop.south.mesh.local")],
        )],
        allow: vec![grant("kri_mtp_shop___web_", &[exact(WEB)])],
    };
    let draft = InboundDraft { permissions, ..InboundDraft::default() };
    check("sidecar-inbound-http", &inbound_files(&inbound, &draft));
}

fn inbound_files(inbound: &Inbound, draft: &InboundDraft) -> golden::Resources {
    golden::Resources {
        listeners: vec![inbound_listener(inbound, &credentials(), &draft.listener, None)],
        routes: inbound_route(inbound, draft).into_iter().collect(),
        clusters: vec![inbound_cluster(inbound, &draft.cluster)],
        secrets: [identity_secret(&identity(), "CHAIN", "KEY")]
            .into_iter()
            .chain(trust_secret(&trust()))
            .collect(),
        ..golden::Resources::default()
    }
}

/// What the filters of an HTTP inbound and its permissions can say beyond the usual.
#[test]
fn an_http2_inbound_with_every_timeout() {
    let inbound = Inbound { protocol: Protocol::Grpc, ..http_inbound() };
    let seconds = Duration::from_secs;
    let mut draft = InboundDraft::default();
    draft.cluster.connect_timeout = seconds(1);
    draft.cluster.idle_timeout = seconds(2);
    draft.cluster.max_connection_duration = seconds(3);
    draft.listener.max_connection_duration = seconds(4);
    draft.listener.request_headers_timeout = Duration::from_millis(4500);
    draft.route.timeout = seconds(5);
    draft.route.stream_idle_timeout = seconds(6);
    draft.route.max_stream_duration = seconds(7);
    let callers = [sni("sni.msvc.shop.east.cart.http"), both(WEB, "sni.extsvc.shop.psp.443")];
    draft.permissions.allow = vec![grant("kri_mtp_shop___any_", &callers)];
    let slow = RouteDraft { timeout: seconds(8), ..draft.route.clone() };
    let rest = RouteDraft { timeout: seconds(9), ..slow.clone() };
    draft.callers = vec![
        (exact(WEB), slow),
        (both(STRANGER, "sni.msvc.shop.east.cart.http"), rest.clone()),
        (prefix("spiffe://shop.west.mesh.local"), rest),
    ];
    check("sidecar-inbound-grpc", &inbound_files(&inbound, &draft));
}

#[test]
fn an_http_inbound_that_admits_nobody() {
    let resources = inbound_files(&http_inbound(), &InboundDraft::default());
    check("sidecar-inbound-http-nobody", &resources);
}

#[test]
fn a_tcp_inbound() {
    let inbound = tcp_inbound();
    let allow = vec![grant("kri_mtp_shop___web_", &[exact(WEB)])];
    let permissions = Permissions { deny: Vec::new(), allow };
    let permissions = TcpPermissions { generation: 1, permissions };
    let mut resources = inbound_files(&inbound, &InboundDraft::default());
    resources.secrets.pop();
    resources.secrets.extend(inbound_secret(&inbound, &permissions, &trust()));
    resources.extensions.push(inbound_permissions(&inbound, &permissions));
    resources.runtime.push(runtime(&BTreeSet::new()));
    check("sidecar-inbound-tcp", &resources);
}

/// Generation 1 was withdrawn, and nobody is allowed any more.
#[test]
fn a_tcp_inbound_that_admits_nobody() {
    let inbound = tcp_inbound();
    let permissions = TcpPermissions { generation: 2, permissions: Permissions::default() };
    let mut resources = inbound_files(&inbound, &InboundDraft::default());
    resources.secrets.pop();
    resources.secrets.extend(inbound_secret(&inbound, &permissions, &trust()));
    resources.extensions.push(inbound_permissions(&inbound, &permissions));
    let withdrawn = Withdrawn { section: inbound.section, generation: 1 };
    resources.runtime.push(runtime(&[withdrawn].into()));
    check("sidecar-inbound-tcp-nobody", &resources);
}

#[test]
fn a_zone_ingress() {
    let cart: Kri = kri("kri_msvc_shop_east__cart_http");
    let redis = kri("kri_msvc_shop_east__redis_redis");
    let replicas = [("east", "127.2.0.7:28080"), ("east", "127.2.0.8:28080")];
    let replicas = replicas.map(|(zone, at)| endpoint(0, zone, at));
    let store = [endpoint(0, "east", "127.2.0.9:26379")];
    let listener = IngressListener { section: "ingress".into(), bind: at("127.2.0.10:21001") };
    let services = [
        (cart.clone(), &cart),
        (kri("kri_mzsvc_shop___cart_http"), &cart),
        (redis.clone(), &redis),
    ];
    check(
        "zone-ingress",
        &golden::Resources {
            listeners: vec![ingress_listener(&listener, &ListenerDraft::default())],
            clusters: services.map(|(kri, at)| ingress_cluster(&ingress_service(kri, at))).into(),
            endpoints: vec![
                load_assignment(&cart.to_string(), &replicas.into()),
                load_assignment(&redis.to_string(), &store.into()),
            ],
            ..golden::Resources::default()
        },
    );
}

#[test]
fn a_destination_that_nobody_may_answer_for_is_answered_by_nobody() {
    let destination = destination("kri_msvc_shop_east__cart_http", Protocol::Http, &[]);
    let bytes = cluster(&destination, &credentials(), &OutboundDraft::default().cluster);
    let bytes = bytes.encode_to_vec();
    assert!(bytes.windows(10).any(|part| part == b"urn:nobody"));
}

#[test]
fn an_outbound_that_is_bound_nowhere_has_no_listener() {
    let outbound = outbound("kri_msvc_shop_east__cart_http", Protocol::Http, &[]);
    assert_eq!(outbound_listener(&outbound, &OutboundDraft::default().listener), None);
}

#[test]
fn requests_have_routes_and_bytes_have_none() {
    let kri = "kri_msvc_shop_east__cart_http";
    let out = outbound(kri, Protocol::Tcp, &["127.0.0.1:1"]);
    assert_eq!(outbound_route(&out, &OutboundDraft::default()), None);
    assert_eq!(inbound_route(&tcp_inbound(), &InboundDraft::default()), None);
}

#[test]
fn without_authorities_there_is_no_trust() {
    let permissions = TcpPermissions { generation: 1, permissions: Permissions::default() };
    assert_eq!(trust_secret(&Trust::default()), None);
    assert_eq!(inbound_secret(&tcp_inbound(), &permissions, &Trust::default()), None);
    let empty = Trust([("shop".parse().unwrap(), BTreeSet::new())].into());
    assert_eq!(trust_secret(&empty), None);
}

#[test]
fn priorities_have_no_gaps() {
    let far = [endpoint(3, "c", "127.0.0.3:1"), endpoint(1, "c", "127.0.0.1:1")];
    let near = [endpoint(1, "a", "127.0.0.2:1"), endpoint(1, "a", "127.0.0.1:1")];
    let assignment = load_assignment("x", &far.into_iter().chain(near).collect());
    let priorities: Vec<_> = assignment
        .endpoints
        .iter()
        .map(|locality| {
            let zone = &*locality.locality.as_ref().unwrap().zone;
            (locality.priority, zone, locality.lb_endpoints.len())
        })
        .collect();
    assert_eq!(priorities, [(0, "a", 2), (0, "c", 1), (1, "c", 1)]);
}

/// The names that pass the handshake of a TCP inbound.
fn admitted(deny: &[xds::Match], allow: &[xds::Match]) -> Vec<String> {
    let grants = |callers: &[xds::Match]| match callers {
        [] => Vec::new(),
        _ => vec![grant("kri_mtp_shop___x_", callers)],
    };
    let permissions = Permissions { deny: grants(deny), allow: grants(allow) };
    let names = permission::callers(&permissions).into_iter();
    names
        .map(|name| match name {
            tls::San::Exact(id) => id,
            tls::San::Prefix(prefix) => format!("{prefix}*"),
        })
        .collect()
}

#[test]
fn a_prefix_ends_at_a_segment_of_the_path() {
    let prod = "spiffe://a/ns/prod";
    assert_eq!(admitted(&[], &[prefix(prod)]), [prod, "spiffe://a/ns/prod/*"]);
}

#[test]
fn who_is_refused_altogether_is_not_admitted() {
    let (web, prod) = ("spiffe://a/ns/prod/web", "spiffe://a/ns/prod");
    let none = [""; 0];
    assert_eq!(admitted(&[exact(web)], &[exact(web)]), none);
    assert_eq!(admitted(&[prefix(prod)], &[exact(web)]), none);
    assert_eq!(admitted(&[prefix(prod)], &[prefix(web)]), none);
    assert_eq!(admitted(&[prefix("spiffe://a")], &[prefix(prod)]), none);
    assert_eq!(admitted(&[prefix(prod)], &[prefix(prod)]), none);
    // A neighbour, a part, or under one server name only: not altogether.
    let dev = "spiffe://a/ns/prod-dev";
    assert_eq!(admitted(&[prefix(prod)], &[exact(dev)]), [dev]);
    assert_eq!(admitted(&[exact(web)], &[prefix(web)]).len(), 2);
    assert_eq!(admitted(&[both(web, "sni.x")], &[exact(web)]), [web]);
    assert_eq!(admitted(&[exact(web)], &[sni("sni.x")]), ["spiffe://*"]);
    assert_eq!(admitted(&[sni("sni.x")], &[sni("sni.x")]), ["spiffe://*"]);
}

#[test]
fn equal_permissions_are_equal_bytes_whatever_order_identities_came_in() {
    let of = |ids: &[&str]| {
        let destination = destination("kri_msvc_shop_east__cart_http", Protocol::Http, ids);
        cluster(&destination, &credentials(), &OutboundDraft::default().cluster).encode_to_vec()
    };
    assert_eq!(of(&["spiffe://a/b", "spiffe://a/a"]), of(&["spiffe://a/a", "spiffe://a/b"]));
    assert_ne!(of(&["spiffe://a/b"]), of(&["spiffe://a/a"]));
}
