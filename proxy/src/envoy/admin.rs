//! Envoy's admin interface, on a Unix socket that only we can reach.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::{future::Future, path::PathBuf, time::Duration};
use tokio::{net::UnixStream, time::timeout};

/// What may be asked in answer to the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Its whole configuration.
    ConfigDump,
    /// Its counters.
    Stats,
    /// Its clusters and their endpoints.
    Clusters,
}

impl What {
    const fn path(self) -> &'static str {
        match self {
            Self::ConfigDump => "/config_dump",
            Self::Stats => "/stats",
            Self::Clusters => "/clusters",
        }
    }
}

/// Why Envoy did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens on the socket.
    #[error("envoy's admin interface is not there")]
    Absent(#[source] std::io::Error),
    /// It is no HTTP, or ended.
    #[error("envoy's admin interface")]
    Http(#[source] hyper::Error),
    /// The answer is larger than allowed, or broke off.
    #[error("envoy's answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The query is not one.
    #[error("the query is not part of a URL")]
    Query(#[source] http::Error),
    /// It answered that it cannot.
    #[error("envoy answered {0}")]
    Refused(http::StatusCode),
    /// It took too long.
    #[error("envoy did not answer in time")]
    Late,
}

/// Envoy's admin interface.
pub trait Admin: Send + Sync + 'static {
    /// Whether Envoy has its configuration and serves.
    fn is_ready(&self) -> impl Future<Output = bool> + Send;

    /// Tells Envoy to drain gracefully.
    fn drain(&self) -> impl Future<Output = Result<(), AdminError>> + Send;

    /// How many connections its listeners have.
    fn connections(&self) -> impl Future<Output = Result<u64, AdminError>> + Send;

    /// Fetches what the control plane asked for, with a query string.
    fn fetch(
        &self,
        what: What,
        query: &str,
    ) -> impl Future<Output = Result<Bytes, AdminError>> + Send;
}

/// How long Envoy has for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The admin interface on a Unix socket.
#[derive(Clone, Debug)]
pub struct Socket {
    /// The socket.
    pub path: PathBuf,
    /// No answer may be larger.
    pub limit: usize,
}

impl Socket {
    async fn ask(&self, method: Method, target: &str) -> Result<Bytes, AdminError> {
        timeout(PATIENCE, self.exchange(method, target)).await.map_err(|_| AdminError::Late)?
    }

    async fn exchange(&self, method: Method, target: &str) -> Result<Bytes, AdminError> {
        let request = Request::builder().method(method).uri(target).header("host", "envoy");
        let request = request.body(Empty::<Bytes>::new()).map_err(AdminError::Query)?;
        let stream = UnixStream::connect(&self.path).await.map_err(AdminError::Absent)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(AdminError::Http)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(AdminError::Http)?;
            self.body(response).await
        };
        tokio::pin!(answer, connection);
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                // What was read before the connection ended is still in the body.
                ended = &mut connection, if open => {
                    ended.map_err(AdminError::Http)?;
                    open = false;
                }
            }
        }
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, AdminError> {
        if !response.status().is_success() {
            return Err(AdminError::Refused(response.status()));
        }
        let body = Limited::new(response.into_body(), self.limit).collect().await;
        Ok(body.map_err(AdminError::Body)?.to_bytes())
    }
}

impl Admin for Socket {
    async fn is_ready(&self) -> bool {
        self.ask(Method::GET, "/ready").await.is_ok()
    }

    async fn drain(&self) -> Result<(), AdminError> {
        self.ask(Method::POST, "/drain_listeners?graceful").await.map(drop)
    }

    async fn connections(&self) -> Result<u64, AdminError> {
        // `server.total_connections` is up to five seconds old.
        let query = "/stats?filter=^listener%5C..*%5C.downstream_cx_active$";
        Ok(sum(&String::from_utf8_lossy(&self.ask(Method::GET, query).await?)))
    }

    async fn fetch(&self, what: What, query: &str) -> Result<Bytes, AdminError> {
        let path = what.path();
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        self.ask(Method::GET, &target).await
    }
}

/// The sum of `name: value` lines. The admin interface is a listener too, and we are its connection.
fn sum(stats: &str) -> u64 {
    let values = stats.lines().filter_map(|line| line.rsplit_once(": "));
    let ours = |(name, value): (&str, &str)| match name.starts_with("listener.admin.") {
        true => None,
        false => value.trim().parse::<u64>().ok(),
    };
    values.filter_map(ours).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    #[test]
    fn our_own_connection_is_not_counted() {
        let stats = "listener.admin.downstream_cx_active: 1\n\
                     listener.127.0.0.1_80.downstream_cx_active: 2\n\
                     listener.127.0.0.1_80.worker_0.downstream_cx_active: 2\nnonsense\n";
        assert_eq!(sum(stats), 4);
        assert_eq!(sum(""), 0);
    }

    async fn answered(answer: &'static str, limit: usize) -> (Result<Bytes, AdminError>, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let socket = Socket { path, limit };
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            drop(stream);
            let line = String::from_utf8_lossy(request.get(..read).unwrap()).into_owned();
            line.lines().next().unwrap().to_owned()
        };
        tokio::join!(socket.fetch(What::Stats, "filter=x"), serve)
    }

    #[tokio::test]
    async fn an_answer_is_fetched_up_to_a_limit() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\na: 1";
        let (answer, request) = answered(ok, 4).await;
        assert_eq!(answer.unwrap(), "a: 1");
        assert_eq!(request, "GET /stats?filter=x HTTP/1.1");
        assert!(matches!(answered(ok, 3).await.0, Err(AdminError::Body(_))));
        let no = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
        assert!(
            matches!(answered(no, 9).await.0, Err(AdminError::Refused(status)) if status == 503)
        );
    }

    #[tokio::test]
    async fn a_query_that_breaks_out_of_the_url_is_refused() {
        let socket = Socket { path: "nowhere".into(), limit: 9 };
        let answer = socket.fetch(What::Stats, "a HTTP/1.1\r\nx: y").await;
        assert!(matches!(answer, Err(AdminError::Query(_))), "{answer:?}");
        assert!(!socket.is_ready().await);
    }
}
