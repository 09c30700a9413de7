mod served;
mod shared;
mod written;

use super::{
    known::Known,
    review::{Request, Review, Verdict},
    rules::{Fields, Rules},
    server::{Judge, Numbers},
};
use crate::injection::{INJECTION, Namespace};
use api::author::Author;
use kinds::labels::{Env, Place};
use kube::{Client, client::Body};
use parking_lot::Mutex;
use resource::{Kind, Peer, ResourceKey, ZoneName};
use serde_json::{Value, json};
use std::{collections::BTreeMap, convert::Infallible, sync::Arc};
use store::{
    Contents, Kinds, attach,
    view::{Loaded, Revision, Writer},
};
use tokio::sync::watch;

/// A zone with the mesh `default`, and the namespace `shop` whose pods are in it.
struct World {
    judge: Judge,
    view: Writer,
    author: Author,
}

impl World {
    fn new(federated: bool) -> Self {
        let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Global };
        let loaded = kinds.iter().map(|_| Loaded::default()).collect();
        let attached = attach(Contents { kinds: loaded, revision: Revision(0) }, 1);
        let (kinds, reader) = (Arc::new(kinds), attached.reader());
        let name = ZoneName::new("east").unwrap();
        let place = Place::Zone { name, env: Env::Kubernetes };
        let rules = Rules {
            system_namespace: "kuma-system".into(),
            place: place.clone(),
            federated,
            fields: Arc::new(Fields::of(&kinds)),
            kinds: kinds.clone(),
            reader: reader.clone(),
            trusted: vec!["system:serviceaccount:kuma-system:atoll-zone-cp".into()],
        };
        let known = Known::default();
        let labels = BTreeMap::from([(INJECTION.to_owned(), "enabled".to_owned())]);
        known.tell(Namespace { name: "shop".into(), labels, annotations: BTreeMap::new() });
        let judge = Judge {
            rules,
            known,
            injector: crate::injection::Config::default(),
            apexes: Vec::new(),
            reader,
            patches: kinds.id_of("ContainerPatch"),
            trusted: watch::Sender::new(Arc::from("PEM")).subscribe(),
            numbers: Numbers::default(),
        };
        let world = Self { judge, view: attached.view, author: Author { kinds, place } };
        world.has(kinds::mesh::KIND, ResourceKey::global("default"), json!({}));
        world
    }

    fn has(&self, kind: Kind, key: ResourceKey, spec: Value) {
        let item = self.author.create(kind, key, spec).unwrap();
        self.view.apply([(item.kind, item.edit)]);
    }
}

/// A question about an object; `before` is what there is already.
fn question(operation: &str, object: &Value, before: &Value, user: &str) -> Value {
    let of = |pointer: &str| {
        let found = [object, before].into_iter().find_map(|it| it.pointer(pointer)?.as_str());
        found.unwrap_or_default().to_owned()
    };
    let version = of("/apiVersion");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "kind": { "group": group, "version": "v1", "kind": of("/kind") },
            "name": of("/metadata/name"),
            "namespace": of("/metadata/namespace"),
            "operation": operation,
            "userInfo": { "username": user },
            "object": object,
            "oldObject": before,
        },
    })
}

fn request(operation: &str, object: &Value, before: &Value) -> Request {
    let question = question(operation, object, before, "alice");
    Review::read(question.to_string().as_bytes()).unwrap()
}

/// What a user is told, or nothing.
fn said(verdict: &Verdict) -> String {
    verdict.refusal.as_ref().map(|it| it.message().to_owned()).unwrap_or_default()
}

/// An API server that holds one Secret, whose version counts its writes.
#[derive(Clone, Default)]
struct Secrets(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    writes: u64,
    secret: Option<Value>,
    /// So many questions are not answered.
    away: usize,
}

impl Secrets {
    fn client(&self) -> Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let this = this.clone();
            async move {
                let method = request.method().clone();
                let body = request.into_body().collect_bytes().await.unwrap_or_default();
                let (status, body) = this.answer(&method, &body);
                let body = Body::from(body.to_string().into_bytes());
                let response = http::Response::builder().status(status).body(body);
                Ok::<_, Infallible>(response.expect("the parts are constants"))
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &http::Method, body: &[u8]) -> (u16, Value) {
        let mut held = self.0.lock();
        let Held { writes, secret, away } = &mut *held;
        let failure = |code: u16| {
            let reason = match code {
                404 => "NotFound",
                409 => "Conflict",
                _ => "ServiceUnavailable",
            };
            let status = json!({
                "kind": "Status", "status": "Failure", "code": code, "reason": reason,
            });
            (code, status)
        };
        if let Some(less) = away.checked_sub(1) {
            *away = less;
            return failure(503);
        }
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let version = |it: &Value| it.pointer("/metadata/resourceVersion").cloned();
        match (method.as_str(), secret.as_ref()) {
            ("GET", None) => failure(404),
            ("GET", Some(secret)) => (200, secret.clone()),
            ("POST", Some(_)) => failure(409),
            ("PUT", None) => failure(404),
            ("PUT", Some(secret)) if version(secret) != version(&sent) => failure(409),
            ("POST" | "PUT", _) => {
                *writes += 1;
                let mut written = sent;
                written["metadata"]["resourceVersion"] = writes.to_string().into();
                *secret = Some(written.clone());
                (200, written)
            }
            _ => failure(405),
        }
    }
}
