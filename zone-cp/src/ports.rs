//! What a control plane listens on.

use crate::Config;
use anyhow::{Context, Result};
use daemon::listen;
use identity::tls::{Alpn, ServerTls, TlsListener};
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;

/// Where a control plane listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The API without encryption, if it is open.
    pub http: Option<SocketAddr>,
    /// The API with TLS, if it is open.
    pub https: Option<SocketAddr>,
    /// Where proxies connect.
    pub proxies: SocketAddr,
    /// Where names are answered.
    pub dns: SocketAddr,
    /// Readiness and metrics.
    pub admin: SocketAddr,
}

/// Open ports that do not know yet who they are.
#[derive(Debug)]
pub(crate) struct Sockets {
    http: Option<TcpListener>,
    https: Option<TcpListener>,
    proxies: TcpListener,
    dns: dns::Bound,
    admin: TcpListener,
}

/// Open ports.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) http: Option<TcpListener>,
    pub(crate) https: Option<TlsListener>,
    pub(crate) proxies: TlsListener,
    pub(crate) dns: dns::Bound,
    pub(crate) admin: TcpListener,
}

impl Sockets {
    /// Opens the ports that the settings name, or says which setting is wrong. Nothing else is
    /// touched before.
    pub(crate) async fn open(config: &Config, records: Arc<dns::Records>) -> Result<Self> {
        let (http, https) = (&config.api.http, &config.api.https);
        Ok(Self {
            http: listen_if(http.enabled, http.address, "api.http.address").await?,
            https: listen_if(https.enabled, https.address, "api.https.address").await?,
            proxies: listen(config.proxies.listen, "proxies.listen").await?,
            dns: dns::bind(&config.dns, records).await.context("dns.listen")?,
            admin: listen(config.admin.listen, "admin.listen").await?,
        })
    }

    /// Those that are encrypted show who they are by `tls`.
    pub(crate) fn with(self, tls: Arc<ServerTls>) -> Ports {
        let Self { http, https, proxies, dns, admin } = self;
        Ports {
            http,
            https: https.map(|tcp| TlsListener::new(tcp, tls.clone(), Alpn::Http)),
            // Kuma's programs ask for their bootstrap by HTTP/1.1.
            proxies: TlsListener::new(proxies, tls, Alpn::Http),
            dns,
            admin,
        }
    }
}

async fn listen_if(
    enabled: bool,
    address: SocketAddr,
    setting: &'static str,
) -> Result<Option<TcpListener>> {
    Ok(if enabled { Some(listen(address, setting).await?) } else { None })
}

impl Ports {
    /// Where they are.
    pub(crate) fn addresses(&self) -> Result<Addresses> {
        Ok(Addresses {
            http: self.http.as_ref().map(TcpListener::local_addr).transpose()?,
            https: self.https.as_ref().map(TlsListener::local_addr).transpose()?,
            proxies: self.proxies.local_addr()?,
            dns: self.dns.address,
            admin: self.admin.local_addr()?,
        })
    }
}
