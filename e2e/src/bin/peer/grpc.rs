//! Both ends of a gRPC method that answers each message on a stream.

use anyhow::{Context as _, Result, bail};
use e2e::peer::Told;
use futures::{StreamExt, stream::BoxStream};
use std::{
    convert::Infallible,
    task::{Context, Poll},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    client,
    codegen::{BoxFuture, Service, http},
    server::{self, NamedService, StreamingService},
    transport::{Endpoint, Server},
};
use tonic_prost::ProstCodec;

const METHOD: &str = "/atoll.test.Echo/Talk";

/// The word that ends a stream with an error.
const ENOUGH: &str = "enough";

#[derive(Clone)]
struct Echo(String);

impl NamedService for Echo {
    const NAME: &'static str = "atoll.test.Echo";
}

/// Answers every word with its own name before it, and the last one with an error.
pub(crate) async fn serve(address: &str, name: &str) -> Result<()> {
    let server = Server::builder().add_service(Echo(name.to_owned()));
    Ok(server.serve(address.parse()?).await?)
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut method = server::Grpc::new(ProstCodec::<String, String>::default());
            Ok(method.streaming(echo, request).await)
        })
    }
}

impl StreamingService<String> for Echo {
    type Response = String;
    type ResponseStream = BoxStream<'static, Result<String, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        let Self(name) = self.clone();
        let answers = request.into_inner().map(move |word| match word? {
            word if word == ENOUGH => Err(Status::out_of_range(word)),
            word => Ok(format!("{name}: {word}")),
        });
        Box::pin(async move { Ok(Response::new(answers.boxed())) })
    }
}

/// Sends each word once the one before was answered. The error that ends the stream is told.
pub(crate) async fn talk(to: &str, words: &[String]) -> Result<Told> {
    let channel = Endpoint::from_shared(format!("http://{to}"))?.connect().await?;
    let mut method = client::Grpc::new(channel);
    method.ready().await?;
    let (send, sent) = mpsc::channel(1);
    let codec = ProstCodec::<String, String>::default();
    let request = Request::new(ReceiverStream::new(sent));
    let path = http::uri::PathAndQuery::from_static(METHOD);
    let mut answers = method.streaming(request, path, codec).await?.into_inner();
    let mut told = Told::default();
    for word in words {
        send.send(word.clone()).await.context("the stream ended")?;
        match answers.message().await {
            Ok(Some(answer)) => told.body.extend([&*answer, "\n"]),
            Ok(None) => bail!("no answer to {word:?}"),
            Err(status) => {
                told.body.extend([&*format!("{:?}", status.code()), ": ", status.message(), "\n"]);
            }
        }
    }
    Ok(told)
}
