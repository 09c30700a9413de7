mod envoys;
mod expiry;
mod mesh_insights;
mod overview;
mod propagation;
mod refusing;
mod roles;
mod secrets;

use super::*;
use axum::body::Body;
use daemon::Clock;
use http::{Request, header};
use http_body_util::BodyExt as _;
use identity::token::{KeySet, SigningKey, UserClaims, mint};
use jiff::Timestamp;
use kinds::labels::{Env, Place as Here};
use resource::{Audience, Labels, MeshName, Peer, Resource, ResourceKey, ZoneName};
use serde_json::{Value, json};
use std::{sync::LazyLock, time::Duration};
use store::{Expected, Item, Kinds, Local, Memory, view::Edit};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

const NOW: &str = "2026-11-24T12:00:00Z";
const PATIENCE: Duration = Duration::from_secs(60);
static KEY: LazyLock<String> =
    LazyLock::new(|| SigningKey::generate().unwrap().private_pem().to_owned());

/// A control plane's API without a port.
struct Cp {
    router: Router,
    store: Local,
    kinds: Arc<Kinds>,
    shutdown: CancellationToken,
    _tasks: tokio::task::JoinSet<()>,
}

/// What others tell the API.
type Told = (
    Option<Arc<dyn following::Follow>>,
    Option<Arc<dyn inspect::Envoys>>,
    Option<Arc<dyn crate::propagation::Propagate>>,
);

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// Status, title and detail, and what is wrong with which field.
    fn refusal(&self) -> (u16, String, Vec<(String, String)>) {
        let body = self.json();
        assert_eq!(body["type"], "/std-errors");
        assert_eq!(body["status"], self.status);
        assert_eq!(body["detail"], body["details"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let none = Vec::new();
        let fields = body["invalid_parameters"].as_array().unwrap_or(&none).iter();
        let fields = fields.map(|field| (text(&field["field"]), text(&field["reason"]))).collect();
        (self.status, format!("{}: {}", text(&body["title"]), text(&body["detail"])), fields)
    }
}

fn user(groups: &[&str]) -> String {
    let mut keys = KeySet::default();
    keys.insert(1, &KEY).unwrap();
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    let claims = UserClaims { name: "ann".into(), groups };
    mint(&keys, &claims, NOW.parse().unwrap(), Duration::from_secs(3600)).unwrap()
}

fn global() -> Place {
    Place::global()
}

fn east() -> Place {
    let name = ZoneName::new("east").unwrap();
    Place { here: Here::Zone { name, env: Env::Universal }, federated: true }
}

impl Cp {
    async fn at(place: Place) -> Self {
        Self::with(place, None, None, None).await
    }

    async fn following(place: Place, global: Option<Arc<dyn following::Follow>>) -> Self {
        Self::with(place, global, None, None).await
    }

    async fn with(
        place: Place,
        global: Option<Arc<dyn following::Follow>>,
        envoys: Option<Arc<dyn inspect::Envoys>>,
        propagation: Option<Arc<dyn crate::propagation::Propagate>>,
    ) -> Self {
        let peer = if place.here == Here::Global { Peer::Zone } else { Peer::Global };
        let kinds = Kinds { list: kinds::all().collect(), peer };
        let clock = Clock::since(NOW.parse::<Timestamp>().unwrap());
        let (store, writer) = store::open(Memory::new(7), kinds.clone(), clock).unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async { writer.run().await.unwrap() });
        let cp = Self::on(place, (store, kinds), tasks, (global, envoys, propagation));
        cp.store(
            "GlobalSecret",
            ResourceKey::global("user-token-signing-key-1"),
            &[],
            json!({"data": encoded(&KEY)}),
        )
        .await;
        cp.store("Mesh", ResourceKey::global("shop"), &[], json!({})).await;
        cp
    }

    fn on(
        place: Place,
        (store, kinds): (Local, Kinds),
        tasks: tokio::task::JoinSet<()>,
        (global, envoys, propagation): Told,
    ) -> Self {
        let clock = Clock::since(NOW.parse::<Timestamp>().unwrap());
        let (kinds, shutdown) = (Arc::new(kinds), CancellationToken::new());
        let (shared, reader) = ((&*kinds, &place.here), store.reader());
        let expiry =
            crate::expiry::Expiry::new(shared, reader, clock.clone(), vec![Arc::new(expiry::Held)]);
        let router = router(ApiState {
            backend: store.clone(),
            kinds: kinds.clone(),
            place,
            clock,
            about: About { version: "1.2.3".into(), hostname: "host".into(), ..About::default() },
            entry: Entry::default(),
            config: json!({"dataDir": "x"}),
            hooks: Arc::new(NoHooks),
            global,
            propagation,
            freshness: None,
            expiry: Some(expiry),
            envoys,
            shutdown: shutdown.clone(),
        });
        Self { router, store, kinds, shutdown, _tasks: tasks }
    }

    fn id(&self, kind: &str) -> KindId {
        self.kinds.id_of(kind).unwrap()
    }

    /// Puts something there as a control plane does.
    async fn store(&self, kind: &str, key: ResourceKey, labels: &[(&str, &str)], spec: Value) {
        let (id, kind) = self.kinds.iter().find(|(_, known)| known.name == kind).unwrap();
        let spec = kind.encode(&kind.from_json(spec).unwrap()).unwrap();
        let labels: Labels = labels.iter().copied().collect();
        let row: Resource = kind.resource(key, labels, spec, "".into(), self.kinds.peer).unwrap();
        let row = row.shown_to(Audience::default());
        let item = Item { kind: id, expected: Expected::Anything, edit: Edit::Put(Arc::new(row)) };
        self.store.commit(vec![item]).await.unwrap();
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> http::request::Builder {
        let here = "127.0.0.1:5681".parse().unwrap();
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header(header::HOST, "localhost:5681");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.extension(serve::Connection { peer: here, local: here, tls: false })
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Answer {
        let request = Self::request(method, path, headers).body(Body::from(body)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    async fn as_user(
        &self,
        groups: &[&str],
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let token = format!("Bearer {}", user(groups));
        let headers = [("authorization", &*token), ("content-type", "application/json")];
        self.send(method, path, &headers, body.map(|body| body.to_string()).unwrap_or_default())
            .await
    }

    async fn get(&self, path: &str) -> Answer {
        self.as_user(&[access::ADMIN], "GET", path, None).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.as_user(&[access::ADMIN], "PUT", path, Some(body)).await
    }

    async fn put_if(&self, path: &str, body: Value, condition: (&str, &str)) -> Answer {
        let token = format!("Bearer {}", user(&[access::ADMIN]));
        let headers = [("authorization", &*token), ("content-type", "application/json"), condition];
        self.send("PUT", path, &headers, body.to_string()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.as_user(&[access::ADMIN], "DELETE", path, None).await
    }
}

fn encoded(text: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(text)
}

fn in_shop(name: &str) -> ResourceKey {
    ResourceKey::in_mesh(&MeshName::new("shop").unwrap(), name)
}

fn timeout(name: &str, labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let to = json!([{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": "20s"}}]);
    json!({"type": "MeshTimeout", "mesh": "shop", "name": name, "labels": labels, "spec": {"to": to}})
}

const TIMEOUTS: &str = "/meshes/shop/meshtimeouts";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_put_is_shown() {
    let cp = Cp::at(global()).await;
    let path = format!("{TIMEOUTS}/t1");
    let created = cp.put(&path, timeout("t1", &[("team", "a")])).await;
    assert_eq!((created.status, &*created.text), (201, "{}"));
    let shown = cp.get(&path).await;
    assert_eq!(
        shown.json(),
        json!({
            "type": "MeshTimeout",
            "mesh": "shop",
            "name": "t1",
            "creationTime": NOW,
            "modificationTime": NOW,
            "labels": {
                "kuma.io/display-name": "t1",
                "kuma.io/mesh": "shop",
                "kuma.io/origin": "global",
                "team": "a",
            },
            "kri": "kri_mt_shop___t1_",
            "spec": {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": "20s"}}]},
        })
    );
    assert_eq!(shown.header("etag"), created.header("etag"));
    let updated = cp.put(&path, shown.json()).await;
    assert_eq!(updated.status, 200, "what was read may be written back");
    assert_eq!(cp.get("/_kri/kri_mt_shop___t1_").await.json(), shown.json());

    let mesh = cp.get("/meshes/shop/").await.json();
    let expected = json!({"type": "Mesh", "name": "shop", "creationTime": NOW, "modificationTime": NOW, "kri": "kri_m____shop_"});
    assert_eq!(mesh, expected, "fields of a Mesh stand beside its name");
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_came_from_a_zone_is_found_by_its_kri() {
    let cp = Cp::at(global()).await;
    let labels =
        [("kuma.io/display-name", "cart"), ("kuma.io/zone", "east"), ("kuma.io/origin", "zone")];
    let spec = json!({"ports": [{"name": "http", "port": 80}], "selector": {}});
    cp.store("MeshService", in_shop("cart-f4w7f28dw884c4x4"), &labels, spec).await;
    let found = cp.get("/_kri/kri_msvc_shop_east__cart_http").await.json();
    assert_eq!(found["name"], "cart-f4w7f28dw884c4x4");
    assert_eq!(found["snis"], json!([{"port": 80, "sni": "sni.msvc.shop.east.cart.http"}]));
    assert_eq!(cp.get("/_kri/kri_msvc_shop_west__cart_").await.status, 404);
    assert_eq!(cp.get("/_kri/cart").await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn yaml_is_taken_as_well() {
    let cp = Cp::at(global()).await;
    let token = format!("Bearer {}", user(&[access::ADMIN]));
    let headers = [("authorization", &*token), ("content-type", "application/yaml")];
    let body = "type: MeshTimeout\nname: t1\nspec:\n  to:\n  - targetRef: {kind: Mesh}\n    default: {idleTimeout: 20s}\n";
    let put = cp.send("PUT", &format!("{TIMEOUTS}/t1"), &headers, body.into()).await;
    assert_eq!((put.status, &*put.text), (201, "{}"));
}

#[tokio::test(start_paused = true)]
async fn every_violation_is_named_with_its_field() {
    let cp = Cp::at(global()).await;
    let refused = |body: Value| async { cp.put(&format!("{TIMEOUTS}/bad"), body).await.refusal() };
    let fields = |fields: &[(&str, &str)]| -> Vec<(String, String)> {
        fields.iter().map(|(field, reason)| ((*field).into(), (*reason).into())).collect()
    };
    let invalid = "Could not process a resource: Resource is not valid".to_owned();
    assert_eq!(
        refused(json!({"mesh": "bank", "type": "MeshRetry", "labels": []})).await,
        (
            400,
            invalid.clone(),
            fields(&[
                ("type", "type in body should be one of [MeshTimeout]"),
                ("name", ".name in body is required"),
                ("mesh", "mesh from the URL has to be the same as in body"),
                ("labels", "must be a map of texts"),
                ("spec", ".spec in body is required"),
            ])
        )
    );
    let mut two = timeout("bad", &[]);
    two["spec"]["to"] = json!([
        {"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": "-20s"}},
        {"targetRef": {"kind": "MeshService"}, "default": {}},
    ]);
    let (status, title, found) = refused(two).await;
    assert_eq!((status, title), (400, invalid.clone()));
    let found: Vec<&str> = found.iter().map(|(field, _)| &**field).collect();
    assert_eq!(
        found,
        ["spec.to[1].targetRef.labels", "spec.to[0].default.idleTimeout", "spec.to[1].default"]
    );
    let lie = timeout("bad", &[("kuma.io/origin", "zone"), ("kuma.io/mesh", "bank")]);
    assert_eq!(
        refused(lie).await,
        (
            400,
            invalid,
            fields(&[
                (r#"labels["kuma.io/origin"]"#, "the origin label must be set to 'global'"),
                (r#"labels["kuma.io/mesh"]"#, r#"must be "shop""#),
            ])
        )
    );
    assert_eq!(refused(json!([])).await.1, "Bad Request: invalid MeshTimeout object: not a map");
    assert_eq!(cp.get(TIMEOUTS).await.json()["total"], 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_named() {
    let cp = Cp::at(global()).await;
    let title = |answer: Answer| (answer.status, answer.refusal().1);
    for (path, detail) in [
        ("/meshes/bank/meshtimeouts", r#"Failed to retrieve Mesh: mesh "bank" not found"#),
        (
            "/meshes/Bad_Mesh/meshtimeouts/a",
            r#"Failed to retrieve Mesh: mesh "Bad_Mesh" not found"#,
        ),
        (
            "/meshes/shop/meshtimeouts/a",
            r#"Could not retrieve a resource: MeshTimeout "a" not found in mesh "shop""#,
        ),
        ("/zones/a/_overview", r#"Could not retrieve a resource: Zone "a" not found"#),
        (
            "/meshes/shop/meshnothings",
            r#"Page Not Found: there is nothing at "/meshes/shop/meshnothings""#,
        ),
    ] {
        assert_eq!(title(cp.get(path).await), (404, detail.into()), "{path}");
    }
    let deleted = cp.delete(&format!("{TIMEOUTS}/a")).await;
    assert_eq!(
        title(deleted),
        (404, r#"Could not delete a resource: MeshTimeout "a" not found in mesh "shop""#.into())
    );
    let patched = cp.as_user(&[access::ADMIN], "PATCH", &format!("{TIMEOUTS}/a"), None).await;
    assert_eq!(title(patched), (405, "Method not allowed: PATCH is not possible here".into()));
}

#[tokio::test(start_paused = true)]
async fn a_list_comes_in_pages() {
    let cp = Cp::at(global()).await;
    for name in ["a", "b", "c"] {
        let labels: &[_] = if name == "b" { &[] } else { &[("team", "x")] };
        cp.put(&format!("{TIMEOUTS}/{name}"), timeout(name, labels)).await;
    }
    cp.put("/meshes/tail", json!({"type": "Mesh", "name": "tail"})).await;
    let other = ResourceKey::in_mesh(&MeshName::new("tail").unwrap(), "z");
    cp.store("MeshTimeout", other, &[], timeout("z", &[])["spec"].clone()).await;

    let page = cp.get(&format!("{TIMEOUTS}?size=2")).await.json();
    assert_eq!((names(&page), &page["total"]), (vec!["a", "b"], &json!(3)));
    let next = "http://localhost:5681/meshes/shop/meshtimeouts?offset=2&size=2";
    assert_eq!(page["next"], next);
    let page = cp.get(next.strip_prefix("http://localhost:5681").unwrap()).await.json();
    assert_eq!((names(&page), &page["total"], &page["next"]), (vec!["c"], &json!(3), &Value::Null));
    let page = cp.get(&format!("{TIMEOUTS}?offset=9")).await.json();
    assert_eq!(page, json!({"total": 3, "items": [], "next": null}));

    assert_eq!(names(&cp.get("/meshtimeouts").await.json()), ["a", "b", "c", "z"]);
    let filtered = cp.get("/meshtimeouts?filter[labels.team]=x&size=1").await.json();
    assert_eq!((names(&filtered), &filtered["total"]), (vec!["a"], &json!(2)));
    assert_eq!(names(&cp.get("/meshtimeouts?name=c").await.json()), ["c"]);
    assert_eq!(cp.get("/meshtimeouts?size=1001").await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_write_can_depend_on_what_is_there() {
    let cp = Cp::at(global()).await;
    let path = format!("{TIMEOUTS}/t1");
    let first = cp.put_if(&path, timeout("t1", &[]), ("if-none-match", "*")).await;
    assert_eq!(first.status, 201);
    let again = cp.put_if(&path, timeout("t1", &[]), ("if-none-match", "*")).await;
    assert_eq!(again.status, 412);
    let etag = first.header("etag").to_owned();
    let second = cp.put_if(&path, timeout("t1", &[("n", "2")]), ("if-match", &etag)).await;
    assert_eq!(second.status, 200);
    let stale = cp.put_if(&path, timeout("t1", &[("n", "3")]), ("if-match", &etag)).await;
    assert_eq!(stale.status, 412);
    let malformed = cp.put_if(&path, timeout("t1", &[]), ("if-match", "x")).await;
    assert_eq!(malformed.status, 400);
    assert_eq!(cp.get(&path).await.json()["labels"]["n"], "2");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_shows_what_would_be_and_changes_nothing() {
    let cp = Cp::at(global()).await;
    let tried = cp.put(&format!("{TIMEOUTS}/t1?dryRun=true"), timeout("t1", &[])).await;
    assert_eq!(tried.status, 201);
    assert_eq!(tried.json()["kri"], "kri_mt_shop___t1_");
    assert_eq!(cp.get(TIMEOUTS).await.json()["total"], 0);
    let tried = cp.delete("/meshes/shop?dryRun=true").await;
    assert_eq!((tried.status, cp.get("/meshes/shop").await.status), (200, 200));
}

#[tokio::test(start_paused = true)]
async fn a_mesh_takes_along_what_is_in_it() {
    let cp = Cp::at(global()).await;
    cp.put("/meshes/bank", json!({"type": "Mesh", "name": "bank"})).await;
    cp.put(&format!("{TIMEOUTS}/t1"), timeout("t1", &[])).await;
    let secret = json!({"type": "Secret", "mesh": "bank", "name": "s", "data": "eA=="});
    assert_eq!(cp.put("/meshes/bank/secrets/s", secret).await.status, 201);
    assert_eq!(cp.delete("/meshes/shop").await.status, 200);
    assert_eq!(cp.get("/meshtimeouts").await.json()["total"], 0);
    assert_eq!(cp.get("/secrets").await.json()["total"], 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_zone_keeps_in_a_service_outlasts_a_write_of_somebody_else() {
    let cp = Cp::at(east()).await;
    let identity =
        json!([{"type": "SpiffeID", "value": "spiffe://shop.east.mesh.local/workload/cart"}]);
    let of_zone = json!({"state": "Available", "identities": identity});
    cp.store("MeshService", in_shop("cart"), &[("kuma.io/zone", "east")], of_zone).await;
    let ports = json!([{"port": 80, "appProtocol": "tcp"}]);
    let cart =
        json!({"type": "MeshService", "mesh": "shop", "name": "cart", "spec": {"ports": ports}});
    cp.put("/meshes/shop/meshservices/cart", cart).await;
    let spec = cp.get("/meshes/shop/meshservices/cart").await.json()["spec"].clone();
    assert_eq!(spec, json!({"state": "Available", "ports": ports, "identities": identity}));
}

#[tokio::test(start_paused = true)]
async fn global_and_zones_write_what_is_theirs() {
    let (cp, zone) = (Cp::at(global()).await, Cp::at(east()).await);
    let dataplane = json!({
        "type": "Dataplane", "mesh": "shop", "name": "d", "networking": {"address": "127.0.0.9"},
        "labels": {"kuma.io/workload": "web"},
    });
    let path = "/meshes/shop/dataplanes/d";
    let refused = cp.put(path, dataplane.clone()).await;
    assert_eq!(
        (refused.status, &*refused.refusal().1),
        (
            405,
            &*format!(
                "Method not allowed: {}",
                write::refusal(&kinds::dataplane::KIND, &global()).unwrap()
            )
        )
    );
    assert_eq!(zone.put(path, dataplane).await.status, 201);
    let labels = zone.get(path).await.json()["labels"].clone();
    assert_eq!(labels["kuma.io/zone"], "east");
    assert_eq!(zone.put("/meshes/bank", json!({"type": "Mesh", "name": "bank"})).await.status, 405);
    assert_eq!(zone.delete("/meshes/shop").await.status, 405);
    assert_eq!(cp.put("/meshes/shop/dataplane-insights/d", json!({})).await.status, 405);

    let copy =
        [("kuma.io/origin", "global"), ("kuma.io/mesh", "shop"), ("kuma.io/display-name", "t1")];
    let copied = timeout("t1-b5w686xx59cxw57z", &[("kuma.io/origin", "zone")]);
    let path = format!("{TIMEOUTS}/t1-b5w686xx59cxw57z");
    zone.store("MeshTimeout", in_shop("t1-b5w686xx59cxw57z"), &copy, copied["spec"].clone()).await;
    assert_eq!(zone.put(&path, copied).await.status, 400, "a copy cannot be taken over");
    assert_eq!(zone.delete(&path).await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_in_without_a_token() {
    let cp = Cp::at(global()).await;
    let anonymous = |headers: &'static [(&str, &str)], path: &'static str| {
        cp.send("GET", path, headers, String::new())
    };
    assert_eq!(
        anonymous(&[], "/").await.json(),
        json!({"product": "Atoll", "version": "1.2.3", "instanceId": "", "clusterId": "", "hostname": "host", "gui": ""})
    );
    let unauthenticated = (401, "Invalid authentication data: Unauthenticated".into(), vec![]);
    for path in [
        "/meshes",
        "/who-am-i",
        "/_resources",
        "/policies",
        "/config",
        "/nothing",
        "/global-insight",
    ] {
        assert_eq!(anonymous(&[], path).await.refusal(), unauthenticated, "{path}");
    }
    for authorization in ["Bearer nope", "Basic eDp5", "Bearer "] {
        let headers: &[(&str, &str)] = &[("authorization", authorization)];
        let answer = cp.send("GET", "/meshes", headers, String::new()).await;
        assert_eq!(answer.refusal(), unauthenticated, "{authorization}");
    }
    assert_eq!(anonymous(&[("host", "rebound.example")], "/").await.status, 421);
    assert_eq!(anonymous(&[("origin", "http://evil.example")], "/").await.status, 403);
    assert_eq!(anonymous(&[("accept", "text/html")], "/").await.status, 406);
}

#[tokio::test(start_paused = true)]
async fn a_member_of_one_mesh_sees_no_other() {
    let cp = Cp::at(global()).await;
    cp.put("/meshes/bank", json!({"type": "Mesh", "name": "bank"})).await;
    cp.put(&format!("{TIMEOUTS}/t1"), timeout("t1", &[])).await;
    let reader = ["mesh:bank:reader"];
    let get = |path: &'static str| cp.as_user(&reader, "GET", path, None);
    assert_eq!(names(&get("/meshes").await.json()), ["bank"]);
    assert_eq!(get("/meshtimeouts").await.json(), json!({"total": 0, "items": [], "next": null}));
    assert_eq!(get("/meshes/shop/meshtimeouts").await.status, 403);
    assert_eq!(
        get("/meshes/nowhere/meshtimeouts").await.status,
        403,
        "does not tell what there is"
    );
    assert_eq!(get("/_kri/kri_mt_shop___t1_").await.status, 404);
    assert_eq!(get("/config").await.status, 403);
    let own = timeout("t1", &[]);
    assert_eq!(
        cp.as_user(&reader, "PUT", "/meshes/bank/meshtimeouts/t1", Some(own)).await.status,
        403
    );
}

#[tokio::test(start_paused = true)]
async fn a_large_body_is_refused() {
    let cp = Cp::at(global()).await;
    let mut body = timeout("t1", &[]);
    body["pad"] = json!("x".repeat(limits::BODY));
    let refused = cp.put(&format!("{TIMEOUTS}/t1"), body).await;
    let said = format!("Bad Request: a body may have {} bytes", limits::BODY);
    assert_eq!(refused.refusal(), (400, said, vec![]));
}

#[tokio::test(start_paused = true)]
async fn tokens_say_what_was_asked_for() {
    let cp = Cp::at(global()).await;
    let key = json!({"data": encoded(&KEY)});
    cp.store("Secret", in_shop("dataplane-token-signing-key-shop-1"), &[], key).await;
    let post = |path: &'static str, body: Value| async {
        cp.as_user(&[access::ADMIN], "POST", path, Some(body)).await
    };
    let token =
        post("/tokens/dataplane", json!({"mesh": "shop", "workload": "web", "validFor": "24h"}))
            .await;
    assert_eq!((token.status, token.header("content-type")), (200, "text/plain"));
    let claims: Vec<Value> = token
        .text
        .split('.')
        .take(2)
        .map(|part| {
            use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        })
        .collect();
    assert_eq!(claims[0], json!({"alg": "RS256", "kid": "1", "typ": "JWT"}));
    assert_eq!((&claims[1]["Mesh"], &claims[1]["Workload"]), (&json!("shop"), &json!("web")));

    let refusal = |answer: Answer| answer.refusal();
    let (status, title, fields) = refusal(post("/tokens/user", json!({})).await);
    assert_eq!((status, &*title), (400, "Invalid request: Resource is not valid"));
    assert_eq!(
        fields,
        [
            ("name".into(), "cannot be empty".into()),
            ("validFor".into(), "cannot be empty".to_owned())
        ]
    );
    let (status, title, _) =
        refusal(post("/tokens/zone", json!({"zone": "east", "scope": ["cp"]})).await);
    assert_eq!(
        (status, &*title),
        (404, "Signing Key not found: this control plane has no key for zone tokens")
    );
    let (status, _, fields) =
        refusal(post("/tokens/zone", json!({"scope": ["x"], "validFor": "0s"})).await);
    assert_eq!((status, fields.len()), (400, 3));
    let member = cp
        .as_user(&["mesh:shop:writer"], "POST", "/tokens/dataplane", Some(json!({"mesh": "shop"})))
        .await;
    assert_eq!(member.status, 403);
}

#[tokio::test(start_paused = true)]
async fn an_overview_joins_what_is_known() {
    let cp = Cp::at(global()).await;
    cp.store("Zone", ResourceKey::global("east"), &[], json!({"enabled": true})).await;
    let insight = json!({"subscriptions": [{"id": "1", "globalInstanceId": "g"}]});
    cp.store("ZoneInsight", ResourceKey::global("east"), &[], insight.clone()).await;
    let expected = json!({
        "type": "ZoneOverview",
        "name": "east",
        "creationTime": NOW,
        "modificationTime": NOW,
        "kri": "kri_z____east_",
        "zone": {"enabled": true},
        "zoneInsight": insight,
        "status": {"state": "Offline", "reasons": ["it never was connected"]},
    });
    assert_eq!(cp.get("/zones/east/_overview").await.json(), expected);
    let list = json!({"total": 1, "items": [expected], "next": null});
    assert_eq!(cp.get("/zones/_overview").await.json(), list);
    assert_eq!(cp.get("/zones+insights").await.json(), list);
    assert_eq!(cp.get("/meshes/shop/dataplanes/_overview").await.json()["total"], 0);
    assert_eq!(cp.delete("/zones/east").await.status, 200);
    assert_eq!(
        cp.get("/zone-insights").await.json()["total"],
        0,
        "nothing is known of what is gone"
    );
}

/// What a watch says next, without revisions.
async fn next(body: &mut Body) -> Vec<String> {
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("nothing happened");
    let text = frame.unwrap().unwrap().into_data().unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let name = [&line["resource"]["name"], &line["name"]].into_iter().find_map(Value::as_str);
        [line["event"].as_str().unwrap(), name.unwrap_or_default()].join(" ").trim().to_owned()
    };
    std::str::from_utf8(&text).unwrap().lines().map(line).collect()
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_changes() {
    let cp = Cp::at(global()).await;
    cp.put(&format!("{TIMEOUTS}/a"), timeout("a", &[("team", "x")])).await;
    let revision = cp.get(TIMEOUTS).await.header("atoll-revision").to_owned();
    let open = |query: String| {
        let token = format!("Bearer {}", user(&["mesh:shop:reader"]));
        let path = format!("{TIMEOUTS}?watch=true&filter[labels.team]=x{query}");
        let request = Cp::request("GET", &path, &[("authorization", &token)]).body(Body::empty());
        let router = cp.router.clone();
        async move { router.oneshot(request.unwrap()).await.unwrap().into_body() }
    };
    let mut all = open(String::new()).await;
    assert_eq!(next(&mut all).await, ["put a", "bookmark"]);
    let mut since = open(format!("&revision={revision}")).await;
    let quiet = tokio::time::timeout(PATIENCE, since.frame()).await;
    assert!(quiet.is_err(), "{quiet:?} without a change");
    let mut foreign = open("&revision=1-1".into()).await;
    assert_eq!(next(&mut foreign).await, ["reset", "put a", "bookmark"]);

    cp.put(&format!("{TIMEOUTS}/b"), timeout("b", &[("team", "x")])).await;
    cp.put(&format!("{TIMEOUTS}/c"), timeout("c", &[])).await;
    assert_eq!(next(&mut since).await, ["put b", "bookmark"]);
    cp.put(&format!("{TIMEOUTS}/a"), timeout("a", &[])).await;
    assert_eq!(
        next(&mut since).await,
        ["delete a", "bookmark"],
        "it is no longer what was asked for"
    );
    cp.shutdown.cancel();
    assert!(tokio::time::timeout(PATIENCE, since.frame()).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn watches_are_bounded() {
    let cp = Cp::at(global()).await;
    let mut open = Vec::new();
    let token = format!("Bearer {}", user(&[access::ADMIN]));
    for _ in 0..=limits::WATCHES {
        let path = format!("{TIMEOUTS}?watch=true");
        let request = Cp::request("GET", &path, &[("authorization", &token)]).body(Body::empty());
        open.push(cp.router.clone().oneshot(request.unwrap()).await.unwrap());
    }
    let statuses: Vec<u16> = open.iter().map(|response| response.status().as_u16()).collect();
    assert!(statuses.iter().take(limits::WATCHES).all(|status| *status == 200));
    assert_eq!(statuses.last(), Some(&503));
}

#[tokio::test(start_paused = true)]
async fn kinds_are_described() {
    let (cp, zone) = (Cp::at(global()).await, Cp::at(east()).await);
    let of = |list: &Value, name: &str| {
        let found = list.as_array().unwrap().iter().find(|kind| kind["name"] == name);
        found.cloned().unwrap()
    };
    let resources = cp.get("/_resources").await.json()["resources"].clone();
    assert_eq!(
        of(&resources, "MeshTimeout"),
        json!({
            "includeInFederation": true,
            "name": "MeshTimeout",
            "path": "meshtimeouts",
            "pluralDisplayName": "Mesh Timeouts",
            "policy": {
                "hasFromTargetRef": false,
                "hasRulesTargetRef": true,
                "hasToTargetRef": true,
                "isFromAsRules": false,
                "isTargetRef": true,
            },
            "readOnly": false,
            "scope": "Mesh",
            "shortName": "mt",
            "singularDisplayName": "Mesh Timeout",
        })
    );
    assert_eq!(of(&resources, "MeshIdentity")["pluralDisplayName"], "Mesh Identities");
    let read_only = |list: &Value, name: &str| of(list, name)["readOnly"].clone();
    let in_zone = zone.get("/_resources").await.json()["resources"].clone();
    assert_eq!([read_only(&resources, "Mesh"), read_only(&in_zone, "Mesh")], [false, true]);
    assert_eq!(
        [read_only(&resources, "Dataplane"), read_only(&in_zone, "Dataplane")],
        [true, false]
    );
    // It is an insight, but not one about single meshes that a list could show beside them.
    assert_eq!(cp.get("/meshes/shop/_overview").await.status, 404);
    let policies = cp.get("/policies").await.json()["policies"].clone();
    assert_eq!(of(&policies, "MeshTrafficPermission")["isOutbound"], false);
}

#[tokio::test(start_paused = true)]
async fn everything_is_counted() {
    let cp = Cp::at(global()).await;
    let inbound = json!({"networking": {"address": "127.0.0.1", "inbound": [{"port": 80}]}});
    let connected = json!({"subscriptions": [{"id": "1", "connectTime": NOW}]});
    cp.store("Dataplane", in_shop("on"), &[], inbound.clone()).await;
    cp.store("DataplaneInsight", in_shop("on"), &[], connected).await;
    let ingress = [("kuma.io/listener-zoneingress", "enabled")];
    cp.store("Dataplane", in_shop("off"), &ingress, inbound).await;
    cp.store("Zone", ResourceKey::global("east"), &[], json!({})).await;
    cp.put(&format!("{TIMEOUTS}/a"), timeout("a", &[])).await;
    cp.store("MeshExternalService", in_shop("psp"), &[], json!({"match": {"port": 443}})).await;
    let none = json!({"offline": 0, "online": 0, "partiallyDegraded": 0, "total": 0});
    let expected = json!({
        "createdAt": NOW,
        "dataplanes": {
            "gatewayDelegated": none,
            "standard": {"offline": 1, "online": 1, "partiallyDegraded": 0, "total": 2},
        },
        "meshes": {"total": 1},
        "policies": {"total": 1},
        "resources": {
            "Dataplane": {"total": 2},
            "MeshExternalService": {"total": 1},
            "MeshTimeout": {"total": 1},
        },
        "services": {"external": {"total": 1}, "gatewayDelegated": none, "internal": none},
        "zones": {
            "controlPlanes": {"online": 0, "total": 1},
            "zoneEgresses": {"online": 0, "total": 0},
            "zoneIngresses": {"online": 0, "total": 1},
        },
    });
    assert_eq!(cp.get("/global-insight").await.json(), expected);
    cp.delete(&format!("{TIMEOUTS}/a")).await;
    assert_eq!(cp.get("/global-insights").await.json()["policies"]["total"], 0);
}
