//! Proxies as they come and go: sessions, ADS, registration, insights.
//!
//! A proxy is what its token says, never what it claims: the token is looked at before anything of a
//! stream is parsed, and what is served is keyed by the Dataplane that the token admits.
//!
//! A Dataplane that came with a session lives as long as its proxy ([`lives`]): it is written when the
//! session begins and whenever the proxy's state changes, and withdrawn when the proxy leaves, or has
//! been absent for a while.

mod ads;
mod auth;
mod lives;
mod registration;
mod session;
#[cfg(test)]
mod tests;

use self::{
    auth::Tokens,
    lives::{Due, Lives},
    registration::Registry,
};
use crate::{
    identities::Issuer,
    names::Names,
    reconcile::{Meshes, ProxyKey},
};
use anyhow::Context as _;
use daemon::Clock;
use identity::tls::TlsListener;
use kinds::labels::Place;
use parking_lot::Mutex;
use proto::atoll::proxy::v1::proxies_server::ProxiesServer;
use resource::ResourceKey;
use std::{sync::Arc, time::Duration};
use store::{Backend, Kinds};
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// The largest message of a proxy: an answer of its Envoy.
const LARGEST_MESSAGE: usize = 16 << 20;
/// So many streams are open on one connection at most: a session and ADS.
const STREAMS_OF_CONNECTION: u32 = 16;
/// When a connection that says nothing is looked at, and for how long.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What serves proxies.
pub struct Dataplanes<B> {
    shared: Arc<Shared<B>>,
}

impl<B> Clone for Dataplanes<B> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<B> std::fmt::Debug for Dataplanes<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataplanes").finish_non_exhaustive()
    }
}

/// What proxies are served from.
#[derive(Debug)]
pub struct Parts<B> {
    /// Where resources are kept.
    pub store: B,
    /// Their kinds.
    pub kinds: Arc<Kinds>,
    /// This zone.
    pub place: Place,
    /// This process, as insights name it.
    pub instance: String,
    /// What each proxy gets.
    pub meshes: Meshes,
    /// Who proxies are.
    pub issuer: Issuer,
    /// The names that proxies answer.
    pub names: Arc<Names>,
    /// The time.
    pub clock: Clock,
}

struct Shared<B> {
    registry: Registry<B>,
    tokens: Tokens,
    meshes: Meshes,
    issuer: Issuer,
    names: Arc<Names>,
    lives: Mutex<Lives>,
    /// A deadline of a life may have changed.
    wake: Notify,
    streams: Mutex<JoinSet<()>>,
    stop: CancellationToken,
}

impl<B: Backend + 'static> Dataplanes<B> {
    /// Serves proxies of what `parts` hold until `stop`.
    pub fn new(parts: Parts<B>, stop: CancellationToken) -> anyhow::Result<Self> {
        let Parts { store, kinds, place, instance, meshes, issuer, names, clock } = parts;
        let tokens = Tokens::new(&kinds, store.reader(), clock.clone());
        let registry = Registry::new(store, &kinds, place, instance, issuer.clone(), clock);
        let registry = registry.context("a kind is missing in the store")?;
        // Whoever was there before we came has some time to come back.
        let mut lives = Lives::new(Instant::now());
        for key in registry.of_sessions() {
            lives.known(key);
        }
        let (wake, streams, lives) = (Notify::new(), Mutex::default(), Mutex::new(lives));
        let shared = Shared { registry, tokens, meshes, issuer, names, lives, wake, streams, stop };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Serves the connections of `listener`.
    pub async fn serve(self, listener: TlsListener) -> anyhow::Result<()> {
        let stop = self.shared.stop.clone();
        let sessions = ProxiesServer::new(session::Sessions { shared: self.shared.clone() })
            .max_decoding_message_size(LARGEST_MESSAGE);
        Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(STREAMS_OF_CONNECTION)
            .add_service(sessions)
            .add_service(ads::Ads { shared: self.shared })
            .serve_with_incoming_shutdown(listener.incoming(), stop.cancelled_owned())
            .await?;
        Ok(())
    }

    /// Withdraws proxies that have been absent for too long.
    pub async fn keep(self) -> anyhow::Result<()> {
        loop {
            let deadline = self.shared.lives.lock().deadline();
            let due = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return Ok(()),
                () = self.shared.wake.notified() => {}
                () = due => self.withdraw().await?,
            }
        }
    }

    async fn withdraw(&self) -> anyhow::Result<()> {
        let due = self.shared.lives.lock().due(Instant::now());
        match due {
            Due::Withdraw(keys) => {
                for key in keys {
                    tracing::info!(dataplane = %key, "absent proxy withdrawn");
                    self.shared.registry.withdraw(&key).await?;
                }
            }
            Due::Suspicious { absent, known } => tracing::error!(
                absent,
                known,
                "most proxies vanished together: nothing is withdrawn, the fault may be on our side"
            ),
        }
        Ok(())
    }
}

impl<B: Backend + 'static> Shared<B> {
    /// Runs a stream's task until it ends.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut streams = self.streams.lock();
        while let Some(joined) = streams.try_join_next() {
            if let Err(error) = joined {
                tracing::error!(%error, "the task of a stream ended unexpectedly");
            }
        }
        streams.spawn(task);
    }
}

/// A Dataplane as the tables name it; `None` if the key has no mesh.
fn proxy_key(key: &ResourceKey) -> Option<ProxyKey> {
    Some(ProxyKey { mesh: key.mesh.clone()?, name: key.name.clone() })
}
