//! What a control plane listens on.

use crate::Config;
use anyhow::{Context, Result};
use daemon::{Clock, listen};
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

/// Open ports. A port that is taken is found here, before anything runs.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) http: Option<TcpListener>,
    pub(crate) https: Option<TlsListener>,
    pub(crate) proxies: TlsListener,
    pub(crate) dns: dns::Bound,
    pub(crate) admin: TcpListener,
}

impl Ports {
    /// Opens the ports that the settings name.
    pub(crate) async fn open(
        config: &Config,
        records: Arc<dns::Records>,
        clock: &Clock,
    ) -> Result<Self> {
        let tls = ServerTls::open("tls", &config.tls, &config.data_dir, clock.clone())?;
        let tls = Arc::new(tls);
        let (http, https) = (&config.api.http, &config.api.https);
        Ok(Self {
            http: match http.enabled {
                true => Some(listen(http.address, "api.http.address").await?),
                false => None,
            },
            https: match https.enabled {
                true => {
                    let tcp = listen(https.address, "api.https.address").await?;
                    Some(TlsListener::new(tcp, tls.clone(), Alpn::Http))
                }
                false => None,
            },
            proxies: TlsListener::new(
                listen(config.proxies.listen, "proxies.listen").await?,
                tls,
                Alpn::Grpc,
            ),
            dns: dns::bind(&config.dns, records).await.context("dns.listen")?,
            admin: listen(config.admin.listen, "admin.listen").await?,
        })
    }

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
