//! Who gets in, as what.

use super::{super::limits, world::*};
use axum::{
    body::Body,
    http::{Request, header},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http_body_util::BodyExt;
use identity::token::DataplaneClaims;
use kinds::{dataplane, global_secret, secret};
use proto::atoll::proxy::v1::{Address, Hello, Leaving, from_proxy};
use resource::{AnySpec, Kind, Labels, Peer, ResourceKey};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tonic::Code;
use tower::ServiceExt;

const CALLS: [&str; 2] = [
    "/atoll.proxy.v1.Proxies/Session",
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
];

/// The gRPC status of a call whose body breaks when it is read.
async fn call(world: &World, path: &str, authorization: &str) -> (String, String) {
    let body = futures::stream::poll_fn(|_| -> std::task::Poll<Option<Result<&[u8], _>>> {
        panic!("the body was read before anybody knew whose it is")
    });
    let _typed: &dyn futures::Stream<Item = Result<&[u8], std::io::Error>> = &body;
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::AUTHORIZATION, authorization)
        .body(Body::from_stream(body))
        .unwrap();
    let router = super::super::server::router(world.dataplanes.desk.clone());
    let response = router.oneshot(request).await.unwrap();
    let text = |name: &str| {
        let value = response.headers().get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default().to_owned()
    };
    (text("grpc-status"), text("grpc-message"))
}

#[tokio::test(start_paused = true)]
async fn without_a_good_token_nothing_is_read() {
    let world = World::new().await;
    let unauthenticated = i32::from(Code::Unauthenticated).to_string();
    let good = token(&claims());
    let (head, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    for authorization in ["", "Bearer ", "Bearer x.y.z", &forged] {
        for path in CALLS {
            assert_eq!(call(&world, path, authorization).await.0, unauthenticated, "{path}");
        }
    }
    let unknown = token(&DataplaneClaims { mesh: "nowhere".into(), ..claims() });
    let (code, text) = call(&world, CALLS[0], &format!("Bearer {unknown}")).await;
    assert_eq!(code, i32::from(Code::Unavailable).to_string(), "its keys may come");
    assert!(text.starts_with("mesh%20nowhere%20has%20no%20key"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn other_calls_are_not_served() {
    let world = World::new().await;
    let unimplemented = i32::from(Code::Unimplemented).to_string();
    let good = format!("Bearer {}", token(&claims()));
    for path in [
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        "/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck",
    ] {
        assert_eq!(call(&world, path, &good).await.0, unimplemented);
    }
    let router = super::super::server::router(world.dataplanes.desk.clone());
    let response = router.oneshot(Request::get("/x").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 404);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "404 page not found\n");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_good_for_what_it_says_and_nothing_else() {
    let world = World::new().await;
    let web = hello(&web("web-1"));
    let refused = async |claims: DataplaneClaims, hello: &Hello| {
        world.refusal(&token(&claims), hello.clone()).await
    };
    let denied = |text: &str| (Code::PermissionDenied, text.to_owned());

    let other = DataplaneClaims { mesh: "bank".into(), ..claims() };
    let text = r#"the token is for mesh "bank", not "shop""#;
    assert_eq!(refused(other, &web).await, denied(text));
    let other = DataplaneClaims { name: "web-2".into(), ..claims() };
    let text = r#"the token is for name "web-2", not "web-1""#;
    assert_eq!(refused(other, &web).await, denied(text));
    let other = DataplaneClaims { workload: "cart".into(), ..claims() };
    let text = r#"the token is for workload "cart", not "web""#;
    assert_eq!(refused(other, &web).await, denied(text));
    let tags = [("tier".to_owned(), vec!["backend".to_owned()])].into();
    let text = r#"the token does not allow the value "" of the label "tier""#;
    assert_eq!(refused(DataplaneClaims { tags, ..claims() }, &web).await, denied(text));

    let text = r#"the token is for type "ingress", not "dataplane""#;
    assert_eq!(refused(ingress_claims(), &web).await, denied(text));
    let dataplane = DataplaneClaims { workload: String::new(), ..claims() };
    let text = r#"the token is for type "dataplane", not "ingress""#;
    assert_eq!(refused(dataplane, &ingress_hello()).await, denied(text));
    assert_eq!(world.dataplanes(), [""; 0], "none of them left anything behind");

    world.session(&token(&claims()), web).await.unwrap();
    world.session(&token(&ingress_claims()), ingress_hello()).await.unwrap();
    assert_eq!(world.dataplanes(), ["ingress-1", "web-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_dataplane_is_not_taken_over_by_claiming_its_name() {
    let world = World::new().await;
    world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    let mut cart = web("web-1");
    cart["labels"]["kuma.io/workload"] = "cart".into();
    let for_cart = token(&DataplaneClaims { workload: "cart".into(), ..claims() });
    let expected = r#"Dataplane shop/web-1 exists, and the token is not for it: the token is for workload "cart", not "web""#;
    let refused = world.refusal(&for_cart, hello(&cart)).await;
    assert_eq!(refused, (Code::AlreadyExists, expected.to_owned()), "it may leave");
}

#[test]
fn a_token_is_refused_for_good_unless_the_zone_may_lack_its_key() {
    use super::super::auth::Unauthenticated::{self, NoKeys, NoMesh, NoToken, Refused};
    use identity::token::Refused::{
        Expired, Malformed, NotYetValid, Revoked, Signature, UnknownKey,
    };
    let at = jiff::Timestamp::UNIX_EPOCH;
    let codes = |all: Vec<Unauthenticated>| -> Vec<Code> {
        all.into_iter().map(|why| why.status().code()).collect()
    };
    let passing = vec![
        NoKeys("shop".parse().unwrap()),
        UnknownKey("2".into()).into(),
        NotYetValid(at).into(),
    ];
    assert_eq!(codes(passing), [Code::Unavailable; 3]);
    let final_ones =
        [Malformed, Signature, Expired(at), Revoked("id".into())].map(Refused).into_iter();
    let final_ones = final_ones.chain([NoToken, NoMesh]).collect();
    assert_eq!(codes(final_ones), [Code::Unauthenticated; 6]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_revoked_ends_what_it_began_wherever_the_list_is() {
    for (kind, of_mesh) in [(secret::KIND, true), (global_secret::KIND, false)] {
        let world = World::new().await;
        let (revoked, good) = (token(&claims()), token(&claims()));
        let mut ended = world.session(&revoked, hello(&web("web-1"))).await.unwrap();
        let mut stays = world.session(&good, hello(&web("web-2"))).await.unwrap();

        let list = format!("other, {} ,third", jti(&revoked));
        let name = "dataplane-token-revocations-shop";
        let key = if of_mesh { key(name) } else { ResourceKey::global(name) };
        world.put(kind, secret_row(kind, key, &list)).await;
        let why = ended.next().await.unwrap_err();
        assert_eq!(why.code(), Code::Unauthenticated);
        assert!(why.message().ends_with("is revoked"), "{why}");
        let (code, text) = world.refusal(&revoked, hello(&web("web-1"))).await;
        assert_eq!((code, text.as_str()), (Code::Unauthenticated, why.message()));
        let other = timeout(Duration::from_secs(60), stays.stream.message()).await;
        assert!(other.is_err(), "the token of another proxy is still good: {other:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_good_until_it_expires() {
    let world = World::new().await;
    let began = Instant::now();
    let mut session = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    let ended = timeout(Duration::from_secs(7200), session.stream.message()).await.unwrap();
    assert_eq!(ended.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(began.elapsed().as_secs() / 60, 59);
}

fn jti(token: &str) -> String {
    let body = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    body["jti"].as_str().unwrap().to_owned()
}

fn secret_row(kind: Kind, key: ResourceKey, text: &str) -> resource::Resource {
    let encoded = STANDARD.encode(text);
    let spec: AnySpec = kind.from_json(json!({ "data": encoded })).unwrap();
    let bytes = kind.encode(&spec).unwrap();
    kind.resource(key, Labels::default(), bytes, "".into(), Peer::Global).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_malformed_hello_is_refused_with_its_reason() {
    let world = World::new().await;
    let token = token(&claims());
    let web = web("web-1");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut dataplane = web.clone();
        change(&mut dataplane);
        Hello { dataplane: dataplane.to_string(), ..hello(&web) }
    };
    let cases: Vec<(Hello, &str)> = vec![
        (Hello { instance: String::new(), ..hello(&web) }, "hello.instance: must be set"),
        (
            Hello { dataplane: "{".into(), ..hello(&web) },
            "dataplane: EOF while parsing an object at line 1 column 1",
        ),
        (
            with(&|it| it["type"] = "Mesh".into()),
            r#"dataplane.type: must be "Dataplane", is "Mesh""#,
        ),
        (with(&|it| it["name"] = "web-2".into()), r#"dataplane.name: must be "web-1", is "web-2""#),
        (with(&|it| it["mesh"] = "bank".into()), r#"dataplane.mesh: must be "shop", is "bank""#),
        (with(&|it| it["labels"] = json!([])), "dataplane.labels: must be texts by name"),
        (with(&|it| it["labels"]["a"] = json!(1)), r#"dataplane.labels["a"]: must be a text"#),
        (Hello { control_plane: None, ..hello(&web) }, "hello.control_plane.address: must be set"),
        (
            Hello { spire_socket: "agent.sock".into(), ..hello(&web) },
            "hello.spire_socket: \"agent.sock\" is no absolute path",
        ),
        (
            Hello { advertised: Some(Address::default()), ..hello(&web) },
            "hello.advertised: the Dataplane has no listener of type ZoneIngress",
        ),
        (
            Hello { version: "x".repeat(limits::TEXT + 1), ..hello(&web) },
            "hello.version: longer than 512 bytes",
        ),
    ];
    for (hello, text) in cases {
        let refused = world.refusal(&token, hello).await;
        assert_eq!(refused, (Code::InvalidArgument, text.to_owned()));
    }
    let port = |port: u32| with(&move |it| it["networking"]["inbound"][0]["port"] = port.into());
    let (code, text) = world.refusal(&token, port(0)).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.contains("networking.inbound[0].port"), "{text}");
    let mut nameless = hello(&web);
    nameless.name = "../x".into();
    let (code, text) = world.refusal(&token, nameless).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.starts_with("name: "), "{text}");
    assert_eq!(world.dataplanes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_first_is_a_hello_and_comes_once() {
    let world = World::new().await;
    let mut session = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    session.say(from_proxy::Message::Hello(hello(&web("web-1")))).await;
    let ended = session.next().await.unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::InvalidArgument, "a session has one hello"));

    let mut client =
        proto::atoll::proxy::v1::proxies_client::ProxiesClient::new(world.channel().await);
    let leaving = from_proxy::Message::Leaving(Leaving {});
    let message = proto::atoll::proxy::v1::FromProxy { message: Some(leaving) };
    let mut request = tonic::Request::new(futures::stream::iter([message]));
    let value = format!("Bearer {}", token(&claims())).parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    let mut stream = client.session(request).await.unwrap().into_inner();
    let ended = stream.message().await.unwrap_err();
    assert_eq!(ended.message(), "the first message must be a hello");
    assert!(world.row(dataplane::KIND, "web-1").is_some(), "the other one is only absent");
}

#[test]
fn who_shows_a_workload_must_be_bound_to_it() {
    use super::super::auth::{Bearer, Forbidden, Wanted, Who};
    let labels = Labels::from_iter([("kuma.io/workload", "web")]);
    let (key, spec, none) = (key("web-1"), dataplane::Dataplane::default(), Labels::default());
    let bearer = |claims: DataplaneClaims| Bearer {
        who: Who::Proxy { mesh: "shop".parse().unwrap(), claims },
        token: "".into(),
        expires: jiff::Timestamp::MAX,
    };
    let wanted = Wanted { key: &key, labels: &labels, spec: &spec };
    let unbound = bearer(DataplaneClaims { workload: String::new(), ..claims() });
    assert_eq!(unbound.may_be(&wanted, None, false), Ok(()));
    assert_eq!(unbound.may_be(&wanted, None, true), Err(Forbidden::Unbound(key.clone())));
    assert_eq!(bearer(claims()).may_be(&wanted, None, true), Ok(()));
    let unnamed = Wanted { labels: &none, ..wanted };
    assert_eq!(unbound.may_be(&unnamed, None, true), Err(Forbidden::NoWorkload(key.clone())));
}
