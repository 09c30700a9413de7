//! An API server in memory: lists, watches, conflicts, and an end of all of it.

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body as Asked};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    io,
    sync::Arc,
};
use tokio::sync::watch;

/// See the module. Cloneable.
#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<String, Value>,
    log: Vec<Entry>,
    /// What is before it is forgotten.
    kept_since: u64,
    requests: Vec<String>,
    down: bool,
    /// How often it went down: a watch ends with it.
    falls: u64,
}

#[derive(Clone)]
struct Entry {
    revision: u64,
    collection: String,
    event: Value,
}

/// The URL of the collection of an object, and that of the object.
fn urls(object: &Value) -> (String, String) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let plural = format!("{}s", text("/kind").to_lowercase());
    let all = format!("/api/v1/{plural}");
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    (all, format!("/api/v1/namespaces/{namespace}/{plural}/{name}"))
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), changed: watch::Sender::new(0) }
    }

    /// Who asks it.
    pub(crate) fn client(&self) -> Client {
        let fake = self.clone();
        let answer = move |request| {
            let fake = fake.clone();
            async move { fake.answer(request).await }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    /// Creates or replaces an object.
    pub(crate) fn put(&self, object: Value) {
        let (collection, url) = urls(&object);
        self.write(&collection, url, object);
    }

    pub(crate) fn delete(&self, object: &Value) {
        let (collection, url) = urls(object);
        let mut state = self.state.lock();
        let Some(object) = state.objects.remove(&url) else { return };
        state.note(&collection, "DELETED", object);
        self.changed.send_replace(state.revision);
    }

    fn write(&self, collection: &str, url: String, mut object: Value) -> Value {
        let mut state = self.state.lock();
        object["metadata"]["resourceVersion"] = (state.revision + 1).to_string().into();
        let before = state.objects.insert(url, object.clone());
        let sort = if before.is_some() { "MODIFIED" } else { "ADDED" };
        state.note(collection, sort, object.clone());
        self.changed.send_replace(state.revision);
        object
    }

    /// Breaks all watches and refuses all that is asked, or no more.
    pub(crate) fn set_down(&self, down: bool) {
        let mut state = self.state.lock();
        state.down = down;
        state.falls += u64::from(down);
        self.changed.send_modify(|_| {});
    }

    /// Forgets what was before: whoever watched must list again.
    pub(crate) fn compact(&self) {
        let mut state = self.state.lock();
        state.kept_since = state.revision;
        state.log.clear();
    }

    /// What was asked since the last time, as method and path.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().requests)
    }

    /// Changes the object at `url`, as somebody else would.
    pub(crate) fn edit(&self, url: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.object(url).unwrap();
        edit(&mut object);
        let collection = url.rsplit_once('/').map_or("", |(collection, _)| collection);
        self.write(collection, url.to_owned(), object);
    }

    pub(crate) fn object(&self, url: &str) -> Option<Value> {
        self.state.lock().objects.get(url).cloned()
    }

    /// The objects whose URL contains `part`.
    pub(crate) fn objects(&self, part: &str) -> Vec<Value> {
        let state = self.state.lock();
        let those = state.objects.iter().filter(|(url, _)| url.contains(part));
        those.map(|(_, object)| object.clone()).collect()
    }

    async fn answer(&self, request: Request<Asked>) -> io::Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default());
        let watches = query.contains("watch=true");
        {
            let mut state = self.state.lock();
            let verb = if watches { "WATCH" } else { parts.method.as_str() };
            state.requests.push(format!("{verb} {path}"));
            if state.down {
                return Err(io::Error::other("connection refused"));
            }
        }
        if watches {
            return Ok(self.watch(path, query));
        }
        let body = body.collect_bytes().await.map_err(io::Error::other)?;
        let object = || serde_json::from_slice::<Value>(&body).unwrap();
        let (code, answer) = match parts.method {
            Method::GET => self.get(&path),
            Method::POST => {
                let object = object();
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                self.create(&path, &name, object)
            }
            Method::PUT => self.replace(&path, object()),
            Method::PATCH => self.patch(&path, &object()),
            other => panic!("{other} {path}"),
        };
        Ok(Response::builder().status(code).body(answer.to_string().into()).unwrap())
    }

    fn get(&self, path: &str) -> (StatusCode, Value) {
        let state = self.state.lock();
        if let Some(object) = state.objects.get(path) {
            return (StatusCode::OK, object.clone());
        }
        let Some(plural) = path.strip_prefix("/api/v1/").filter(|it| !it.contains('/')) else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        let is_one = |url: &str| {
            let collection = url.rsplit_once('/').map_or("", |(collection, _)| collection);
            collection.ends_with(&format!("/{plural}"))
        };
        let those = state.objects.iter().filter(|(url, _)| is_one(url));
        let items: Vec<&Value> = those.map(|(_, object)| object).collect();
        let metadata = json!({ "resourceVersion": state.revision.to_string() });
        (StatusCode::OK, json!({ "metadata": metadata, "items": items }))
    }

    fn create(&self, path: &str, name: &str, object: Value) -> (StatusCode, Value) {
        let url = format!("{path}/{name}");
        if self.state.lock().objects.contains_key(&url) {
            return failure(StatusCode::CONFLICT, "AlreadyExists");
        }
        (StatusCode::CREATED, self.write(path, url, object))
    }

    fn replace(&self, path: &str, object: Value) -> (StatusCode, Value) {
        let stored = self.object(path);
        let version = |it: &Value| it["metadata"]["resourceVersion"].clone();
        if stored.as_ref().is_none_or(|stored| version(stored) != version(&object)) {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        (StatusCode::OK, self.write(path, path.to_owned(), object))
    }

    /// By a merge patch.
    fn patch(&self, path: &str, patch: &Value) -> (StatusCode, Value) {
        let Some(mut object) = self.object(path) else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        merge(&mut object, patch);
        let collection = path.rsplit_once('/').map_or("", |(collection, _)| collection);
        (StatusCode::OK, self.write(collection, path.to_owned(), object))
    }

    fn watch(&self, path: String, query: &str) -> Response<Body> {
        let since = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
        let since: u64 = since.and_then(|it| it.parse().ok()).unwrap_or_default();
        let (mut waiting, falls) = (VecDeque::new(), self.state.lock().falls);
        if since < self.state.lock().kept_since {
            let (_, gone) = failure(StatusCode::GONE, "Expired");
            waiting.push_back(json!({ "type": "ERROR", "object": gone }));
        }
        let place = Place { fake: self.clone(), path, since, falls, waiting };
        let events =
            stream::unfold((place, self.changed.subscribe()), async |(mut it, mut told)| {
                loop {
                    if let Some(event) = it.waiting.pop_front() {
                        let line = Bytes::from(format!("{event}\n"));
                        return Some((Ok::<_, Infallible>(line), (it, told)));
                    }
                    told.borrow_and_update();
                    if !it.look() {
                        return None;
                    }
                    if it.waiting.is_empty() {
                        told.changed().await.ok()?;
                    }
                }
            });
        Response::new(Body::from_stream(events))
    }
}

/// How far a watch is.
struct Place {
    fake: Fake,
    path: String,
    since: u64,
    falls: u64,
    waiting: VecDeque<Value>,
}

impl Place {
    /// Takes what happened since; false if the server went down.
    fn look(&mut self) -> bool {
        let state = self.fake.state.lock();
        let news = state.log.iter().filter(|it| it.revision > self.since);
        let ours = news.filter(|entry| entry.collection == self.path);
        self.waiting.extend(ours.map(|entry| entry.event.clone()));
        self.since = self.since.max(state.revision);
        state.falls == self.falls
    }
}

impl State {
    fn note(&mut self, collection: &str, sort: &str, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let event = json!({ "type": sort, "object": object });
        let collection = collection.to_owned();
        self.log.push(Entry { revision: self.revision, collection, event });
    }
}

/// RFC 7396.
fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    for (name, value) in fields {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut into[name], value);
        }
    }
}

fn failure(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    let code_number = code.as_u16();
    let status = json!({
        "kind": "Status", "status": "Failure", "reason": reason, "message": reason,
        "code": code_number,
    });
    (code, status)
}
