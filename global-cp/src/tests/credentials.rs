//! What lets a zone in, on real connections.

use super::{Global, PATIENCE, config};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::{
    Authority, SpiffeId, Svid, TrustDomain,
    tls::{Alpn, client_config, connect},
    token::SigningKey,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::{fs, io, time::Duration};
use tokio::{task::JoinSet, time::timeout};

const HOUR: Duration = Duration::from_secs(3600);
const OK: &str = "0";
const DENIED: &str = "7";
const UNAUTHENTICATED: &str = "16";

impl Global {
    /// Asks whether global is there, as the zone `name`; the status of the answer.
    async fn health(
        &self,
        name: &str,
        token: Option<&str>,
        identity: Option<&Svid>,
    ) -> io::Result<String> {
        let ca = fs::read_to_string(self.config.data_dir.join("tls/ca.crt"))?;
        let identity = identity.map(|svid| (svid.chain_pem.as_str(), svid.key_pem.as_str()));
        let tls = client_config(&ca, identity, Alpn::Grpc).unwrap();
        let stream = connect(tls, "localhost", self.addresses.kds.port()).await?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(io::Error::other)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri("https://localhost/kuma.mesh.v1alpha1.GlobalKDSService/HealthCheck")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("client-id", name);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        // One empty message.
        let request = request.body(Full::new(Bytes::from_static(&[0; 5]))).unwrap();
        let answer = timeout(PATIENCE, sender.send_request(request)).await?;
        let answer = answer.map_err(io::Error::other)?;
        let status = answer.headers().get("grpc-status").cloned();
        let body = answer.into_body().collect().await.map_err(io::Error::other)?;
        let trailer = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        Ok(status.or(trailer).unwrap().to_str().unwrap().to_owned())
    }

    async fn zone_token(&self, zone: &str, valid_for: &str) -> String {
        let body = json!({"zone": zone, "scope": ["cp"], "validFor": valid_for});
        let (status, token) = self.admin(Method::POST, "/tokens/zone", Some(body)).await;
        assert_eq!(status, 200, "{token}");
        token
    }

    async fn put_secret(&self, name: &str, text: &str) {
        let body = json!({"type": "GlobalSecret", "name": name, "data": STANDARD.encode(text)});
        let path = format!("/globalsecrets/{name}");
        let (status, text) = self.admin(Method::PUT, &path, Some(body)).await;
        assert!(matches!(status, 200 | 201), "{text}");
    }

    async fn until_offline(&self, zone: &str) {
        let online = self.is_online(zone);
        self.until("ZoneInsight", |reader| !online(reader)).await;
    }
}

fn authority() -> Authority {
    let domain = TrustDomain::new("zones.example").unwrap();
    Authority::generate(&domain, Timestamp::now() - SignedDuration::from_hours(24)).unwrap()
}

fn svid(authority: &Authority, path: &str, at: Timestamp) -> Svid {
    let id: SpiffeId = format!("spiffe://zones.example{path}").parse().unwrap();
    authority.issue(&id, at, HOUR).unwrap()
}

/// What a token says of itself.
fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    let body = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn a_zone_is_what_its_credential_says() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, others) = (authority(), authority());
    let mut settings = config(folder.path());
    let ca = folder.path().join("zones.pem");
    fs::write(&ca, ours.certificate_pem()).unwrap();
    settings.tls.client_ca_file = ca.to_str().unwrap().to_owned();
    let global = Global::start(settings).await;
    let (now, token) = (Timestamp::now(), global.zone_token("east", "1h").await);

    let east = svid(&ours, "/zone/east", now);
    let web = svid(&ours, "/workload/east", now);
    for (name, token, identity, expected) in [
        ("east", Some(&*token), None, OK),
        ("west", Some(&*token), None, DENIED),
        ("", Some(&*token), None, DENIED),
        ("east", Some("x.y.z"), None, UNAUTHENTICATED),
        ("east", None, None, UNAUTHENTICATED),
        ("east", None, Some(&east), OK),
        ("west", None, Some(&east), DENIED),
        ("east", None, Some(&web), DENIED),
        ("east", Some("x.y.z"), Some(&east), UNAUTHENTICATED),
        ("west", Some(&*token), Some(&east), DENIED),
    ] {
        let status = global.health(name, token, identity).await.unwrap();
        assert_eq!(status, expected, "{name:?}, token {}", token.is_some());
    }
    // These do not come as far as a call.
    let past = now - SignedDuration::from_hours(3);
    for bad in [svid(&others, "/zone/east", now), svid(&ours, "/zone/east", past)] {
        let refused = global.health("east", Some(&token), Some(&bad)).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    assert_eq!(global.names("/zones").await, ["east"], "nothing is made for who is refused");
    global.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let folder = tempfile::tempdir().unwrap();
    let global = Global::start(config(folder.path())).await;
    let (old, revoked) =
        (global.zone_token("old", "1h").await, global.zone_token("revoked", "1h").await);
    let mut zones =
        vec![global.zone("old", Some(old.clone())), global.zone("revoked", Some(revoked.clone()))];
    for zone in ["old", "revoked"] {
        global.until("ZoneInsight", global.is_online(zone)).await;
    }
    let key = SigningKey::generate().unwrap();
    global.put_secret("zone-token-signing-key-2", key.private_pem()).await;
    let new = global.zone_token("new", "1h").await;
    zones.push(global.zone("new", Some(new.clone())));
    global.until("ZoneInsight", global.is_online("new")).await;

    let id = claims(&revoked)["jti"].as_str().unwrap().to_owned();
    global.put_secret("zone-token-revocations", &id).await;
    global.until_offline("revoked").await;
    assert_eq!(global.health("revoked", Some(&revoked), None).await.unwrap(), UNAUTHENTICATED);
    assert_eq!(global.health("old", Some(&old), None).await.unwrap(), OK);
    assert!(global.is_online("old")(&global.reader));

    let path = "/globalsecrets/zone-token-signing-key-1";
    assert_eq!(global.admin(Method::DELETE, path, None).await.0, 200);
    global.until_offline("old").await;
    assert_eq!(global.health("old", Some(&old), None).await.unwrap(), UNAUTHENTICATED);
    assert_eq!(global.health("new", Some(&new), None).await.unwrap(), OK);
    assert!(global.is_online("new")(&global.reader));

    let short = global.zone_token("short", "3s").await;
    zones.push(global.zone("short", Some(short.clone())));
    global.until("ZoneInsight", global.is_online("short")).await;
    global.until_offline("short").await;
    assert_eq!(global.health("short", Some(&short), None).await.unwrap(), UNAUTHENTICATED);
    let online = global.get("/zone-insights").await;
    for insight in online["items"].as_array().unwrap() {
        let times = insight["subscriptions"].as_array().unwrap().len();
        assert!(insight["name"] != "new" || times == 1, "{insight}");
    }
    drop(zones);
    global.stop().await;
}
