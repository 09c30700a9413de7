//! The bootstrap of Kuma's programs: the answers that Kuma gives, and where ours differ.

use super::world::*;
use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::BodyExt;
use identity::{Authority, TrustDomain};
use serde_json::{Value, json};
use tower::ServiceExt;

fn asked() -> Value {
    let domain = TrustDomain::new("west.example").unwrap();
    let authority = Authority::generate(&domain, "2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
    json!({
        "mesh": "shop", "name": "web-1", "proxyType": "dataplane",
        "dataplaneToken": token(&claims()), "dataplaneTokenPath": "web.token",
        "dataplaneResource": web("web-1").to_string(),
        "version": {"kumaDp": {"version": "3.0.0"}, "envoy": {"version": "1.40.0"}},
        "caCert": authority.certificate_pem(), "dynamicMetadata": {}, "dnsPort": 15055,
        "readinessPort": 9915, "operatingSystem": "linux", "features": ["feature-reuse-port"],
        "resources": {"maxHeapSizeBytes": 0}, "workdir": "/run/kuma", "ipv6Enabled": true,
    })
}

async fn post(world: &World, accept: &str, body: String) -> (StatusCode, String, String) {
    let request = Request::post("/bootstrap")
        .header(header::HOST, "127.0.0.1:5678")
        .header(header::ACCEPT, accept)
        .body(Body::from(body))
        .unwrap();
    send(world, request).await
}

async fn send(world: &World, request: Request<Body>) -> (StatusCode, String, String) {
    let router = super::super::server::router(world.dataplanes.desk.clone());
    let response = router.oneshot(request).await.unwrap();
    let (status, kind) = (response.status(), response.headers().get(header::CONTENT_TYPE));
    let kind = kind.map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, kind, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_proxy_of_kuma_gets_its_bootstrap() {
    let world = World::new().await;
    let asked = asked();
    let (status, kind, body) = post(&world, "application/json", asked.to_string()).await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "application/json"));
    let body: Value = serde_json::from_str(&body).unwrap();
    let expected = json!({"networking": {"address": "127.1.0.5"}, "metrics": {"aggregate": null}});
    assert_eq!(body["kumaSidecarConfiguration"], expected);
    let bootstrap = STANDARD.decode(body["bootstrap"].as_str().unwrap()).unwrap();
    let bootstrap: Value = serde_json::from_slice(&bootstrap).unwrap();
    let found = |pointer: &str| bootstrap.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(found("/node/id"), "shop.web-1");
    assert_eq!(found("/node/metadata/dataplane.resource"), web("web-1").to_string());
    assert_eq!(found("/node/metadata/dataplane.dns.port"), "15055");
    assert_eq!(found("/node/metadata/version/kumaDp/version"), "3.0.0");
    assert_eq!(found("/admin/address/pipe/path"), "/run/kuma/kuma-envoy-admin.sock");
    let service = "/dynamic_resources/ads_config/grpc_services/0";
    let header = found(&format!("{service}/initial_metadata/0/value"));
    assert_eq!(header, asked["dataplaneToken"].as_str().unwrap());
    assert_eq!(world.dataplanes(), [""; 0], "it is there once its Envoy is");

    let (status, kind, body) = post(&world, "", asked.to_string()).await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "text/x-yaml"));
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), bootstrap);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_of_kuma_knows_its_spire_agent() {
    let world = World::new().await;
    let mut asked = asked();
    asked["spireResources"] = json!({"socketPath": "/tmp/spire-agent/public/api.sock"});
    let (status, _, body) = post(&world, "", asked.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    let bootstrap: Value = serde_json::from_str(&body).unwrap();
    let agent = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/pipe/path";
    let clusters = bootstrap["static_resources"]["clusters"].as_array().unwrap();
    let spire = clusters.iter().find(|it| it["name"] == "system_identity_sds-spire-agent").unwrap();
    assert_eq!(spire.pointer(agent).unwrap(), "/tmp/spire-agent/public/api.sock");
    let metadata = &bootstrap["node"]["metadata"];
    assert_eq!(metadata["spireAgent.socketPath"], "/tmp/spire-agent/public/api.sock");

    asked["spireResources"] = json!({"socketPath": "public/api.sock"});
    let (status, _, body) = post(&world, "", asked.to_string()).await;
    let expected = r#"spireResources.socketPath: "public/api.sock" is no absolute path"#;
    assert_eq!((status.as_u16(), body.as_str()), (422, expected));
}

#[tokio::test(start_paused = true)]
async fn whoever_may_not_have_one_is_told_so() {
    let world = World::new().await;
    let answer = async |change: &dyn Fn(&mut Value)| {
        let mut asked = asked();
        change(&mut asked);
        let (status, _, body) = post(&world, "application/json", asked.to_string()).await;
        (status.as_u16(), body)
    };
    let silent = |status| (status, String::new());
    let mut dataplane = web("web-1");
    dataplane["networking"]["address"] = "0.0.0.0".into();
    dataplane["networking"]["inbound"][0]["port"] = 0.into();
    let dataplane = dataplane.to_string();

    let (status, text) = answer(&|it| it["dataplaneToken"] = "".into()).await;
    assert_eq!(status, 422);
    assert!(text.starts_with("Dataplane Token is required."), "{text}");
    let (status, text) = answer(&|it| it["dataplaneToken"] = "nope".into()).await;
    assert_eq!((status, text.as_str()), (401, "the token names no mesh"));
    let (status, text) = answer(&|it| it["mesh"] = "bank".into()).await;
    assert_eq!((status, text.as_str()), (403, r#"the token is for mesh "shop", not "bank""#));
    let (status, text) = answer(&|it| it["name"] = "web-2".into()).await;
    assert_eq!((status, text.as_str()), (422, r#"dataplane.name: must be "web-2", is "web-1""#));
    let (status, text) = answer(&|it| it["dataplaneResource"] = dataplane.clone().into()).await;
    assert_eq!(status, 422);
    assert!(text.contains("networking.address: ") && text.contains("inbound[0].port"), "{text}");
    let nothing = |it: &mut Value| {
        it["dataplaneResource"] = "".into();
        it["name"] = "nothing".into();
    };
    assert_eq!(answer(&nothing).await, silent(404));
    assert_eq!(answer(&|it| it["dataplaneResource"] = "{nope".into()).await, silent(500));
    let mesh = r#"{"type":"Mesh","name":"web-1"}"#;
    assert_eq!(answer(&|it| it["dataplaneResource"] = mesh.into()).await, silent(500));
    assert_eq!(answer(&|it| it["proxyType"] = "ingress".into()).await, silent(500));
    assert_eq!(answer(&|it| it["name"] = "".into()).await, silent(500));
    assert_eq!(answer(&|it| it["caCert"] = "not PEM".into()).await, silent(500));
    let (status, text) = answer(&|it| it["caCert"] = "".into()).await;
    assert_eq!(status, 422);
    assert!(text.starts_with("caCert: "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_refused_without_a_word() {
    let world = World::new().await;
    for body in [String::new(), "nope".into(), "x".repeat(600 << 10)] {
        let (status, _, text) = post(&world, "application/json", body).await;
        assert_eq!((status, text.as_str()), (StatusCode::BAD_REQUEST, ""));
    }
    let request = Request::get("/bootstrap").body(Body::empty()).unwrap();
    assert_eq!(send(&world, request).await.0, StatusCode::BAD_REQUEST);
}
