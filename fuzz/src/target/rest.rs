//! The REST API of global: requests of an administrator, and of anybody.

use super::{
    Target,
    seeds::{Plane, clock, place, runtime, specs},
};
use crate::wire::{self, Wire};
use anyhow::{Result, ensure};
use api::{About, serve};
use axum::{Router, body::Body};
use daemon::Metrics;
use global_cp::{Config, Parts};
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{runtime::Runtime, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Fields of an input.
const METHOD: u32 = 1;
const PATH: u32 = 2;
const FORMAT: u32 = 3;
const BODY: u32 = 4;
/// `If-Match`.
const MATCH: u32 = 5;

const METHODS: [Method; 6] =
    [Method::PUT, Method::GET, Method::DELETE, Method::POST, Method::PATCH, Method::OPTIONS];
/// So many requests until the store begins anew.
const REQUESTS: u64 = 500;
/// No answer to what is in the store here is larger.
const LARGEST: usize = 4 * 1024 * 1024;

/// Longer than anything that ends.
const PATIENCE: Duration = Duration::from_secs(600);

/// Those who ask.
pub(crate) struct Users {
    runtime: Runtime,
    plane: Plane,
    router: Router,
    requests: u64,
}

fn global(runtime: &Runtime) -> Result<(Plane, Router)> {
    let mut plane = Plane::new(None)?;
    let mut config = Config::default();
    config.api.localhost_is_admin = true;
    let parts = Parts {
        config,
        kinds: plane.kinds.clone(),
        store: plane.store.clone(),
        clock: clock()?,
        about: About::default(),
        expiring: Vec::new(),
        metrics: Metrics::default(),
        stop: CancellationToken::new(),
    };
    let core = runtime.block_on(async {
        plane.fill(&place(None)?, "a").await?;
        plane.with(parts.core()).await?
    })?;
    Ok((plane, core.router))
}

impl Users {
    pub(crate) fn new() -> Result<Self> {
        let runtime = runtime()?;
        let (plane, router) = global(&runtime)?;
        Ok(Self { runtime, plane, router, requests: 0 })
    }

    fn documents(&self) -> Vec<(String, Value)> {
        let of = |(name, spec): (&str, Value)| {
            let (_, kind) = self.plane.kinds.iter().find(|(_, kind)| kind.name == name)?;
            let (path, mesh) = match kind.scope {
                resource::Scope::Mesh => (format!("/meshes/default/{}/b", kind.path), "default"),
                resource::Scope::Global => (format!("/{}/b", kind.path), ""),
            };
            let mut document = json!({ "type": name, "name": "b", "labels": { "team": "a" } });
            let fields = document.as_object_mut()?;
            if !mesh.is_empty() {
                fields.insert("mesh".into(), mesh.into());
            }
            if !kind.inline {
                fields.insert("spec".into(), spec);
            } else if let Value::Object(spec) = spec {
                fields.extend(spec);
            }
            Some((path, document))
        };
        specs().filter_map(of).collect()
    }
}

/// The request of an input, if it is one at all.
fn request(input: &[u8]) -> Option<Request<Body>> {
    let fields = wire::parse(input)?;
    let text = |number| wire::bytes(&fields, number).map(String::from_utf8_lossy);
    let method = usize::try_from(wire::number(&fields, METHOD)).ok()?;
    let method = METHODS.get(method % METHODS.len())?.clone();
    let path = text(PATH)?.parse::<Uri>().ok().filter(|uri| uri.path().starts_with('/'))?;
    let end = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    for (name, number) in [(header::CONTENT_TYPE, FORMAT), (header::IF_MATCH, MATCH)] {
        if let Some(value) = wire::bytes(&fields, number) {
            request = request.header(name, HeaderValue::from_bytes(value).ok()?);
        }
    }
    let body = Body::from(wire::bytes(&fields, BODY).unwrap_or_default().to_vec());
    let request = request.extension(serve::Connection { peer: end, local: end, tls: false });
    request.body(body).ok()
}

impl Target for Users {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let input = |method: u64, path: &str, more: &[(u32, &[u8])]| {
            let more = more.iter().map(|(number, bytes)| (*number, Wire::Bytes(bytes.to_vec())));
            let head = [(METHOD, Wire::Number(method)), (PATH, Wire::Bytes(path.into()))];
            wire::print(&head.into_iter().chain(more).collect::<Vec<_>>())
        };
        let mut seeds = Vec::new();
        for (path, document) in self.documents() {
            let body = document.to_string();
            let json: &[u8] = b"application/json";
            seeds.push(input(0, &path, &[(FORMAT, json), (BODY, body.as_bytes())]));
            seeds.push(input(1, &path, &[]));
            seeds.push(input(2, &path, &[(MATCH, b"\"0\"")]));
        }
        let yaml = b"type: MeshTimeout\nmesh: default\nname: c\nspec:\n  to:\n  - targetRef: {kind: Mesh}\n    default: {idleTimeout: 5s}\n";
        let timeout = "/meshes/default/meshtimeouts/c";
        seeds.push(input(0, timeout, &[(FORMAT, b"application/yaml"), (BODY, yaml)]));
        let reads = [
            "/",
            "/who-am-i",
            "/config",
            "/global-insight",
            "/_resources",
            "/policies",
            "/_kri/kri_mt_default___a_",
            "/meshes",
            "/meshtimeouts?size=1&offset=0",
            "/meshes/default/meshtimeouts?name=a&filter%5Blabels.team%5D=a&size=2",
            "/zones+insights",
            "/meshes/default/dataplanes/_overview",
            "/meshes/default/dataplanes/a/xds",
            "/meshes/default/meshtimeouts/a/_propagation",
            "/meshes/default/meshtimeouts/a/_propagation?zones=all&proxies=true",
            "/meshes/default/meshtimeouts/a/_propagation?deleted=true",
            "/mesh-insights",
            "/_global",
        ];
        seeds.extend(reads.map(|path| input(1, path, &[])));
        let json: &[u8] = b"application/json";
        let zone = br#"{"zone":"east","scope":["cp"],"validFor":"24h"}"#;
        seeds.push(input(3, "/tokens/zone", &[(FORMAT, json), (BODY, zone)]));
        let proxy = br#"{"mesh":"default","name":"a","tags":{"a":["b"]},"validFor":"24h"}"#;
        seeds.push(input(3, "/tokens/dataplane", &[(FORMAT, json), (BODY, proxy)]));
        seeds
    }

    fn run(&mut self, input: &[u8]) -> Result<String> {
        self.requests += 1;
        if self.requests.is_multiple_of(REQUESTS) {
            (self.plane, self.router) = global(&self.runtime)?;
        }
        let Some(request) = request(input) else { return Ok("no request".into()) };
        let head = format!("{} {}", request.method(), request.uri().path());
        let router = self.router.clone();
        let answered = async {
            let answer = router.oneshot(request).await?;
            let status = answer.status();
            let bytes = answer.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, bytes))
        };
        let answered = async { timeout(PATIENCE, answered).await };
        // A watch does not end, and in simulated time nobody waits for it.
        let Ok(answered) = self.runtime.block_on(self.plane.with(answered))? else {
            ensure!(head.starts_with("GET"), "{head}: no answer");
            return Ok("a watch".into());
        };
        let (status, bytes) = answered?;
        let ours = status == StatusCode::INTERNAL_SERVER_ERROR;
        ensure!(!ours, "{head}: {status}: {}", String::from_utf8_lossy(&bytes));
        ensure!(bytes.len() <= LARGEST, "{head}: {} bytes", bytes.len());
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let fields = body.get("invalid_parameters").and_then(Value::as_array);
        let mut wrong: Vec<&str> =
            fields.into_iter().flatten().filter_map(|it| it.get("reason")?.as_str()).collect();
        wrong.truncate(3);
        let detail = body.get("detail").and_then(Value::as_str).unwrap_or_default();
        // The status in letters: numbers do not tell answers apart.
        let word = status.canonical_reason().unwrap_or_default();
        Ok(format!("{status} {word}: {} {wrong:?}", detail.chars().take(60).collect::<String>()))
    }
}
