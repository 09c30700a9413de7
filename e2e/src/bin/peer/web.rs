//! An application that speaks HTTP.

use crate::socket;
use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
    header::{CONTENT_LENGTH, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};

/// What every answer has.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// How long a slow request takes.
const SLOW: Duration = Duration::from_secs(1);
/// How many zeros there are at once.
const BLOCK: u64 = 64 * 1024;

/// Answers every request with its own name and the request's headers as JSON. `/slow` takes its time,
/// `/zeros/COUNT` is that many zeros, `/socket` a WebSocket.
pub(crate) async fn serve(address: &str, name: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await.context(address.to_owned())?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let name = name.to_owned();
        connections.spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let name = name.clone();
                async move { Ok::<_, Infallible>(answer(request, &name).await) }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            server.serve_connection_with_upgrades(TokioIo::new(stream), answer).await.ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>, name: &str) -> Response<Body> {
    let path = request.uri().path();
    if path == "/socket" {
        return socket::accept(request, name);
    }
    if let Some(count) = path.strip_prefix("/zeros/").and_then(|count| count.parse().ok()) {
        return zeros(count);
    }
    if path == "/slow" {
        work().await;
    }
    let headers: serde_json::Map<String, serde_json::Value> = request
        .headers()
        .iter()
        .map(|(key, value)| (key.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    Response::new(text(serde_json::json!({ "name": name, "headers": headers }).to_string()))
}

/// A body that is all there.
pub(crate) fn text(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

fn zeros(count: u64) -> Response<Body> {
    let block = Bytes::from_static(&[0; BLOCK as usize]);
    let whole = (0..count / BLOCK).map({
        let block = block.clone();
        move |_| block.clone()
    });
    let rest = block.slice(..usize::try_from(count % BLOCK).unwrap_or_default());
    let frames = whole.chain([rest]).map(|bytes| Ok(Frame::data(bytes)));
    let body = StreamBody::new(tokio_stream::iter(frames)).boxed();
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(count));
    answer
}

#[expect(clippy::disallowed_methods, reason = "stands for work that takes time")]
async fn work() {
    tokio::time::sleep(SLOW).await;
}
