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
        let given = zone.ca_file.is_empty();
        let named =
            || if given { "zone.ca".into() } else { format!("zone.caFile: {}", path.display()) };
        let ca = match given {
            true => zone.ca.clone(),
            false => std::fs::read_to_string(path).with_context(named)?,
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::Clock;
    use identity::tls::{ServerTls, TlsConfig, TlsListener};
    use std::time::Duration;
    use tokio::{net::TcpListener, time::timeout};

    /// A control plane that proves the name `localhost` by an authority of its own.
    async fn control_plane(folder: &Path) -> (TlsListener, Zone) {
        let tls = ServerTls::open("tls", &TlsConfig::default(), folder, Clock::system()).unwrap();
        let ca_file = tls.ca_file().unwrap().to_string_lossy().into_owned();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let address = format!("https://127.0.0.1:{port}");
        let server_name = Some("localhost".into());
        let zone = Zone { address, ca_file, ca: String::new(), server_name };
        (TlsListener::new(tcp, Arc::new(tls), Alpn::Http), zone)
    }

    async fn dial(listener: &mut TlsListener, zone: &Zone) -> Result<Channel, String> {
        let dialler = Tls::new(zone).unwrap();
        let dial = async { dialler.dial().await.map_err(|error| error.to_string()) };
        // Accepts until the client has made up its mind.
        let accept = async {
            let mut accepted = Vec::new();
            loop {
                accepted.push(listener.accept().await);
            }
        };
        let both = Box::pin(async {
            tokio::select! {
                biased;
                dialled = dial => dialled,
                endless = accept => endless,
            }
        });
        timeout(Duration::from_secs(20), both).await.expect("in time")
    }

    #[tokio::test]
    async fn a_control_plane_must_prove_its_name() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut listener, zone) = control_plane(one.path()).await;
        let (_, other) = control_plane(two.path()).await;
        assert!(dial(&mut listener, &zone).await.is_ok());

        let ca = std::fs::read_to_string(&zone.ca_file).unwrap();
        let told = Zone { ca, ca_file: String::new(), ..zone.clone() };
        assert!(dial(&mut listener, &told).await.is_ok());

        let stranger = Zone { ca_file: other.ca_file, ..zone.clone() };
        let refused = dial(&mut listener, &stranger).await.unwrap_err();
        assert!(refused.contains("invalid peer certificate"), "{refused}");
        let misnamed = Zone { server_name: Some("zone.example".into()), ..zone };
        let refused = dial(&mut listener, &misnamed).await.unwrap_err();
        assert!(refused.contains("not valid for name"), "{refused}");
    }

    #[test]
    fn without_an_authority_there_is_no_connection() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("ca.crt");
        std::fs::write(&empty, "").unwrap();
        for ca_file in [empty.to_string_lossy().into_owned(), "/nowhere/ca.crt".into()] {
            let error =
                Tls::new(&Zone { ca_file: ca_file.clone(), ..Zone::default() }).unwrap_err();
            assert_eq!(error.to_string(), format!("zone.caFile: {ca_file}"));
        }
    }
}
