//! The bootstrap of proxies that keep no session: Kuma's.
//!
//! Answers as Kuma does, with one difference: the token must be good, and for the Dataplane that is
//! asked for. Whoever has none learns nothing, not even which Dataplanes exist.

use super::{
    auth::{Bearer, Who},
    desk::Desk,
    limits,
};
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kinds::{dataplane, labels::Place};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tonic::Code;
use xds::bootstrap::{Bootstrap, ControlPlane, Token};

const NO_TOKEN: &str = "Dataplane Token is required. Generate token using 'kumactl generate dataplane-token > /path/file' and provide it via --dataplane-token-file=/path/file argument to Kuma DP";
/// Where Kuma's programs look for it, in their working directory.
const ADMIN_SOCKET: &str = "kuma-envoy-admin.sock";
const HEAP: u32 = 512;

/// What is asked. Everything else that Kuma's programs say goes into the node's metadata or nowhere.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Asked {
    mesh: String,
    name: String,
    proxy_type: String,
    dataplane_token: String,
    dataplane_resource: String,
    ca_cert: String,
    dynamic_metadata: Map<String, Value>,
    dns_port: u32,
    readiness_port: u32,
    features: Option<Vec<String>>,
    workdir: String,
    system_ca_path: String,
    spire_resources: SpireResources,
    version: Value,
    #[serde(rename = "ipv6Enabled")]
    ipv6_enabled: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpireResources {
    socket_path: String,
}

/// An answer that is not a bootstrap.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(code, text) = self;
        if text.is_empty() {
            return code.into_response();
        }
        let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        (code, kind, text).into_response()
    }
}

pub(super) async fn answer(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    match respond(&desk, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn respond(desk: &Desk, request: Request) -> Result<Response, Refusal> {
    let silent = |code| move || Refusal(code, String::new());
    let (parts, body) = request.into_parts();
    if parts.method != Method::POST {
        return Err(silent(StatusCode::BAD_REQUEST)());
    }
    let asked = read(body).await.ok_or_else(silent(StatusCode::BAD_REQUEST))?;
    // The token comes in the body here, so it is the first thing that is looked at.
    if asked.dataplane_token.is_empty() {
        return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, NO_TOKEN.into()));
    }
    if desk.check_open().is_err() {
        return Err(silent(StatusCode::SERVICE_UNAVAILABLE)());
    }
    let bearer =
        desk.tokens.accept(asked.dataplane_token.trim().as_bytes()).await.map_err(|error| {
            tracing::warn!(%error, "bootstrap refused");
            Refusal(StatusCode::UNAUTHORIZED, error.to_string())
        })?;
    if !matches!(asked.proxy_type.as_str(), "" | "dataplane") || asked.name.is_empty() {
        return Err(silent(StatusCode::INTERNAL_SERVER_ERROR)());
    }
    check_resource(&asked.dataplane_resource)?;
    let bootstrap = bootstrap(desk, &asked, &bearer, &parts.headers)?;
    Ok(rendered(&bootstrap, &asked, &parts.headers))
}

async fn read(body: Body) -> Option<Asked> {
    let bytes = axum::body::to_bytes(body, limits::BOOTSTRAP).await.ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// What Kuma answers without a word.
fn check_resource(json: &str) -> Result<(), Refusal> {
    if json.is_empty() {
        return Ok(());
    }
    let value: Option<Value> = serde_json::from_str(json).ok();
    let kind = value.as_ref().and_then(|value| value.get("type")).and_then(Value::as_str);
    if kind == Some(dataplane::KIND.name) {
        return Ok(());
    }
    Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, String::new()))
}

fn bootstrap(
    desk: &Desk,
    asked: &Asked,
    bearer: &Bearer,
    headers: &HeaderMap,
) -> Result<Bootstrap, Refusal> {
    // No mesh is the bearer's.
    let mesh = match &bearer.who {
        Who::Proxy { mesh, .. } if asked.mesh.is_empty() => mesh.as_str(),
        Who::Proxy { .. } | Who::Pod(_) => &asked.mesh,
    };
    let admitted = desk
        .admit(bearer, (mesh, &asked.name), &asked.dataplane_resource)
        .map_err(|status| refusal(&status))?;
    let Place::Zone { name: zone, .. } = &desk.registry.shelf.place else {
        return Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, String::new()));
    };
    let (host, port) = dialled(headers)
        .ok_or_else(|| Refusal(StatusCode::BAD_REQUEST, "the request has no host".into()))?;
    if asked.ca_cert.is_empty() || asked.ca_cert.len() > limits::CA {
        let text = "caCert: must be set: without it Envoy would believe anybody";
        return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, text.into()));
    }
    let socket = &asked.spire_resources.socket_path;
    daemon::config::check_socket(socket).map_err(|error| {
        let text = format!("spireResources.socketPath: {error}");
        Refusal(StatusCode::UNPROCESSABLE_ENTITY, text)
    })?;
    let ca_pem = authorities(&asked.ca_cert);
    let ca_pem = ca_pem.ok_or_else(|| Refusal(StatusCode::INTERNAL_SERVER_ERROR, String::new()))?;
    Ok(Bootstrap {
        mesh: admitted.mesh.clone(),
        name: asked.name.clone(),
        workload: admitted.workload(),
        zone: zone.clone(),
        dataplane: asked.dataplane_resource.clone(),
        control_plane: ControlPlane { host: host.clone(), server_name: host, port, ca_pem },
        readiness: None,
        features: asked.features.clone().unwrap_or_default(),
        metadata: metadata(asked),
        admin_socket: Some(admin_socket(asked)),
        spire_socket: Some(socket.clone()).filter(|socket| !socket.is_empty()),
        version: String::new(),
        max_heap_mib: HEAP,
        token: Token::Header(asked.dataplane_token.trim().to_owned().into()),
    })
}

/// As text, or in base64 as JSON has bytes in Go.
fn authorities(given: &str) -> Option<String> {
    let text = if given.contains("-----BEGIN") {
        given.to_owned()
    } else {
        String::from_utf8(STANDARD.decode(given.trim()).ok()?).ok()?
    };
    identity::certificates(&text).is_some_and(|all| !all.is_empty()).then_some(text)
}

fn refusal(status: &tonic::Status) -> Refusal {
    let (code, text) = (status.code(), status.message());
    // An unknown mesh is a mistake in what was sent; an unknown Dataplane may come.
    if code == Code::NotFound && !text.starts_with("mesh: ") {
        return Refusal(StatusCode::NOT_FOUND, String::new());
    }
    let codes = [
        (Code::PermissionDenied, StatusCode::FORBIDDEN),
        (Code::AlreadyExists, StatusCode::FORBIDDEN),
        (Code::InvalidArgument, StatusCode::UNPROCESSABLE_ENTITY),
        (Code::NotFound, StatusCode::UNPROCESSABLE_ENTITY),
        (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
    ];
    let found = codes.into_iter().find(|(of, _)| *of == code);
    let code = found.map_or(StatusCode::INTERNAL_SERVER_ERROR, |(_, code)| code);
    Refusal(code, text.to_owned())
}

/// Where the proxy found us, which is where its Envoy shall find us.
fn dialled(headers: &HeaderMap) -> Option<(String, u16)> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let authority: axum::http::uri::Authority = host.parse().ok()?;
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    Some((host.to_owned(), authority.port_u16().unwrap_or(443)))
}

fn admin_socket(asked: &Asked) -> String {
    let folder = asked.workdir.trim_end_matches('/');
    if folder.is_empty() { ADMIN_SOCKET.to_owned() } else { format!("{folder}/{ADMIN_SOCKET}") }
}

fn metadata(asked: &Asked) -> Map<String, Value> {
    let mut all = Map::new();
    let mut add = |name: &str, value: Value| all.insert(name.to_owned(), value);
    add("version", asked.version.clone());
    add("workdir", json!(asked.workdir));
    add("systemCaPath", json!(asked.system_ca_path));
    add("ipv6Enabled", json!(asked.ipv6_enabled));
    for (name, port) in [
        ("dataplane.dns.port", asked.dns_port),
        ("dataplane.readinessReporter.port", asked.readiness_port),
    ] {
        if port != 0 {
            add(name, json!(port.to_string()));
        }
    }
    if !asked.dynamic_metadata.is_empty() {
        add("dynamicMetadata", Value::Object(asked.dynamic_metadata.clone()));
    }
    all
}

fn rendered(bootstrap: &Bootstrap, asked: &Asked, headers: &HeaderMap) -> Response {
    let text = bootstrap.render().bootstrap;
    let wants_json = headers
        .get(header::ACCEPT)
        .is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"));
    if !wants_json {
        return ([(header::CONTENT_TYPE, "text/x-yaml")], text).into_response();
    }
    let address = serde_json::from_str::<Value>(&asked.dataplane_resource).ok();
    let address = address.and_then(|it| it.pointer("/networking/address").cloned());
    Json(json!({
        "bootstrap": STANDARD.encode(text),
        "kumaSidecarConfiguration": {
            "networking": {"address": address.unwrap_or_else(|| json!(""))},
            "metrics": {"aggregate": null},
        },
    }))
    .into_response()
}
