//! The store before an API server that says what a test says.

mod objects;
mod watching;
mod writing;

use super::{Problems, Settings, open};
use bytes::Bytes;
use daemon::Clock;
use futures::{FutureExt as _, StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use std::{convert::Infallible, future::Future, time::Duration};
use store::{Local, Writing, conformance::kinds};
use tokio::sync::{mpsc, oneshot};

/// Where samples are.
const SAMPLES: &str = "/apis/kuma.io/v1alpha1/samples";
const SYSTEM: &str = "/apis/kuma.io/v1alpha1/namespaces/kuma-system/samples";

/// What is answered.
type Said = UnsyncBoxBody<Bytes, Infallible>;

/// What is asked of the API server.
struct Asked {
    /// The verb and the path.
    what: String,
    query: String,
    body: Value,
    answer: oneshot::Sender<Result<Response<Said>, std::io::Error>>,
}

/// An API server in the hands of a test.
struct Server {
    asked: mpsc::Receiver<Asked>,
    /// What nobody wanted to answer yet.
    aside: Vec<Asked>,
}

fn server() -> (Client, Server) {
    let (sender, asked) = mpsc::channel(1024);
    let service = tower::service_fn(move |request: Request<Body>| {
        let sender = sender.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let (answer, answered) = oneshot::channel();
            let asked = Asked {
                what: format!("{} {}", parts.method, parts.uri.path()),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
                answer,
            };
            sender.send(asked).await.unwrap();
            // A test that does not answer is a server that does not.
            match answered.await {
                Ok(answer) => answer.map_err(tower::BoxError::from),
                Err(_) => std::future::pending().await,
            }
        }
        .boxed()
    });
    (Client::new(service, "default"), Server { asked, aside: Vec::new() })
}

impl Server {
    /// The next request of this sort; others wait.
    async fn asked(&mut self, what: &str) -> Asked {
        let wanted = |asked: &Asked| asked.what == what;
        if let Some(index) = self.aside.iter().position(wanted) {
            return self.aside.remove(index);
        }
        let limit = Duration::from_secs(3600);
        loop {
            let asked = tokio::time::timeout(limit, self.asked.recv()).await;
            let asked = asked.unwrap_or_else(|_| panic!("nobody asked {what}")).unwrap();
            if wanted(&asked) {
                return asked;
            }
            self.aside.push(asked);
        }
    }

    /// Whether there is such a request by now.
    async fn is_asked(&mut self, what: &str) -> bool {
        // Everybody else runs until nothing can.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        while let Ok(asked) = self.asked.try_recv() {
            self.aside.push(asked);
        }
        self.aside.iter().any(|asked| asked.what == what)
    }

    /// Answers a list of samples, and begins the watch that follows.
    async fn lists(&mut self, version: &str, objects: &[Value]) -> Watch {
        let asked = self.asked(&format!("GET {SAMPLES}")).await;
        assert!(!asked.query.contains("watch"), "{}", asked.query);
        asked.says(list(version, objects, ""));
        self.watches(version).await
    }

    async fn watches(&mut self, version: &str) -> Watch {
        let asked = self.asked(&format!("GET {SAMPLES}")).await;
        let place = format!("resourceVersion={version}");
        assert!(
            asked.query.contains("watch=true") && asked.query.contains(&place),
            "{}",
            asked.query
        );
        assert!(asked.query.contains("allowWatchBookmarks=true"));
        asked.watch()
    }
}

impl Asked {
    fn says(self, body: Value) {
        self.answers(200, body);
    }

    fn answers(self, code: u16, body: Value) {
        let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
        let response = Response::builder().status(StatusCode::from_u16(code).unwrap());
        self.answer.send(Ok(response.body(body).unwrap())).ok();
    }

    /// The object was written, as it was sent.
    fn takes(self, version: &str) -> Value {
        let mut object = self.body.clone();
        object["metadata"]["resourceVersion"] = version.into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{version}").into();
            object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        self.says(object.clone());
        object
    }

    fn refuses(self, code: u16, reason: &str, message: &str, details: Value) {
        let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
            "message": message, "reason": reason, "code": code, "details": details });
        self.answers(code, body);
    }

    fn breaks(self) {
        self.answer.send(Err(std::io::ErrorKind::ConnectionReset.into())).ok();
    }

    fn watch(self) -> Watch {
        let (sender, receiver) = mpsc::channel(1024);
        let chunks = stream::unfold(receiver, |mut receiver: mpsc::Receiver<Bytes>| async {
            Some((receiver.recv().await?, receiver))
        });
        let frames = chunks.map(|chunk| Ok::<_, Infallible>(http_body::Frame::data(chunk)));
        let body = StreamBody::new(frames).boxed_unsync();
        self.answer.send(Ok(Response::new(body))).ok();
        Watch(sender)
    }
}

/// A watch that was asked for; it ends with this value.
struct Watch(mpsc::Sender<Bytes>);

impl Watch {
    async fn says(&self, what: &str, object: &Value) {
        let line = format!("{}\n", json!({ "type": what, "object": object }));
        self.0.send(line.into()).await.unwrap();
    }
}

/// A sample as the API server has it.
fn object(name: &str, version: &str, value: &str) -> Value {
    json!({
        "apiVersion": "kuma.io/v1alpha1",
        "kind": "Sample",
        "metadata": {
            "name": name, "namespace": "kuma-system", "uid": format!("uid-{name}"),
            "resourceVersion": version, "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": { "value": value },
    })
}

fn list(version: &str, objects: &[Value], next: &str) -> Value {
    json!({ "apiVersion": "kuma.io/v1alpha1", "kind": "SampleList",
        "metadata": { "resourceVersion": version, "continue": next }, "items": objects })
}

fn settings() -> Settings {
    let (problems, metrics) = (Problems::default(), daemon::Metrics::default());
    Settings { system_namespace: "kuma-system".into(), problems, metrics }
}

/// Opens a store whose samples are `objects`.
async fn opened(server: &mut Server, client: Client, objects: &[Value]) -> (Local, Writing, Watch) {
    let clock = Clock::system();
    let opening = open(client, settings(), kinds(), clock);
    let (opened, watch) = tokio::join!(opening, async {
        let asked = server.asked(&format!("GET {SAMPLES}")).await;
        asked.says(list("10", objects, ""));
    });
    let () = watch;
    let (store, mut writing) = opened.unwrap();
    let watch = while_writing(&mut writing, server.watches("10")).await;
    (store, writing, watch)
}

/// Polls the writer in place.
async fn while_writing<T>(writing: &mut Writing, test: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        result = test => result,
        ended = writing => panic!("the writer ended: {ended:?}"),
    }
}
