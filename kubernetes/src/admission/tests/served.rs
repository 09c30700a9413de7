//! The webhooks over real TLS.

use super::{
    super::{
        keeper::{Keeper, Place},
        server,
    },
    *,
};
use api::serve;
use daemon::{Clock, Tasks};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::tls::{Alpn, TlsListener, client_config, connect};
use jiff::Timestamp;
use rustls::ClientConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const DAY: i64 = 24 * 3600;

struct Served {
    port: u16,
    tasks: Tasks,
    stop: CancellationToken,
}

async fn serve(world: &World, keeper: &Keeper) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let listener = TlsListener::new(listener, keeper.tls().clone(), Alpn::Http);
    let (mut tasks, stop) = (Tasks::default(), CancellationToken::new());
    let (router, served) = (server::router(world.judge.clone()), stop.clone());
    tasks.spawn("admission", async move {
        serve::tls(listener, router, served).await;
        Ok::<_, anyhow::Error>(())
    });
    Served { port, tasks, stop }
}

async fn keeper(now: i64) -> Keeper {
    let place = Place {
        client: Secrets::default().client(),
        namespace: "kuma-system".into(),
        secret: "atoll-zone-cp-tls".into(),
        names: vec!["127.0.0.1".into()],
    };
    let clock = Clock::of(move || Timestamp::from_second(now).unwrap());
    Keeper::open(place, clock).await.unwrap()
}

impl Served {
    /// On a connection of its own, as after a time of silence.
    async fn ask(&self, trusts: &Arc<ClientConfig>, path: &str, body: &[u8]) -> (u16, String) {
        let stream = connect(trusts.clone(), "127.0.0.1", self.port).await.unwrap();
        let http2 =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = http2.await.unwrap();
        let request = http::Request::post(format!("https://127.0.0.1{path}"));
        let request = request.body(Full::new(bytes::Bytes::copy_from_slice(body))).unwrap();
        let answer = async {
            let response = sender.send_request(request).await.unwrap();
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        tokio::pin!(answer, connection);
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                _ = &mut connection, if open => open = false,
            }
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.run(self.stop).await.unwrap();
    }
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "cart-1", "namespace": "shop" },
        "spec": { "containers": [{ "name": "app", "image": "cart" }] },
    })
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

#[tokio::test]
async fn a_pod_is_injected_and_what_is_no_question_is_refused() {
    let (world, keeper) = (World::new(true), keeper(now()).await);
    let served = serve(&world, &keeper).await;
    let trusts = client_config(&keeper.trusted().borrow(), None, Alpn::Http).unwrap();
    let question = question("CREATE", &pod(), &Value::Null, "alice").to_string();
    let (status, answer) = served.ask(&trusts, "/inject-sidecar", question.as_bytes()).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(status, 200);
    assert_eq!(answer.pointer("/response/uid").unwrap(), "u-1");
    assert_eq!(answer.pointer("/response/allowed").unwrap(), true);
    assert!(answer.pointer("/response/patch").is_some());

    // One that is there stays as it is.
    let question = super::question("UPDATE", &pod(), &pod(), "alice").to_string();
    let (_, answer) = served.ask(&trusts, "/inject-sidecar", question.as_bytes()).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer.pointer("/response/allowed").unwrap(), true);
    assert_eq!(answer.pointer("/response/patch"), None);

    for body in ["", "{", "[]", "{}", r#"{"apiVersion":"admission.k8s.io/v1"}"#] {
        for path in ["/inject-sidecar", "/default", "/validate"] {
            let (status, _) = served.ask(&trusts, path, body.as_bytes()).await;
            assert_eq!(status, 400, "{path} {body}");
        }
    }
    let large = vec![b' '; (8 << 20) + 1];
    assert_eq!(served.ask(&trusts, "/validate", &large).await.0, 413);
    assert_eq!(served.ask(&trusts, "/elsewhere", b"{}").await.0, 404);
    served.end().await;
}

#[tokio::test]
async fn objects_of_any_form_get_an_answer() {
    let (world, keeper) = (World::new(true), keeper(now()).await);
    let served = serve(&world, &keeper).await;
    let trusts = client_config(&keeper.trusted().borrow(), None, Alpn::Http).unwrap();
    let odd = [
        json!(null),
        json!([]),
        json!({ "metadata": 1, "spec": [] }),
        json!({ "metadata": { "labels": [], "annotations": 5, "name": 7 }, "spec": { "to": {} } }),
        json!({ "metadata": { "labels": { "kuma.io/mesh": null } }, "spec": { "to": [1] } }),
    ];
    for kind in ["Pod", "MeshTimeout", "Dataplane", "Mesh", "Nothing", ""] {
        for object in &odd {
            for operation in ["CREATE", "UPDATE", "DELETE", "CONNECT"] {
                let mut question = question(operation, object, object, "alice");
                let group = if kind == "Pod" { "" } else { "kuma.io" };
                question["request"]["kind"] = json!({ "group": group, "kind": kind });
                question["request"]["namespace"] = "shop".into();
                for path in ["/inject-sidecar", "/default", "/validate"] {
                    let body = question.to_string();
                    let (status, _) = served.ask(&trusts, path, body.as_bytes()).await;
                    assert_eq!(status, 200, "{path} {question}");
                }
            }
        }
    }
    served.end().await;
}

#[tokio::test]
async fn who_trusted_the_certificates_before_a_renewal_is_answered_after_it() {
    let secrets = Secrets::default();
    let time = Arc::new(Mutex::new(now()));
    let shown = time.clone();
    let clock = Clock::of(move || Timestamp::from_second(*shown.lock()).unwrap());
    let place = Place {
        client: secrets.client(),
        namespace: "kuma-system".into(),
        secret: "atoll-zone-cp-tls".into(),
        names: vec!["127.0.0.1".into()],
    };
    let mut first = Keeper::open(place.clone(), clock.clone()).await.unwrap();
    let world = World::new(true);
    let served = serve(&world, &first).await;
    let trusts = client_config(&first.trusted().borrow(), None, Alpn::Http).unwrap();
    let question = question("CREATE", &pod(), &Value::Null, "alice").to_string();
    let before = first.tls().endings();
    assert_eq!(served.ask(&trusts, "/inject-sidecar", question.as_bytes()).await.0, 200);
    // Another process is the first to see that it is time.
    *time.lock() += 61 * DAY;
    let second = Keeper::open(place, clock).await.unwrap();
    first.begin().await.unwrap();
    assert_eq!(first.tls().endings(), second.tls().endings());
    assert_ne!(first.tls().endings(), before);
    // Not valid yet, by the clock of this machine: only whom it descends from is looked at here.
    assert_eq!(*first.trusted().borrow(), *second.trusted().borrow());
    served.end().await;
}
