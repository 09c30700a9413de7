//! Connections to the zone's control plane.

use super::{Dial, DialError};
use crate::config::{Target, Zone};
use anyhow::Context;
use hyper_util::rt::TokioIo;
use identity::tls::{self, Alpn};
use std::{io, path::Path, sync::Arc, time::Duration};
use tonic::transport::{Channel, Endpoint};

/// How often a silent connection is asked for a sign of life, and how long it has to give one: a
/// control plane that vanished sends no reset.
const SIGN_OF_LIFE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3));

/// Connects by TLS to a control plane that must prove its name.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) target: Target,
    /// Whom we believe, as PEM.
    pub(crate) ca: String,
    config: Arc<rustls::ClientConfig>,
}

impl Tls {
    /// Reads what is needed to recognise the control plane of `zone`.
    pub(crate) fn new(zone: &Zone) -> anyhow::Result<Self> {
        let target = zone.target().map_err(|reason| anyhow::anyhow!("zone.address: {reason}"))?;
        let path = Path::new(&zone.ca_file);
        let named = || format!("zone.caFile: {}", path.display());
        let ca = std::fs::read_to_string(path).with_context(named)?;
        let config = tls::client_config(&ca, None, Alpn::Grpc).with_context(named)?;
        Ok(Self { target, ca, config })
    }
}

impl Dial for Tls {
    async fn dial(&self) -> Result<Channel, DialError> {
        let Target { host, port, server_name } = &self.target;
        let stream = tls::connect_to(self.config.clone(), server_name, host, *port).await?;
        let mut once = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_| {
            // The connection is the session's: a new one begins with a new hello.
            let stream = once.take().ok_or(io::ErrorKind::NotConnected);
            async move { Ok::<_, io::Error>(stream?) }
        });
        let (interval, timeout) = SIGN_OF_LIFE;
        let endpoint = Endpoint::from_static("http://zone")
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true);
        Ok(endpoint.connect_with_connector(connector).await?)
    }
}
