//! What a control plane listens on.

use crate::Config;
use anyhow::{Context, Result};
use api::serve;
use daemon::{Metrics, Ready, admin, listen};
use identity::tls::{Alpn, ServerTls, TlsListener};
use std::{io, net::SocketAddr, os::fd::AsFd as _, sync::Arc};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
    pub(crate) admin: TcpListener,
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

/// Answers at the port of readiness that this process lives, and is not ready, until `part` is over:
/// it may wait for others, and who asks would end it.
pub(crate) async fn alive<T>(port: &TcpListener, part: impl Future<Output = T>) -> io::Result<T> {
    let port = std::net::TcpListener::from(port.as_fd().try_clone_to_owned()?);
    let (port, ready) = (TcpListener::from_std(port)?, Ready::default());
    let _waits = ready.guard("store");
    let router = admin::router(ready.clone(), Metrics::default());
    tokio::select! {
        biased;
        done = part => Ok(done),
        () = serve::plain(port, router, CancellationToken::new()) => {
            Err(io::Error::other("the port of readiness was closed"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::Ipv4Addr, time::Duration};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        sync::oneshot,
        time::timeout,
    };

    #[tokio::test]
    async fn a_process_that_waits_says_that_it_lives() {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = port.local_addr().unwrap();
        let ask = async |path: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).await.unwrap();
            said.lines().next().unwrap_or_default().to_owned()
        };
        let (over, waits) = oneshot::channel();
        let asks = async {
            let said = [ask("/live").await, ask("/ready").await];
            over.send(()).unwrap();
            said
        };
        let both = async { tokio::join!(alive(&port, waits), asks) };
        let (done, said) = timeout(Duration::from_secs(60), both).await.unwrap();
        done.unwrap().unwrap();
        assert_eq!(said, ["HTTP/1.1 200 OK", "HTTP/1.1 503 Service Unavailable"]);
        // And goes on as itself.
        let (asked, accepted) = tokio::join!(TcpStream::connect(address), port.accept());
        assert!(asked.is_ok() && accepted.is_ok());
    }
}
