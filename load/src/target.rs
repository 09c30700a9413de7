//! The global that zones connect to.

use hyper_util::rt::TokioIo;
use identity::tls::{Alpn, client_config, connect};
use rustls::ClientConfig;
use std::sync::Arc;
use tonic::transport::{Channel, Endpoint};

/// A global.
#[derive(Clone, Debug)]
pub struct Target {
    host: String,
    port: u16,
    tls: Arc<ClientConfig>,
}

impl Target {
    /// The global at `host` and `port`, whose certificate was signed by an authority in `ca`, as PEM.
    pub fn new(host: &str, port: u16, ca: &str) -> anyhow::Result<Self> {
        let tls = client_config(ca, None, Alpn::Grpc)?;
        Ok(Self { host: host.to_owned(), port, tls })
    }

    /// A new connection.
    pub(crate) async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let this = self.clone();
        let connector = tower::service_fn(move |_| {
            let this = this.clone();
            async move { connect(this.tls, &this.host, this.port).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://global").connect_with_connector(connector).await
    }
}
