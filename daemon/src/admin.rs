//! What a process tells everybody about itself. Nothing here is secret.

use crate::{Metrics, Ready};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// The section `admin` of a program's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// Serves `/ready`, `/live` and `/metrics`.
    pub listen: SocketAddr,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 5680)) }
    }
}

/// `/ready`, `/live` and `/metrics`.
pub fn router(ready: Ready, metrics: Metrics) -> Router {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(is_ready).with_state(ready))
        .route("/metrics", get(numbers).with_state(metrics))
}

async fn is_ready(State(ready): State<Ready>) -> (StatusCode, String) {
    let missing = ready.missing();
    let (status, mut text) = if missing.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", ")))
    };
    for problem in ready.problems() {
        // One line each, whatever others wrote.
        text.extend(problem.chars().map(|it| if it.is_control() { ' ' } else { it }));
        text.push('\n');
    }
    (status, text)
}

async fn numbers(State(metrics): State<Metrics>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match metrics.encode() {
        Ok(text) => ([(CONTENT_TYPE, kind)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;
    use prometheus_client::metrics::counter::Counter;
    use tower::ServiceExt as _;

    async fn get(router: &Router, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn shows_readiness_and_metrics() {
        let (ready, metrics) = (Ready::default(), Metrics::default());
        let guards = (ready.guard("store"), ready.guard("kds"));
        let frames: Counter =
            metrics.register("kds_responses", "Responses sent", Counter::default());
        frames.inc();
        let router = router(ready.clone(), metrics);
        assert_eq!(get(&router, "/live").await, (200, "live\n".into()));
        assert_eq!(get(&router, "/ready").await, (503, "not ready: kds, store\n".into()));
        drop(guards);
        assert_eq!(get(&router, "/ready").await, (200, "ready\n".into()));
        ready.show("store", vec!["slow".into(), "full\nor so".into()]);
        let text = "ready\nstore: slow\nstore: full or so\n";
        assert_eq!(get(&router, "/ready").await, (200, text.into()));
        ready.show("store", Vec::new());
        assert_eq!(get(&router, "/ready").await, (200, "ready\n".into()));
        let text = "# HELP kds_responses Responses sent.\n# TYPE kds_responses counter\n\
                    kds_responses_total 1\n# EOF\n";
        assert_eq!(get(&router, "/metrics").await, (200, text.into()));
        assert_eq!(get(&router, "/config").await.0, 404);
    }
}
