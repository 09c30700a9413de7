//! The application of the demo, and its caller. Neither knows anything of the mesh.

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, timeout},
};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves `listener` as an application that says what it was told about its caller.
pub(crate) async fn serve(name: &'static str, listener: TcpListener) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let answer = service_fn(move |request: Request<Incoming>| async move {
            let caller = request.headers().get("x-forwarded-client-cert");
            let caller = caller.and_then(|value| value.to_str().ok()).unwrap_or("nobody");
            let text = format!("hello from {name}\n{caller}");
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
        });
        connections.spawn(async move {
            // A connection that breaks is its peer's matter.
            let server = hyper::server::conn::http1::Builder::new();
            server.serve_connection(TokioIo::new(stream), answer).await.ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

/// An open connection to a service.
#[derive(Debug)]
pub(crate) struct Call {
    host: String,
    http: SendRequest<Full<Bytes>>,
    _connection: JoinSet<()>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

impl Call {
    /// Opens a connection.
    pub(crate) async fn open(host: &str, address: SocketAddr) -> Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let (http, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut running = JoinSet::new();
        running.spawn(async move {
            connection.await.ok();
        });
        Ok(Self { host: format!("{host}:{}", address.port()), http, _connection: running })
    }

    /// Sends one request on it.
    pub(crate) async fn get(&mut self) -> Result<Answer> {
        let start = Instant::now();
        let request = Request::get("/").header("host", &self.host).body(Full::default())?;
        let answer = async {
            self.http.ready().await.context("the connection was closed")?;
            let response = self.http.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        let (status, body) = timeout(PATIENCE, answer).await.context("no answer")??;
        Ok(Answer { status, body, took: start.elapsed() })
    }
}
