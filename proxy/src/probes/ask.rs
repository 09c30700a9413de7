//! One question to the application.

use super::{ApplicationProbe, How};
use axum::http::{Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use identity::tls;
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

/// Why the application is not well.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwell {
    /// It does not listen.
    #[error("port {port} takes no connection")]
    Away {
        /// Where it should.
        port: u16,
        /// Why it does not.
        #[source]
        source: io::Error,
    },
    /// It takes too long.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// It answers with another status.
    #[error("answers with status {0}")]
    Status(StatusCode),
    /// What it answers is not HTTP.
    #[error("does not answer by HTTP")]
    Http(#[source] hyper::Error),
    /// The settings say something that is no request.
    #[error("the question is no request")]
    Request(#[source] http::Error),
    #[error("does not take connections of gRPC")]
    Grpc(#[source] tonic::transport::Error),
    /// The health check failed.
    #[error("the health check fails")]
    Check(#[source] Box<tonic::Status>),
    /// The health check says something else.
    #[error("the health check says {0}, not SERVING")]
    NotServing(i32),
}

impl Unwell {
    /// What a kubelet is answered, which shows the number.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Status(status) => *status,
            Self::Late(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Away { .. }
            | Self::Http(_)
            | Self::Request(_)
            | Self::Grpc(_)
            | Self::Check(_)
            | Self::NotServing(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

pub(super) async fn ask(probe: &ApplicationProbe) -> Result<(), Unwell> {
    let stream = connect(probe.port).await?;
    match &probe.how {
        How::Tcp => Ok(()),
        How::Http { path, tls, headers } => {
            let request = request(probe.port, path, headers).map_err(Unwell::Request)?;
            if *tls {
                let stream = tls::connect_unverified(stream).await;
                exchange(stream.map_err(|error| away(probe.port, error))?, request).await
            } else {
                exchange(stream, request).await
            }
        }
        How::Grpc { service } => check(stream, service).await,
    }
}

fn away(port: u16, source: io::Error) -> Unwell {
    Unwell::Away { port, source }
}

/// Not by a name, which the files of an image may not have.
async fn connect(port: u16) -> Result<TcpStream, Unwell> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    TcpStream::connect(&[v4, v6][..]).await.map_err(|error| away(port, error))
}

fn request(
    port: u16,
    path: &str,
    headers: &[(String, String)],
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut request = Request::get(path).header(header::CONNECTION, "close");
    let has = |wanted: header::HeaderName| {
        headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted.as_str()))
    };
    if !has(header::HOST) {
        request = request.header(header::HOST, format!("localhost:{port}"));
    }
    if !has(header::USER_AGENT) {
        request = request.header(header::USER_AGENT, "kube-probe/atoll");
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Empty::new())
}

/// A redirection counts as an answer, wherever it leads.
async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<(), Unwell>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(Unwell::Http)?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    let mut open = true;
    let response = loop {
        tokio::select! {
            biased;
            answer = &mut answer => break answer.map_err(Unwell::Http)?,
            ended = &mut connection, if open => {
                ended.map_err(Unwell::Http)?;
                open = false;
            }
        }
    };
    let status = response.status();
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(Unwell::Status(status))
    }
}

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

pub(super) const CHECK: &str = "/grpc.health.v1.Health/Check";
pub(super) const SERVING: i32 = 1;

async fn check(stream: TcpStream, service: &str) -> Result<(), Unwell> {
    let mut once = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.take().ok_or(io::ErrorKind::NotConnected);
        async move { Ok::<_, io::Error>(stream?) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connector).await.map_err(Unwell::Grpc)?;
    let failed = |status| Unwell::Check(Box::new(status));
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(Unwell::Grpc)?;
    let request = tonic::Request::new(HealthCheckRequest { service: service.into() });
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let path = http::uri::PathAndQuery::from_static(CHECK);
    let response = client.unary(request, path, codec).await.map_err(failed)?;
    match response.into_inner().status {
        SERVING => Ok(()),
        other => Err(Unwell::NotServing(other)),
    }
}
