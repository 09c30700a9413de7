//! From settings to a running control plane.

use crate::{
    Config, defaults,
    identities::{Identities, Issuer},
    join,
    names::{Dns, Names},
    services,
};
use anyhow::{Context, Result};
use api::{About, ApiState, NoHooks, admin_token};
use daemon::{Clock, Metrics, Ready, Tasks, admin, data};
use identity::tls::{Alpn, ServerTls, TlsListener};
use kds::admin::NoProxies;
use kinds::labels::Env;
use resource::{MeshName, Peer, ZoneName};
use std::{net::SocketAddr, sync::Arc};
use store::{Backend, Kinds, Local, Memory};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Where a control plane listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The API without encryption, if it is open.
    pub http: Option<SocketAddr>,
    /// The API with TLS, if it is open.
    pub https: Option<SocketAddr>,
    /// Where proxies connect.
    pub proxies: Option<SocketAddr>,
    /// Where names are answered.
    pub dns: Option<SocketAddr>,
    /// Readiness and metrics.
    pub admin: Option<SocketAddr>,
}

/// A control plane whose ports are open and whose store is loaded.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens.
    pub addresses: Addresses,
    tasks: Tasks,
}

impl Bound {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        tracing::info!(addresses = ?self.addresses, "listening");
        Ok(self.tasks.run(shutdown).await?)
    }
}
