use super::*;
use axum::{body::Body, http::Request, response::Redirect, routing::get};
use daemon::{Clock, Tasks};
use http_body_util::BodyExt as _;
use identity::tls::{Alpn, ServerTls, TlsConfig, TlsListener};
use tower::ServiceExt as _;

/// An application, where it listens, and what ends it.
struct App {
    port: u16,
    tasks: Tasks,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

async fn application(router: Router, tls: bool) -> App {
    let (mut tasks, stop) = (Tasks::default(), CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let end = stop.clone().cancelled_owned();
    if tls {
        let own = ServerTls::open("tls", &TlsConfig::default(), folder.path(), Clock::system());
        let listener = TlsListener::new(listener, Arc::new(own.unwrap()), Alpn::Http);
        let serve = axum::serve(listener, router).with_graceful_shutdown(end);
        tasks.spawn("app", async move { Ok::<_, anyhow::Error>(serve.await?) });
    } else {
        let serve = axum::serve(listener, router).with_graceful_shutdown(end);
        tasks.spawn("app", async move { Ok::<_, anyhow::Error>(serve.await?) });
    }
    App { port, tasks, stop, _folder: folder }
}

impl App {
    async fn end(self) {
        self.stop.cancel();
        self.tasks.run(self.stop).await.unwrap();
    }
}

fn probe(port: u16, how: How) -> ApplicationProbe {
    ApplicationProbe { port, timeout: Duration::from_secs(10), how }
}

fn http(path: &str, tls: bool) -> How {
    let headers = vec![("x-probe".to_owned(), "yes".to_owned())];
    How::Http { path: path.into(), tls, headers }
}

async fn asked(probe: ApplicationProbe) -> (u16, String) {
    let router = router(BTreeMap::from([("/app/liveness".to_owned(), probe)]));
    let request = Request::get("/app/liveness").body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn health(status: i32) -> Router {
    use prost::Message as _;
    let answer = ask::HealthCheckResponse { status }.encode_to_vec();
    let frame = [&[0, 0, 0, 0, u8::try_from(answer.len()).unwrap()][..], &answer].concat();
    let check = move |body: Bytes| async move {
        // What is asked for stands behind the head of the frame.
        let asked = ask::HealthCheckRequest::decode(body.slice(5..)).unwrap();
        let trailers = [("grpc-status", if asked.service == "cart" { "0" } else { "5" })];
        let trailers = http::HeaderMap::from_iter(
            trailers.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())),
        );
        let frames = [
            Ok::<_, std::convert::Infallible>(http_body::Frame::data(Bytes::from(frame))),
            Ok(http_body::Frame::trailers(trailers)),
        ];
        let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
        ([("content-type", "application/grpc")], Body::new(body))
    };
    Router::new().route(ask::CHECK, axum::routing::post(check))
}

use bytes::Bytes;

fn app() -> Router {
    let with_header = |headers: http::HeaderMap| async move {
        let good = headers.get("x-probe").is_some_and(|it| it == "yes");
        if good { StatusCode::OK } else { StatusCode::BAD_REQUEST }
    };
    Router::new()
        .route("/well", get(with_header))
        .route("/ill", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .route("/moved", get(|| async { Redirect::to("/ill") }))
}

#[tokio::test]
async fn an_application_is_asked_as_a_kubelet_would() {
    for tls in [false, true] {
        let app = application(app(), tls).await;
        let of = async |path| asked(probe(app.port, http(path, tls))).await;
        assert_eq!(of("/well").await, (200, "well\n".into()));
        assert_eq!(of("/moved").await.0, 200);
        let ill = "answers with status 500 Internal Server Error\n";
        assert_eq!(of("/ill").await, (500, ill.into()));
        assert_eq!(asked(probe(app.port, How::Tcp)).await.0, 200);
        app.end().await;
    }
}

#[tokio::test]
async fn a_health_check_of_grpc_must_say_that_it_serves() {
    for (status, service, expected) in
        [(1, "cart", (200, "well\n")), (2, "cart", (503, "the health check says 2, not SERVING\n"))]
    {
        let app = application(health(status), false).await;
        let answer = asked(probe(app.port, How::Grpc { service: service.into() })).await;
        assert_eq!((answer.0, &*answer.1), expected);
        app.end().await;
    }
    let app = application(health(1), false).await;
    let (status, text) = asked(probe(app.port, How::Grpc { service: "other".into() })).await;
    assert_eq!(status, 503);
    assert!(text.starts_with("the health check fails"), "{text}");
    app.end().await;
}

#[tokio::test]
async fn who_is_away_or_silent_is_not_well() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for how in [How::Tcp, http("/well", false), How::Grpc { service: String::new() }] {
        let (status, text) = asked(probe(closed, how)).await;
        assert_eq!(status, 503, "{text}");
        assert!(text.starts_with(&format!("port {closed} takes no connection")), "{text}");
    }
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let timeout = Duration::from_millis(50);
    for how in [http("/well", false), http("/well", true), How::Grpc { service: "a".into() }] {
        let (status, text) = asked(ApplicationProbe { port, timeout, how }).await;
        assert_eq!((status, &*text), (504, "no answer within 50ms\n"));
    }
}

#[tokio::test]
async fn nothing_is_asked_but_what_the_settings_say() {
    let app = application(app(), false).await;
    let probes =
        BTreeMap::from([("/app/liveness".to_owned(), probe(app.port, http("/well", false)))]);
    let router = router(probes);
    for (path, expected) in [("/app/liveness", 200), ("/well", 404), ("/app/readiness", 404)] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{path}");
    }
    app.end().await;
}

#[test]
fn what_is_no_question_is_refused_by_field() {
    let json = r#"{"probes": {
        "app": {"port": 0, "timeout": "1s", "how": "tcp"},
        "/a": {"port": 1, "timeout": "1s", "how": {"http": {"path": "a b", "headers": [["x y", ""]]}}},
        "/b": {"port": 1, "timeout": "1s", "how": {"grpc": {}}}
    }}"#;
    let settings: ApplicationProbes = serde_json::from_str(json).unwrap();
    let mut problems = Problems::default();
    settings.check(&mut problems);
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let expected = [
        r#"probes["/a"].how.http.path: "a b" is no path, such as /health"#,
        r#"probes["/a"].how.http.headers: "x y": "" is no header"#,
        r#"probes["app"]: must begin with /"#,
        r#"probes["app"].port: must be set"#,
    ];
    assert_eq!(problems, expected);
}
