//! Serves the API on a port, within bounds.

use super::limits;
use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use http::Request;
use hyper::body::Incoming;
use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
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
pub async fn plain(listener: TcpListener, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    accept(listener, router, shutdown, false, |stream| async { Ok(stream) }).await
}

async fn accept<F, Io>(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    tls: bool,
    handshake: impl Fn(TcpStream) -> F,
) -> io::Result<()>
where
    F: Future<Output = io::Result<Io>> + Send + 'static,
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let room = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            permit = room.clone().acquire_owned() => permit.map_err(io::Error::other)?,
        };
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors: those that are open will close.
                tracing::warn!(%error, "cannot accept a connection");
                drop(tokio::time::timeout(PAUSE, shutdown.cancelled()).await);
                continue;
            }
        };
        let (Ok(local), Ok(())) = (stream.local_addr(), stream.set_nodelay(true)) else { continue };
        let connection = Connection { peer, local, tls };
        let stream = handshake(stream);
        let (router, shutdown) = (router.clone(), shutdown.clone());
        connections.spawn(async move {
            if let Ok(Ok(stream)) = tokio::time::timeout(limits::HEADERS_TIME, stream).await {
                serve(stream, connection, router, shutdown).await;
            }
            drop(permit);
        });
    }
    while connections.join_next().await.is_some() {}
    Ok(())
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
