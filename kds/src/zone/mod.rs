//! The client of a zone: keeps a connection with global.

mod calls;
mod look;
mod state;

pub use self::{
    look::{Difference, Step, Unseen},
    state::{Owed, State},
};

#[cfg(test)]
pub(crate) use self::calls::GLOBAL_TO_ZONE;

use self::{calls::Connection, look::Looks, state::Watcher};
use crate::{
    admin::Answerer,
    dialect::{Dialect, Introduction},
    global::NoFacts,
    limit,
    memory::{Facts, Identity},
    metadata::{self, own_features},
};
use daemon::{Backoff, Clock};
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use resource::{Features, Flow, ZoneName};
use std::{
    collections::BTreeSet,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use store::{Backend, Kinds};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};

/// A connection with global.
pub trait Pipe: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Pipe for T {}

/// Makes a connection with global; who it is has been verified then.
pub trait Dial: Send + Sync + 'static {
    /// A new connection.
    fn dial(&self) -> BoxFuture<'static, io::Result<Box<dyn Pipe>>>;
}

impl<F> Dial for F
where
    F: Fn() -> BoxFuture<'static, io::Result<Box<dyn Pipe>>> + Send + Sync + 'static,
{
    fn dial(&self) -> BoxFuture<'static, io::Result<Box<dyn Pipe>>> {
        self()
    }
}

/// Dials the server `host` with TLS; `config` is asked for each connection.
pub fn tls(
    config: impl Fn() -> Arc<rustls::ClientConfig> + Send + Sync + 'static,
    host: String,
    port: u16,
) -> impl Dial {
    move || -> BoxFuture<'static, io::Result<Box<dyn Pipe>>> {
        let (config, host) = (config(), host.clone());
        Box::pin(async move {
            let stream = identity::tls::connect(config, &host, port).await?;
            Ok(Box::new(stream) as Box<dyn Pipe>)
        })
    }
}

/// Gives the token of the zone, anew for each connection: it may have been exchanged.
pub type Token = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What the client is told.
#[derive(Clone)]
pub struct Settings {
    /// Our zone.
    pub zone: ZoneName,
    /// With what it shows who it is.
    pub token: Token,
    /// Where it keeps its resources, so that global tells it from another zone that was given its
    /// name; unset: it is not told.
    pub home: Option<String>,
    /// What it says about itself.
    pub introduction: Introduction,
    /// Which features of ours it has: all, unless another is played. Without one it is a plain zone.
    pub features: Features,
    /// How long it waits before it tries again.
    pub backoff: Backoff,
    /// Uniform in `0.0..1.0`, so that zones do not all come back at once.
    pub random: fn() -> f64,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("zone", &self.zone).finish_non_exhaustive()
    }
}

impl Settings {
    /// Those of the zone `zone`.
    #[must_use]
    pub fn new(zone: ZoneName, token: Token, introduction: Introduction) -> Self {
        let backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        let features = own_features();
        let (home, random) = (None, fastrand::f64);
        Self { zone, token, home, introduction, features, backoff, random }
    }

    /// How it speaks with the global that sent `headers`.
    fn dialect(&self, headers: &MetadataMap) -> Dialect {
        match metadata::dialect(headers) {
            Dialect::Plain => Dialect::Plain,
            Dialect::Ours(theirs) => Dialect::Ours(theirs.common(self.features)),
        }
    }
}

/// This global does not wait to be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this global does not wait to be confirmed")]
pub struct NothingHeld;

/// Looks at the client, and decides what only an operator can.
#[derive(Clone, Debug)]
pub struct Handle {
    watcher: Watcher,
    confirmed: Arc<Mutex<Option<Identity>>>,
    again: Arc<Notify>,
    looks: Looks,
}

impl Handle {
    /// What is known of the connection, and each change of that.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.watcher.state.subscribe()
    }

    /// What would become of the zone if it took everything from the global that it is connected
    /// with, held back or not.
    pub async fn difference(&self) -> Result<Difference, Unseen> {
        if self.watcher.state.borrow().connected_since.is_none() {
            return Err(Unseen::NotConnected);
        }
        self.looks.look().await
    }

    /// Takes the global that is held back as this zone's own, whatever that removes. It must be the
    /// one that the operator saw.
    pub fn adopt(&self, seen: &Identity) -> Result<(), NothingHeld> {
        let identity = self.watcher.held().filter(|held| held == seen).ok_or(NothingHeld)?;
        *self.confirmed.lock() = Some(identity);
        self.again.notify_one();
        Ok(())
    }
}

/// The client of a zone.
pub struct Client<B> {
    store: Arc<B>,
    kinds: Arc<Kinds>,
    facts: Facts,
    settings: Settings,
    dial: Arc<dyn Dial>,
    answerer: Arc<dyn Answerer>,
    handle: Handle,
    /// Set after the first connection of this process.
    again: AtomicBool,
}

impl<B> fmt::Debug for Client<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<B: Backend + 'static> Client<B> {
    /// A client that keeps `store` in step with the global that `dial` reaches.
    pub fn new(
        (store, kinds): (B, Arc<Kinds>),
        settings: Settings,
        dial: impl Dial,
        answerer: Arc<dyn Answerer>,
        clock: Clock,
    ) -> Result<Self, NoFacts> {
        let facts = Facts::of(&kinds).ok_or(NoFacts)?;
        let asked = kinds.iter().filter(|(_, kind)| kind.flow.requested_by_zones());
        let asked: BTreeSet<&str> = asked.map(|(_, kind)| kind.name).collect();
        let memory = facts.memory(&store.reader());
        let complete_once = memory.is_some_and(|memory| memory.has_all(asked.iter().copied()));
        let state = watch::Sender::new(State { complete_once, ..State::default() });
        let beacons = kinds.iter().filter(|(_, kind)| kind.flow == Flow::BeaconToZones);
        let beacons = beacons.map(|(_, kind)| kind.name).collect();
        let watcher = Watcher { state, clock, kinds: asked, beacons, repeats: Arc::default() };
        let (confirmed, again, looks) = Default::default();
        let handle = Handle { watcher, confirmed, again, looks };
        let (store, dial) = (Arc::new(store), Arc::new(dial));
        let again = AtomicBool::new(false);
        Ok(Self { store, kinds, facts, settings, dial, answerer, handle, again })
    }

    /// Looks at the client.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Keeps a connection until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = self.settings.backoff.clone();
        while !stop.is_cancelled() {
            let progress = Arc::default();
            let why = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.handle.again.notified() => Ended::Confirmed,
                why = self.connect(&progress) => why,
            };
            self.handle.watcher.ended(why.text());
            self.handle.looks.dismiss();
            if let Some(reason) = why.text() {
                tracing::warn!(zone = %self.settings.zone, %reason, "connection with global ended");
            }
            if progress.load(Ordering::Relaxed) {
                backoff.made_progress();
            }
            if matches!(why, Ended::Confirmed) {
                continue;
            }
            let delay = backoff.next((self.settings.random)());
            let waited = async {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = self.handle.again.notified() => {}
                }
            };
            // Elapsed or woken: in both cases it is time to look again.
            timeout(delay, waited).await.ok();
        }
        self.handle.watcher.ended(None);
    }

    /// One connection, from its beginning to its end.
    async fn connect(&self, progress: &Arc<AtomicBool>) -> Ended {
        let channel = match timeout(limit::DIALING, self.channel()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Ended::Failed(chain(&error)),
            Err(_) => return Ended::Failed("global did not answer in time".into()),
        };
        self.handle.watcher.begin();
        let mut memory = self.facts.memory(&self.store.reader());
        let first = !self.again.swap(true, Ordering::Relaxed);
        if let Some(memory) = memory.as_mut().filter(|_| first) {
            memory.judge_anew();
        }
        let connection = Connection {
            store: self.store.clone(),
            kinds: self.kinds.clone(),
            facts: self.facts,
            memory,
            settings: self.settings.clone(),
            answerer: self.answerer.clone(),
            watcher: self.handle.watcher.clone(),
            confirmed: self.handle.confirmed.clone(),
            progress: progress.clone(),
            channel,
            looks: self.handle.looks.clone(),
        };
        Ended::Failed(connection.run().await)
    }

    async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let dial = self.dial.clone();
        let mut used = false;
        let connector = tower::service_fn(move |_| {
            // A channel that reconnected by itself would hide the end of a connection.
            let again = std::mem::replace(&mut used, true);
            let dial = dial.clone();
            async move {
                if again {
                    return Err(io::Error::other("the connection is closed"));
                }
                dial.dial().await.map(TokioIo::new)
            }
        });
        // The address is only shown to the server: the connection is made by `dial`.
        Endpoint::from_static("http://global")
            .http2_keep_alive_interval(limit::ZONE_KEEPALIVE)
            .keep_alive_timeout(limit::KEEPALIVE)
            .keep_alive_while_idle(true)
            .http2_adaptive_window(false)
            .connect_with_connector(connector)
            .await
    }
}

/// Why a connection ended.
#[derive(Debug)]
enum Ended {
    /// So.
    Failed(String),
    /// An operator confirmed a global: it starts over.
    Confirmed,
}

impl Ended {
    fn text(&self) -> Option<String> {
        match self {
            Self::Failed(why) => Some(why.clone()),
            Self::Confirmed => None,
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |all, cause| format!("{all}: {cause}"))
}
