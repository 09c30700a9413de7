//! The ports of a control plane.

use crate::Config;
use anyhow::Result;
use daemon::listen;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Where a control plane listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The API without encryption, if it is open.
    pub http: Option<SocketAddr>,
    /// The API with TLS, if it is open.
    pub https: Option<SocketAddr>,
    /// Where zones connect.
    pub kds: SocketAddr,
    /// Readiness and metrics.
    pub admin: SocketAddr,
}

pub(crate) struct Ports {
    pub(crate) http: Option<TcpListener>,
    pub(crate) https: Option<TcpListener>,
    pub(crate) kds: TcpListener,
    pub(crate) admin: TcpListener,
}

/// Opens every port that is wanted, or says which setting is wrong.
pub(crate) async fn open(config: &Config) -> Result<(Ports, Addresses)> {
    let (http, https) = (&config.api.http, &config.api.https);
    let ports = Ports {
        http: listen_if(http.enabled, http.address, "api.http.address").await?,
        https: listen_if(https.enabled, https.address, "api.https.address").await?,
        kds: listen(config.kds.listen, "kds.listen").await?,
        admin: listen(config.admin.listen, "admin.listen").await?,
    };
    let addresses = Addresses {
        http: ports.http.as_ref().map(TcpListener::local_addr).transpose()?,
        https: ports.https.as_ref().map(TcpListener::local_addr).transpose()?,
        kds: ports.kds.local_addr()?,
        admin: ports.admin.local_addr()?,
    };
    Ok((ports, addresses))
}

async fn listen_if(
    enabled: bool,
    address: SocketAddr,
    setting: &'static str,
) -> Result<Option<TcpListener>> {
    Ok(if enabled { Some(listen(address, setting).await?) } else { None })
}
