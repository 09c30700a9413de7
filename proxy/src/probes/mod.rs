//! What a kubelet asks an application, asked beside it.
//!
//! A kubelet has no identity of the mesh: what it sends to an application's port would be refused, and
//! a mere connection would say nothing, since Envoy takes every one. So it asks here, where nothing is
//! redirected, and only what the settings list is asked on: no other request reaches the application
//! by this way.

mod ask;
#[cfg(test)]
mod tests;

use anyhow::Result;
use axum::{
    Router,
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, Uri},
};
use daemon::config::Problems;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    future::IntoFuture as _,
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

/// So many questions are asked at once; further ones are refused.
const AT_ONCE: usize = 64;

/// What is asked of the application, and where a kubelet asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ApplicationProbes {
    /// Where a kubelet asks, by HTTP. Nobody listens if nothing is to be asked.
    pub listen: SocketAddr,
    /// What is asked, by path, such as `/app/readiness`.
    pub probes: BTreeMap<String, ApplicationProbe>,
}

impl Default for ApplicationProbes {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 9001)), probes: BTreeMap::new() }
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplicationProbe {
    /// The port of the application, on this machine.
    pub port: u16,
    /// How long it has for an answer.
    #[serde(with = "daemon::duration")]
    pub timeout: Duration,
    /// What makes it a good one.
    pub how: How,
}

/// What an application must answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum How {
    /// A request for `path`, with a status from 200 to 399.
    Http {
        /// With its query, if it has one.
        path: String,
        /// Whether by TLS. As a kubelet does, its certificate is not looked at.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        tls: bool,
        /// Name and value of each header.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
    },
    /// A connection, by taking it.
    Tcp,
    /// The health check of gRPC, by `SERVING`.
    Grpc {
        /// Which of its services; empty: all of it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        service: String,
    },
}

impl ApplicationProbes {
    pub(crate) fn check(&self, problems: &mut Problems) {
        for (path, probe) in &self.probes {
            problems.at(format_args!("probes[{path:?}]"), |problems| {
                if !path.starts_with('/') {
                    problems.add("", "must begin with /");
                }
                if probe.port == 0 {
                    problems.add("port", "must be set");
                }
                if let How::Http { path, headers, .. } = &probe.how {
                    check_request(path, headers, problems);
                }
            });
        }
    }

    /// Opens the port, if there is anything to ask.
    pub(crate) async fn bind(&self) -> Result<Option<TcpListener>> {
        if self.probes.is_empty() {
            return Ok(None);
        }
        Ok(Some(daemon::listen(self.listen, "applicationProbes.listen").await?))
    }
}

fn check_request(path: &str, headers: &[(String, String)], problems: &mut Problems) {
    if !path.starts_with('/') || path.parse::<Uri>().is_err() {
        problems.add("how.http.path", format_args!("{path:?} is no path, such as /health"));
    }
    for (name, value) in headers {
        let good = HeaderName::try_from(name).is_ok() && HeaderValue::try_from(value).is_ok();
        if !good {
            problems.add("how.http.headers", format_args!("{name:?}: {value:?} is no header"));
        }
    }
}

struct Served {
    probes: BTreeMap<String, ApplicationProbe>,
    room: Semaphore,
}

/// Answers until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    settings: ApplicationProbes,
    stop: CancellationToken,
) -> Result<()> {
    let serve = axum::serve(listener, router(settings.probes));
    Ok(serve.with_graceful_shutdown(stop.cancelled_owned()).into_future().await?)
}

fn router(probes: BTreeMap<String, ApplicationProbe>) -> Router {
    let served = Arc::new(Served { probes, room: Semaphore::new(AT_ONCE) });
    Router::new().fallback(answer).with_state(served)
}

async fn answer(State(served): State<Arc<Served>>, uri: Uri) -> (StatusCode, String) {
    let Some(probe) = served.probes.get(uri.path()) else {
        return (StatusCode::NOT_FOUND, "nothing is asked by this path\n".into());
    };
    let Ok(_room) = served.room.try_acquire() else {
        return (StatusCode::TOO_MANY_REQUESTS, "too many questions at once\n".into());
    };
    let asked = timeout(probe.timeout, ask::ask(probe)).await;
    match asked.unwrap_or(Err(ask::Unwell::Late(probe.timeout))) {
        Ok(()) => (StatusCode::OK, "well\n".into()),
        Err(error) => (error.status(), format!("{:#}\n", anyhow::Error::new(error))),
    }
}
