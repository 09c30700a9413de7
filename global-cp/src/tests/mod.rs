use crate::{Addresses, Config, bind};
use api::author::Author;
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use identity::tls::{Alpn, client_config, connect};
use kds::{
    admin::NoProxies,
    dialect::{Introduction, own_features},
    zone::{Client, Settings, tls},
};
use kinds::{
    dataplane, dataplane_insight,
    labels::{Env, Place},
    zone_insight::ZoneInsight,
};
use proto::kuma::system::v1alpha1::KumaCpVersion;
use resource::{Kind, Peer, ResourceKey, ZoneName};
use serde_json::{Value, json};
use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};
use store::{
    Backend as _, Kinds, Memory, StoreKind,
    view::{KindSet, Reader},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

mod credentials;
mod lives;
mod plain;

/// In real time: sockets and keys are real here.
const PATIENCE: Duration = Duration::from_secs(60);

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn config(folder: &Path) -> Config {
    let mut config = Config { data_dir: folder.to_owned(), ..Config::default() };
    config.api.http.address = any_port();
    config.api.https.address = any_port();
    config.kds.listen = any_port();
    config.admin.listen = any_port();
    config
}

/// A global in this process.
struct Global {
    addresses: Addresses,
    config: Config,
    reader: Reader,
    kinds: Kinds,
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Global {
    async fn start(config: Config) -> Self {
        let stop = CancellationToken::new();
        let bound = bind(&config, &stop).await.unwrap();
        let (addresses, reader) = (bound.addresses, bound.reader());
        let mut tasks = JoinSet::new();
        tasks.spawn(bound.run(stop.clone()));
        let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Zone };
        let global = Self { addresses, config, reader, kinds, stop, tasks };
        // Answered when it has started.
        assert_eq!(global.send(Method::GET, "/", None, None).await.0, 200);
        global
    }

    async fn stop(mut self) -> Config {
        self.stop.cancel();
        let ended = timeout(PATIENCE, self.tasks.join_next()).await;
        ended.expect("it stops").unwrap().unwrap().unwrap();
        self.config
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> (u16, String) {
        let ca = fs::read_to_string(self.config.data_dir.join("tls/ca.crt")).unwrap();
        let port = self.addresses.https.unwrap().port();
        let tls = client_config(&ca, None, Alpn::Http).unwrap();
        // The client speaks HTTP/1.1 only.
        let mut tls = (*tls).clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = connect(Arc::new(tls), "localhost", port).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("localhost:{port}"))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let response = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> (u16, String) {
        let token = fs::read_to_string(self.config.data_dir.join("admin-token")).unwrap();
        self.send(method, path, Some(token.trim()), body).await
    }

    async fn get(&self, path: &str) -> Value {
        let (status, text) = self.admin(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.addresses.admin).await.unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        text
    }

    async fn names(&self, path: &str) -> Vec<String> {
        let list = self.get(path).await;
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until something holds of what is stored of `kind`.
    async fn until(&self, kind: &str, holds: impl Fn(&Reader) -> bool) {
        let id = self.kinds.id_of(kind).unwrap();
        let mut watch = self.reader.watch(KindSet::from_iter([id]));
        let waiting = async {
            while !holds(&self.reader) {
                watch.dirty().await.unwrap();
            }
        };
        timeout(PATIENCE, waiting).await.expect("it never came to that");
    }

    fn is_online(&self, zone: &str) -> impl Fn(&Reader) -> bool + use<> {
        let (id, key) = (self.kinds.id_of("ZoneInsight").unwrap(), ResourceKey::global(zone));
        move |reader| {
            let row = reader.get(id, &key);
            row.is_some_and(|row| kinds::read::<ZoneInsight>(&row).unwrap().is_online())
        }
    }

    /// A zone that connects with `token`. It ends when the set is dropped.
    fn zone(&self, name: &str, token: Option<String>) -> JoinSet<()> {
        self.zone_with(name, token, Vec::new())
    }

    /// A zone that has these resources in the mesh `default`.
    fn zone_with(
        &self,
        name: &str,
        token: Option<String>,
        resources: Vec<(Kind, &'static str, Value)>,
    ) -> JoinSet<()> {
        self.zone_and_reader(name, token, resources).1
    }

    /// The same, and what is in its store.
    fn zone_and_reader(
        &self,
        name: &str,
        token: Option<String>,
        resources: Vec<(Kind, &'static str, Value)>,
    ) -> (Reader, JoinSet<()>) {
        let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Global };
        let clock = daemon::Clock::system();
        let (store, writer) = store::open(Memory::new(3), kinds.clone(), clock.clone()).unwrap();
        let version = KumaCpVersion { version: "1.2.3".into(), ..KumaCpVersion::default() };
        let config = json!({ "zone": name }).to_string();
        let (features, instance) = (own_features(), format!("{name}-1"));
        let introduction = Introduction { features, version, config, instance };
        let name = ZoneName::new(name).unwrap();
        let settings = Settings::new(name, Arc::new(move || token.clone()), introduction);
        let ca = fs::read_to_string(self.config.data_dir.join("tls/ca.crt")).unwrap();
        let tls_config = client_config(&ca, None, Alpn::Grpc).unwrap();
        let dial = tls(move || tls_config.clone(), "localhost".into(), self.addresses.kds.port());
        let place = Place::Zone { name: settings.zone.clone(), env: Env::Universal };
        let author = Author { kinds: Arc::new(kinds.clone()), place };
        let item = |(kind, name, spec)| {
            author.create(kind, ResourceKey::in_mesh(&"default".parse().unwrap(), name), spec)
        };
        let rows = resources.into_iter().map(|row| item(row).unwrap()).collect();
        let (filled, reader) = (store.clone(), store.reader());
        let answerer = Arc::new(NoProxies);
        let client = Client::new((store, Arc::new(kinds)), settings, dial, answerer, clock);
        let mut tasks = JoinSet::new();
        tasks.spawn(async { writer.run().await.unwrap() });
        tasks.spawn(async move {
            filled.commit(rows).await.unwrap();
            client.unwrap().run(CancellationToken::new()).await;
        });
        (reader, tasks)
    }
}

#[tokio::test]
async fn what_was_put_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let global = Global::start(config(folder.path())).await;
    let about: Value =
        serde_json::from_str(&global.send(Method::GET, "/", None, None).await.1).unwrap();
    assert_ne!(about["clusterId"], "");
    assert_eq!(global.send(Method::GET, "/meshes", None, None).await.0, 401);
    let body = json!({"type": "Mesh", "name": "shop", "skipCreatingInitialPolicies": ["*"]});
    assert_eq!(global.admin(Method::PUT, "/meshes/shop", Some(body)).await.0, 201);
    let shown = global.get("/meshes/shop").await;

    let global = Global::start(global.stop().await).await;
    assert_eq!(global.get("/meshes/shop").await, shown);
    assert_eq!(global.names("/meshes").await, ["default", "shop"]);
    let again: Value =
        serde_json::from_str(&global.send(Method::GET, "/", None, None).await.1).unwrap();
    assert_eq!(again["clusterId"], about["clusterId"]);
    global.stop().await;
}

#[tokio::test]
async fn a_mesh_gets_its_defaults_once() {
    let folder = tempfile::tempdir().unwrap();
    let global = Global::start(config(folder.path())).await;
    let generators = [
        "synced-headless-kube-mesh-service",
        "synced-kube-mesh-service",
        "synced-mesh-external-service",
        "synced-mesh-multi-zone-service",
        "synced-universal-mesh-service",
    ];
    assert_eq!(global.names("/hostnamegenerators").await, generators);
    let timeouts = "/meshes/default/meshtimeouts";
    assert_eq!(
        global.names(timeouts).await,
        ["mesh-timeout-all-default", "mesh-timeout-to-all-default"]
    );
    for (path, name) in [
        ("meshcircuitbreakers", "mesh-circuit-breaker-all-default"),
        ("meshretries", "mesh-retry-all-default"),
        ("meshidentities", "identity"),
    ] {
        assert_eq!(global.names(&format!("/meshes/default/{path}")).await, [name]);
    }
    let keys = ["dataplane-token-signing-key-default-1"];
    assert_eq!(global.names("/meshes/default/secrets").await, keys);
    let body = json!({
        "type": "Mesh", "name": "shop", "skipCreatingInitialPolicies": ["MeshTimeout"],
    });
    assert_eq!(global.admin(Method::PUT, "/meshes/shop", Some(body)).await.0, 201);
    assert_eq!(global.names("/meshes/shop/meshtimeouts").await, [""; 0]);
    assert_eq!(global.names("/meshes/shop/meshidentities").await, ["identity"]);
    assert_eq!(global.names("/meshes/shop/secrets").await, ["dataplane-token-signing-key-shop-1"]);
    let unwanted = "/meshes/default/meshtimeouts/mesh-timeout-all-default";
    assert_eq!(global.admin(Method::DELETE, unwanted, None).await.0, 200);
    let generator = "/hostnamegenerators/synced-kube-mesh-service";
    assert_eq!(global.admin(Method::DELETE, generator, None).await.0, 200);

    let global = Global::start(global.stop().await).await;
    assert_eq!(global.names(timeouts).await, ["mesh-timeout-to-all-default"]);
    assert_eq!(global.names("/meshes/shop/meshtimeouts").await, [""; 0]);
    assert_eq!(global.names("/hostnamegenerators").await.len(), 4);
    let token = json!({"mesh": "shop", "validFor": "1h"});
    assert_eq!(global.admin(Method::POST, "/tokens/dataplane", Some(token)).await.0, 200);
    assert_eq!(global.admin(Method::DELETE, "/meshes/shop", None).await.0, 200);
    assert_eq!(global.names("/secrets").await, keys);
    global.stop().await;
}

#[tokio::test]
async fn a_zone_comes_by_its_token_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    settings.store.kind = StoreKind::Memory;
    let global = Global::start(settings).await;
    let mint = |zone: &'static str, scope: &'static str| {
        let body = json!({"zone": zone, "scope": [scope], "validFor": "1h"});
        global.admin(Method::POST, "/tokens/zone", Some(body))
    };
    let (_, ingress) = mint("south", "ingress").await;
    let (_, east) = mint("east", "cp").await;
    let refused = [
        global.zone("south", Some(ingress)),
        global.zone("north", None),
        global.zone("west", Some(east.clone())),
    ];
    let zone = global.zone("east", Some(east.clone()));
    global.until("ZoneInsight", global.is_online("east")).await;
    assert_eq!(global.names("/zones").await, ["east"], "nobody else got in");
    drop(refused);

    let (status, text) = global.admin(Method::DELETE, "/zones/east", None).await;
    assert_eq!(status, 409, "{text}");
    drop(zone);
    let online = global.is_online("east");
    global.until("ZoneInsight", |reader| !online(reader)).await;
    let overview = global.get("/zones/east/_overview").await;
    let subscription = &overview["zoneInsight"]["subscriptions"][0];
    assert_eq!(subscription["authTokenProvided"], true);
    assert!(subscription["disconnectTime"].is_string(), "{subscription}");

    assert_eq!(global.admin(Method::DELETE, "/zones/east", None).await.0, 200);
    assert_eq!(global.names("/zone-insights").await, [""; 0], "nothing is known of it any more");
    let zone = global.zone("east", Some(east.clone()));
    let other = mint("west", "cp").await.1;
    let west = global.zone("west", Some(other));
    global.until("ZoneInsight", global.is_online("west")).await;
    assert_eq!(global.names("/zones").await, ["west"], "who was deleted stays out");
    assert_eq!(global.names("/zone-insights").await, ["west"]);
    let allowed = json!({"type": "Zone", "name": "east"});
    assert_eq!(global.admin(Method::PUT, "/zones/east", Some(allowed)).await.0, 201);
    global.until("ZoneInsight", global.is_online("east")).await;
    drop((zone, west));
    global.stop().await;
}

#[tokio::test]
async fn what_a_zone_says_of_its_proxies_is_shown_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    settings.store.kind = StoreKind::Memory;
    let global = Global::start(settings).await;
    let body = json!({"zone": "east", "scope": ["cp"], "validFor": "1h"});
    let (_, token) = global.admin(Method::POST, "/tokens/zone", Some(body)).await;
    let inbound = json!({"port": 8080, "name": "http", "state": "NotReady"});
    let networking = json!({"address": "127.0.0.1", "inbound": [inbound]});
    let connected = "2026-11-24T10:00:00Z";
    let insight = json!({"subscriptions": [{"connectTime": connected}]});
    let resources = vec![
        (dataplane::KIND, "web-1", json!({"networking": networking})),
        (dataplane_insight::KIND, "web-1", insight),
    ];
    let zone = global.zone_with("east", Some(token), resources);
    let online = global.is_online("east");
    global.until("ZoneInsight", &online).await;
    for kind in ["Dataplane", "DataplaneInsight"] {
        let id = global.kinds.id_of(kind).unwrap();
        global.until(kind, |reader| reader.rows(id).1.len() == 1).await;
    }
    let status = async || {
        let list = global.get("/meshes/default/dataplanes/_overview").await;
        list["items"][0]["status"].clone()
    };
    let reason = "inbound http is not ready";
    let not_ready = json!({"state": "NotReady", "since": connected, "reasons": [reason]});
    assert_eq!(status().await, not_ready);
    let metrics = global.metrics().await;
    for line in [
        "zones_online 1",
        "kds_streams{call=\"global-to-zone\"} 1",
        "kds_received_total{kind=\"Dataplane\"} 1",
        "store_resources{kind=\"Dataplane\"} 1",
        "store_resources{kind=\"MeshService\"} 0",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} in {metrics}");
    }

    drop(zone);
    global.until("ZoneInsight", |reader| !online(reader)).await;
    let away = "zone east is not connected; it said NotReady last";
    assert_eq!(status().await, json!({"state": "Unknown", "reasons": [away, reason]}));
    let zones = global.get("/zones/_overview").await;
    assert_eq!(zones["items"][0]["status"]["state"], "Offline");
    assert!(global.metrics().await.lines().any(|line| line == "zones_online 0"));
    global.stop().await;
}

/// What `bind` says, and what is in the folder afterwards.
async fn refused(config: &Config) -> (String, Vec<String>) {
    let error = bind(config, &CancellationToken::new()).await.unwrap_err();
    let files = fs::read_dir(&config.data_dir)
        .map(|files| files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect());
    (format!("{error:#}"), files.unwrap_or_default())
}

#[tokio::test]
async fn what_cannot_be_opened_is_named_and_nothing_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind(any_port()).await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut settings = config(folder.path());
    settings.kds.listen = address;
    let (error, files) = refused(&settings).await;
    assert!(error.starts_with(&format!("kds.listen: cannot listen on {address}")), "{error}");
    assert_eq!(files, [""; 0]);

    let mut settings = config(folder.path());
    settings.tls.cert_file = folder.path().join("none.crt").display().to_string();
    settings.tls.key_file = folder.path().join("none.key").display().to_string();
    let (error, files) = refused(&settings).await;
    assert!(error.contains("tls.") && error.contains("none."), "{error}");
    assert_eq!(files, [""; 0]);

    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let (error, _) = refused(&config(&file)).await;
    assert!(error.starts_with("dataDir: the folder "), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "x");
}
