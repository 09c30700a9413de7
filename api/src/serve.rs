//! Serves the API on a port, within bounds.

use super::limits;
use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use identity::tls::{TlsListener, TlsStream};
use std::{net::SocketAddr, pin::pin, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The connection a request came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who connected.
    pub peer: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// Whether it is encrypted.
    pub tls: bool,
}

/// How long nothing is accepted when the process has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves plain HTTP until `shutdown`, then lets open requests end.
pub async fn plain(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    each(listener, router, shutdown).await;
}

/// Serves HTTPS until `shutdown`, then lets open requests end.
pub async fn tls(listener: TlsListener, router: Router, shutdown: CancellationToken) {
    each(listener, router, shutdown).await;
}

/// Where connections come from.
trait Accept: Send {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection. Cancel safe.
    fn next(&mut self) -> impl Future<Output = (Self::Io, Connection)> + Send;
}

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn next(&mut self) -> (TcpStream, Connection) {
        loop {
            match self.accept().await {
                Ok((stream, peer)) => {
                    // A connection that has no address any more is gone.
                    if let (Ok(local), Ok(())) = (stream.local_addr(), stream.set_nodelay(true)) {
                        return (stream, Connection { peer, local, tls: false });
                    }
                }
                Err(error) => {
                    // Out of file descriptors: those that are open will close.
                    tracing::warn!(%error, "cannot accept a connection");
                    drop(tokio::time::timeout(PAUSE, std::future::pending::<()>()).await);
                }
            }
        }
    }
}

impl Accept for TlsListener {
    type Io = TlsStream;

    async fn next(&mut self) -> (TlsStream, Connection) {
        loop {
            let stream = self.accept().await;
            if let Ok(local) = stream.local_addr() {
                let peer = stream.peer().address;
                return (stream, Connection { peer, local, tls: true });
            }
        }
    }
}

/// Serves each connection, so many at once.
async fn each(mut accept: impl Accept, router: Router, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let full = connections.len() >= limits::CONNECTIONS;
        let (stream, connection) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a request ended unexpectedly");
                }
                continue;
            }
            accepted = accept.next(), if !full => accepted,
        };
        connections.spawn(serve(stream, connection, router.clone(), shutdown.clone()));
    }
    while connections.join_next().await.is_some() {}
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Connection,
    router: Router,
    shutdown: CancellationToken,
) {
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection);
        request
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADERS_TIME)
        .max_buf_size(limits::HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::STREAMS)
        .max_header_list_size(u32::try_from(limits::HEADERS).unwrap_or(u32::MAX));
    let service = TowerToHyperService::new(service);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        biased;
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        served = serving.as_mut() => served,
    };
    if let Err(error) = served {
        tracing::debug!(%error, peer = %connection.peer, "connection ended");
    }
}
