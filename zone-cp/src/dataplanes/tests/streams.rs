//! What Envoys get, and what becomes of it.

use super::world::*;
use delta::{Item, Nonce, Update, Version};
use kinds::{dataplane, dataplane_insight, mesh_identity, mesh_zone_address};
use prost_types::{ListValue, Struct, Value, value::Kind};
use proto::{
    atoll::proxy::v1::{Hello, Problems},
    envoy::{config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest},
    google::rpc::Status,
};
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;
use tonic::Code;
use xds::{
    Type,
    ads::{Event, Refusal},
};

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.into())) }
}

fn fields<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Value { kind: Some(Kind::StructValue(Struct { fields })) }
}

fn node(id: &str, metadata: Value) -> Node {
    let Some(Kind::StructValue(metadata)) = metadata.kind else { panic!("fields") };
    Node { id: id.into(), metadata: Some(metadata), ..Node::default() }
}

/// The Envoy of one of our programs.
pub(super) fn ours(id: &str) -> Node {
    let version = fields([("atoll", fields([("version", text("0.1.0"))]))]);
    let features = vec![text("feature-bind-outbounds")];
    let features = Value { kind: Some(Kind::ListValue(ListValue { values: features })) };
    node(id, fields([("version", version), ("features", features)]))
}

fn kumas(dataplane: &serde_json::Value) -> Node {
    let kuma = fields([("version", text("3.0.0"))]);
    let envoy = fields([("version", text("1.39.0"))]);
    let version = fields([("kumaDp", kuma), ("envoy", envoy)]);
    let id = format!("shop.{}", dataplane["name"].as_str().unwrap());
    let resource = text(&dataplane.to_string());
    node(&id, fields([("version", version), ("dataplane.resource", resource)]))
}

pub(super) fn ask(node: Option<Node>, kind: Type) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { node, type_url: kind.url().into(), ..DeltaDiscoveryRequest::default() }
}

#[tokio::test(start_paused = true)]
async fn an_envoy_gets_what_its_token_is_for() {
    let world = World::new().await;
    let token = token(&claims());
    let _session = world.session(&token, hello(&web("web-1"))).await.unwrap();
    let first = ask(Some(ours("shop.web-1")), Type::Cluster);
    let mut envoy = world.envoy(&token, first).await.unwrap();
    let response = envoy.next().await.unwrap();
    assert_eq!(response.type_url, Type::Cluster.url());

    let refused = async |id: &str| {
        let first = ask(Some(ours(id)), Type::Cluster);
        let mut envoy = world.envoy(&token, first).await?;
        envoy.next().await
    };
    for (id, code) in [
        ("shop.web-2", Code::NotFound),
        ("bank.web-1", Code::PermissionDenied),
        ("shop", Code::InvalidArgument),
        ("", Code::InvalidArgument),
    ] {
        assert_eq!(refused(id).await.unwrap_err().code(), code, "{id:?}");
    }
    envoy.to_zone.send(ask(Some(ours("shop.web-2")), Type::Listener)).await.unwrap();
    let ended = loop {
        if let Err(ended) = envoy.next().await {
            break ended;
        }
    };
    assert_eq!(ended.code(), Code::PermissionDenied, "a node stays who it is");
}

#[tokio::test(start_paused = true)]
async fn what_envoy_refuses_is_told_and_shown_and_not_advertised() {
    let world = World::new().await;
    let token = token(&ingress_claims());
    let mut session = world.session(&token, ingress_hello()).await.unwrap();
    let first = ask(Some(ours("shop.ingress-1")), Type::Listener);
    let mut envoy = world.envoy(&token, first).await.unwrap();
    let response = envoy.next().await.unwrap();
    assert_eq!((response.type_url.as_str(), response.resources.len()), (Type::Listener.url(), 1));
    let advertised = |world: &World| world.row(mesh_zone_address::KIND, "ingress-1").is_some();
    assert!(advertised(&world));

    let detail = "cannot bind '127.1.0.9:10001': Address already in use";
    let refusal = DeltaDiscoveryRequest {
        type_url: response.type_url,
        response_nonce: response.nonce,
        error_detail: Some(Status { message: detail.into(), ..Status::default() }),
        ..DeltaDiscoveryRequest::default()
    };
    envoy.to_zone.send(refusal).await.unwrap();
    let name = &response.resources[0].name;
    let problem = format!("Envoy refuses Listener {name}: {detail}");
    let told = Problems { problems: vec![problem.clone()], unready: vec![problem.clone()] };
    assert_eq!(session.told().await, told);
    let insight = |world: &World| world.spec(dataplane_insight::KIND, "ingress-1").unwrap();
    let stats = &insight(&world)["subscriptions"][0]["status"]["lds"];
    assert_eq!(*stats, json!({ "responsesSent": "1", "responsesRejected": "1" }));
    assert_eq!(insight(&world)["metadata"], json!({ "problems": [problem] }));
    assert!(!advertised(&world), "nobody can come in there");

    drop(envoy);
    assert_eq!(session.problems().await, [""; 0], "another Envoy may be luckier");
    world.until(advertised).await;
}

/// An Envoy that takes whatever it is sent, until `wanted`. It holds what it took of listeners.
pub(super) async fn takes(world: &World, envoy: &mut Envoy, wanted: impl Fn(&World) -> bool) {
    let take = async {
        loop {
            let response = envoy.next().await.unwrap();
            let nonce = response.nonce;
            let taken = DeltaDiscoveryRequest {
                type_url: response.type_url,
                response_nonce: nonce,
                ..DeltaDiscoveryRequest::default()
            };
            envoy.to_zone.send(taken).await.unwrap();
        }
    };
    tokio::select! {
        biased;
        () = world.until(wanted) => {}
        () = take => {}
    }
}

fn states(world: &World) -> Vec<String> {
    let spec = world.spec(dataplane::KIND, "web-1").unwrap();
    let inbounds = spec["networking"]["inbound"].as_array().unwrap();
    let state = |inbound: &serde_json::Value| inbound["state"].as_str().unwrap_or("Ready").into();
    inbounds.iter().map(state).collect()
}

#[tokio::test(start_paused = true)]
async fn an_inbound_is_called_once_its_envoy_has_it() {
    let world = World::new().await;
    let token = token(&claims());
    let mut session = world.session(&token, hello(&web("web-1"))).await.unwrap();
    let first = ask(Some(ours("shop.web-1")), Type::Cluster);
    let mut envoy = world.envoy(&token, first).await.unwrap();
    envoy.to_zone.send(ask(None, Type::Listener)).await.unwrap();
    assert_eq!(states(&world), ["Ready"; 2], "nobody knows what this Envoy has");
    takes(&world, &mut envoy, |world| states(world) == ["NotReady"; 2]).await;
    let why = |name| format!("inbound {name} is not served: no MeshIdentity selects the proxy");
    assert_eq!(session.problems().await, [why("http"), why("plain")]);

    let spec = json!({
        "selector": {"dataplane": {"matchLabels": {}}},
        "provider": {"type": "Bundled", "bundled": {"autogenerate": {"enabled": true}}},
    });
    let (kind, identity) = row(mesh_identity::KIND, key("identity"), spec);
    world.put(kind, identity).await;
    takes(&world, &mut envoy, |world| states(world) == ["Ready"; 2]).await;
    assert_eq!(session.problems().await, [""; 0]);

    // Another stream of the same Envoy, that holds its listeners.
    drop(envoy);
    let first = ask(Some(ours("shop.web-1")), Type::Cluster);
    let mut envoy = world.envoy(&token, first).await.unwrap();
    let held = ["self_inbound_dp_http", "self_inbound_dp_gone"];
    let held = held.map(|name| (name.to_owned(), "1".to_owned()));
    let listeners = DeltaDiscoveryRequest {
        initial_resource_versions: held.into(),
        ..ask(None, Type::Listener)
    };
    envoy.to_zone.send(listeners).await.unwrap();
    let listeners = loop {
        let response = envoy.next().await.unwrap();
        if response.type_url == Type::Listener.url() {
            break response;
        }
        let taken = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        envoy.to_zone.send(taken).await.unwrap();
    };
    let detail = "Error adding/updating listener(s) self_inbound_dp_http: no such filter\n\
                  self_inbound_dp_plain: no such filter\n";
    let refusal = DeltaDiscoveryRequest {
        type_url: listeners.type_url,
        response_nonce: listeners.nonce,
        error_detail: Some(Status { message: detail.into(), ..Status::default() }),
        ..DeltaDiscoveryRequest::default()
    };
    envoy.to_zone.send(refusal).await.unwrap();
    world.until(|world| states(world) == ["Ready", "NotReady"]).await;
}

/// A MeshIdentity leaves certificates to SPIRE agents: an Envoy that knows one is served, and shown
/// without a certificate of ours; one that knows none is not, and its operator is told why.
#[tokio::test(start_paused = true)]
async fn an_envoy_with_a_spire_agent_is_served_by_it() {
    const AGENT: &str = "/run/spire/sockets/socket";
    let world = World::new().await;
    let spec =
        json!({ "selector": {"dataplane": {"matchLabels": {}}}, "provider": {"type": "Spire"} });
    let (kind, identity) = row(mesh_identity::KIND, key("identity"), spec);
    world.put(kind, identity).await;
    let token = token(&claims());
    let plain = hello(&web("web-1"));
    let named = Hello { spire_socket: AGENT.into(), ..plain.clone() };
    let (session, welcome) = world.welcome(&token, named).await.unwrap();
    assert!(welcome.bootstrap.contains(AGENT), "{}", welcome.bootstrap);
    drop(session);
    let (mut session, welcome) = world.welcome(&token, plain).await.unwrap();
    assert!(!welcome.bootstrap.contains("spire"), "{}", welcome.bootstrap);
    let node = ours("shop.web-1");
    let mut envoy = world.envoy(&token, ask(Some(node.clone()), Type::Cluster)).await.unwrap();
    envoy.to_zone.send(ask(None, Type::Listener)).await.unwrap();
    takes(&world, &mut envoy, |world| states(world) == ["NotReady"; 2]).await;
    let problems = session.problems().await;
    let lacks = |problem: &String| problem.contains("the proxy names no SPIRE agent");
    assert!(problems.len() == 2 && problems.iter().all(lacks), "{problems:?}");
    drop(envoy);

    let mut node = node;
    let metadata = node.metadata.as_mut().unwrap();
    metadata.fields.insert("spireAgent.socketPath".into(), text(AGENT));
    let mut envoy = world.envoy(&token, ask(Some(node), Type::Cluster)).await.unwrap();
    envoy.to_zone.send(ask(None, Type::Listener)).await.unwrap();
    takes(&world, &mut envoy, |world| states(world) == ["Ready"; 2]).await;
    assert_eq!(session.problems().await, [""; 0]);
    let shown = world.spec(dataplane_insight::KIND, "web-1").unwrap();
    let (mtls, identity) = (&shown["mTLS"], "kri_mid_shop_west__identity_");
    assert_eq!(
        (&mtls["issuedBackend"], &mtls["certificateExpirationTime"]),
        (&json!(identity), &json!(null))
    );
}

/// What was sent of listeners, and why some were refused.
fn refused(names: &[&str], reasons: &[(&str, &str)]) -> Event {
    let update = listeners(names);
    let reasons = reasons.iter().map(|(name, reason)| ((*name).into(), (*reason).into()));
    let refusal =
        Refusal { text: "see there".into(), reasons: reasons.collect(), ..<_>::default() };
    Event::Refused { kind: Type::Listener, update, refusal }
}

fn listeners(names: &[&str]) -> Update {
    let item = |name: &&str| Item {
        name: (*name).into(),
        version: Version([1; 16]),
        bytes: <_>::default(),
    };
    let upserts = names.iter().map(item).collect();
    Update { nonce: Nonce(1), upserts, removals: [].into() }
}

#[tokio::test(start_paused = true)]
async fn an_inbound_that_cannot_be_bound_is_not_called_until_it_can_and_no_other() {
    let world = World::new().await;
    let mut session = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    let registry = &world.dataplanes.desk.registry;
    let (stream, _) = registry.begin_stream(&key("web-1"), None).unwrap();
    let [http, plain, vip] = ["self_inbound_dp_http", "self_inbound_dp_plain", "kri_msvc_x"];
    stream.report(Event::Acked { kind: Type::Listener, update: listeners(&[http, plain, vip]) });
    assert_eq!(states(&world), ["Ready"; 2]);

    let in_use = "cannot bind '127.1.0.5:9090': Address already in use";
    let says = |name: &str| format!("Envoy refuses Listener {name}: {in_use}");
    stream.report(refused(&[plain, vip, http], &[(plain, in_use), (vip, in_use)]));
    let unready = vec![says(plain)];
    assert_eq!(session.told().await, Problems { problems: vec![says(plain), says(vip)], unready });
    world.until(|world| states(world) == ["Ready", "NotReady"]).await;
    assert_eq!(registry.refusing(), [(Type::Listener, 1)].into(), "proxies, not listeners");

    stream.report(refused(&[plain, vip], &[(vip, in_use)]));
    let problems = vec![says(vip)];
    assert_eq!(session.told().await, Problems { problems, unready: vec![] }, "others reach it");
    world.until(|world| states(world) == ["Ready"; 2]).await;
    stream.report(Event::Acked { kind: Type::Listener, update: listeners(&[vip]) });
    assert_eq!(session.told().await, Problems::default());
    assert_eq!(registry.refusing(), [].into());

    let refusal = Refusal { untold: [http.into()].into(), ..<_>::default() };
    let reasons = [(vip.into(), in_use.into())].into();
    let refusal = Refusal { reasons, ..refusal };
    let update = listeners(&[vip, http]);
    stream.report(Event::Refused { kind: Type::Listener, update, refusal });
    let problems = vec![says(vip)];
    assert_eq!(session.told().await, Problems { problems, unready: vec![] });
    assert_eq!(states(&world), ["Ready"; 2], "nothing is known of http that was not known before");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_without_a_session_is_there_while_its_stream_is() {
    let world = World::new().await;
    tokio::time::advance(super::super::presence::START).await;
    let first = ask(Some(kumas(&web("web-1"))), Type::Cluster);
    let mut envoy = world.envoy(&token(&claims()), first).await.unwrap();
    envoy.next().await.unwrap();
    assert_eq!(world.dataplanes(), ["web-1"]);
    let insight = world.spec(dataplane_insight::KIND, "web-1").unwrap();
    assert_eq!(insight["subscriptions"][0]["version"]["envoy"]["version"], "1.39.0");
    drop(envoy);
    let early = timeout(Duration::from_secs(4), world.until(|world| world.dataplanes().is_empty()));
    assert!(early.await.is_err(), "it may come back");
    world.until(|world| world.dataplanes().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn an_envoy_that_comes_back_before_its_program_takes_no_address_away() {
    let world = World::new().await;
    let token = token(&ingress_claims());
    world.session(&token, ingress_hello()).await.unwrap();
    let world = world.restart().await;
    let first = ask(Some(ours("shop.ingress-1")), Type::Listener);
    let mut envoy = world.envoy(&token, first).await.unwrap();
    let response = envoy.next().await.unwrap();
    let acknowledgement = DeltaDiscoveryRequest {
        type_url: response.type_url,
        response_nonce: response.nonce,
        ..DeltaDiscoveryRequest::default()
    };
    envoy.to_zone.send(acknowledgement).await.unwrap();
    settle().await;
    let advertised = |world: &World| world.row(mesh_zone_address::KIND, "ingress-1").is_some();
    assert!(advertised(&world), "its program has its time to come back");
    world.until(|world| !advertised(world)).await;
}

#[tokio::test(start_paused = true)]
async fn an_envoy_of_ours_does_not_keep_its_dataplane_alone() {
    let world = World::new().await;
    tokio::time::advance(super::super::presence::START).await;
    let token = token(&claims());
    let session = world.session(&token, hello(&web("web-1"))).await.unwrap();
    let first = ask(Some(ours("shop.web-1")), Type::Cluster);
    let mut envoy = world.envoy(&token, first).await.unwrap();
    envoy.next().await.unwrap();
    drop(session);
    world.until(|world| world.dataplanes().is_empty()).await;
    assert_eq!(world.dataplanes.desk.registry.connected(), 1, "its stream is still there");
}
