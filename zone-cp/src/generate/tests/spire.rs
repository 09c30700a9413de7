//! A proxy whose certificate a SPIRE agent has.

use super::*;

fn agent() -> Credentials {
    let timeout = Duration::from_millis(1500);
    Credentials::Agent(SpireAgent { id: WEB.parse().unwrap(), timeout })
}

#[test]
fn a_caller_by_a_spire_agent() {
    let draft = OutboundDraft::default();
    let kri = "kri_msvc_shop_east__cart_http";
    let cart = "spiffe://shop.east.mesh.local/workload/cart";
    let cart = destination(kri, Protocol::Http, &[cart]);
    let endpoints = [endpoint(0, "east", "127.2.0.10:21001")].into();
    let resources = golden::Resources {
        clusters: vec![cluster(&cart, &agent(), &draft.cluster)],
        endpoints: vec![load_assignment(kri, &endpoints)],
        ..golden::Resources::default()
    };
    check("sidecar-outbound-spire", &resources);
}

/// The listener of TCP says itself whom it admits: an agent has no secret of ours.
#[test]
fn inbounds_by_a_spire_agent() {
    let allow = vec![grant("kri_mtp_shop___web_", &[exact(WEB)])];
    let permissions =
        TcpPermissions { generation: 1, permissions: Permissions { deny: Vec::new(), allow } };
    let draft = InboundDraft::default();
    let (http, tcp) = (http_inbound(), tcp_inbound());
    let admits = Some(&permissions);
    let resources = golden::Resources {
        listeners: vec![
            inbound_listener(&http, &agent(), &draft.listener, None),
            inbound_listener(&tcp, &agent(), &draft.listener, admits),
        ],
        routes: inbound_route(&http, &draft).into_iter().collect(),
        clusters: [&http, &tcp].map(|it| inbound_cluster(it, &draft.cluster)).into(),
        extensions: vec![inbound_permissions(&tcp, &permissions)],
        ..golden::Resources::default()
    };
    check("sidecar-inbound-spire", &resources);
}
