//! The port of proxies: sessions, ADS and bootstrap on one TLS listener.

use super::{ads, auth::Bearer, bootstrap, desk::Desk, driven::Driven, limits, session};
use axum::{
    Extension, Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use identity::tls::TlsListener;
use proto::{
    atoll::proxy::v1::{FromProxy, ToProxy},
    envoy::service::discovery::v3::DeltaDiscoveryRequest,
    frame::FrameCodec,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, server::Grpc};
use tonic_prost::ProstCodec;

const SESSION: &str = "/atoll.proxy.v1.Proxies/Session";
const ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// What a client has to send the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// The largest head of a request, token included.
const HEADERS: u32 = 32 << 10;

/// Serves until `stop`. Calls end by the desk's own token.
pub(super) async fn serve(desk: Arc<Desk>, mut listener: TlsListener, stop: CancellationToken) {
    let router = router(desk);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            stream = listener.accept() => {
                let peer = stream.peer().address;
                connections.spawn(connection(stream, peer, router.clone(), stop.clone()));
            }
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection of a proxy ended unexpectedly");
                }
            }
        }
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(limits::FAREWELL, ended).await.is_err() {
        tracing::debug!("connections of proxies are cut");
    }
}

/// Serves one connection until it ends.
pub(super) async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    stop: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    let (interval, patience) = limits::SIGN_OF_LIFE;
    builder
        .http2()
        .timer(TokioTimer::new())
        // Half of a connection that broke sends no reset.
        .keep_alive_interval(interval)
        .keep_alive_timeout(patience)
        .max_concurrent_streams(limits::CONNECTION_STREAMS)
        .max_header_list_size(HEADERS);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection of a proxy broke");
    }
}

pub(super) fn router(desk: Arc<Desk>) -> Router {
    let calls = Router::new()
        .route(SESSION, post(sessions))
        .route(ADS, post(streams))
        .route_layer(middleware::from_fn_with_state(desk.clone(), authenticate));
    Router::new()
        .merge(calls)
        .route("/bootstrap", any(bootstrap::answer))
        .layer(DefaultBodyLimit::max(limits::BOOTSTRAP))
        .fallback(unknown)
        .with_state(desk)
}

/// Before anything of the call is read.
async fn authenticate(State(desk): State<Arc<Desk>>, mut request: Request, next: Next) -> Response {
    if let Err(status) = desk.check_open() {
        return refuse(status);
    }
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = authorization.map_or(&[][..], |value| value.as_bytes());
    match desk.tokens.accept(authorization).await {
        Ok(bearer) => {
            request.extensions_mut().insert(bearer);
            next.run(request).await
        }
        Err(error) => {
            tracing::warn!(path = request.uri().path(), %error, "proxy not authenticated");
            refuse(error.status())
        }
    }
}

async fn sessions(
    State(desk): State<Arc<Desk>>,
    Extension(bearer): Extension<Bearer>,
    request: Request,
) -> Response {
    let call = tower::service_fn(move |request: tonic::Request<Streaming<FromProxy>>| {
        let (desk, bearer) = (desk.clone(), bearer.clone());
        let (to_peer, items) = mpsc::channel(limits::SESSION_QUEUE);
        let work = session::serve(desk, bearer, request.into_inner(), to_peer);
        std::future::ready(Ok::<_, Status>(tonic::Response::new(Driven::new(items, work))))
    });
    let mut grpc = Grpc::new(ProstCodec::<ToProxy, FromProxy>::default())
        .max_decoding_message_size(limits::SESSION_MESSAGE);
    grpc.streaming(call, request).await.map(Body::new)
}

async fn streams(
    State(desk): State<Arc<Desk>>,
    Extension(bearer): Extension<Bearer>,
    request: Request,
) -> Response {
    let call =
        tower::service_fn(move |request: tonic::Request<Streaming<DeltaDiscoveryRequest>>| {
            let (desk, bearer) = (desk.clone(), bearer.clone());
            let (responses, items) = mpsc::channel(xds::ads::CAPACITY);
            let work = ads::serve(desk, bearer, request.into_inner(), responses);
            std::future::ready(Ok::<_, Status>(tonic::Response::new(Driven::new(items, work))))
        });
    let mut grpc = Grpc::new(FrameCodec::<DeltaDiscoveryRequest>::default())
        .max_decoding_message_size(limits::ADS_MESSAGE);
    grpc.streaming(call, request).await.map(Body::new)
}

fn refuse(status: Status) -> Response {
    status.into_http::<Body>()
}

/// State-of-the-world ADS, health discovery and whatever else there is.
async fn unknown(request: Request) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        let path = request.uri().path().to_owned();
        return refuse(Status::unimplemented(format!("{path} is not served here")));
    }
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}
