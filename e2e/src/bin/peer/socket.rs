//! Both ends of a WebSocket that echoes.

use crate::{
    dial,
    web::{self, Body},
};
use anyhow::{Result, bail};
use e2e::peer::Told;
use futures::{SinkExt, StreamExt};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

/// Answers a request for a WebSocket, and then every message with its own name before it.
pub(crate) fn accept(mut request: Request<Incoming>, name: &str) -> Response<Body> {
    let mut answer = Response::new(web::text(""));
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        return answer;
    };
    let accepted = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.extend(accepted.ok().map(|accepted| (SEC_WEBSOCKET_ACCEPT, accepted)));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let name = name.to_owned();
    #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
    tokio::spawn(async move {
        let stream = TokioIo::new(hyper::upgrade::on(&mut request).await?);
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        while let Some(message) = socket.next().await.transpose()? {
            if let Message::Text(text) = message {
                socket.send(Message::text(format!("{name}: {text}"))).await?;
            }
        }
        Ok::<(), anyhow::Error>(())
    });
    answer
}

/// Sends each word once the one before was answered, and closes the socket in the end.
pub(crate) async fn chat(to: &str, words: &[String]) -> Result<Told> {
    let (mut socket, answer) = client_async(format!("ws://{to}/socket"), dial(to).await?).await?;
    let mut told = Told { status: Some(answer.status().as_u16()), ..Told::default() };
    for word in words {
        socket.send(Message::text(word)).await?;
        match socket.next().await.transpose()? {
            Some(Message::Text(text)) => told.body.extend([&*text, "\n"]),
            other => bail!("an answer to {word:?} is {other:?}"),
        }
    }
    socket.close(None).await?;
    match socket.next().await.transpose()? {
        Some(Message::Close(_)) => Ok(told),
        other => bail!("the end of the socket is {other:?}"),
    }
}
