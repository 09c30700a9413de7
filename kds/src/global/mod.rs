//! The server of global: takes the calls of zones.

mod admission;
mod calls;
mod present;
mod sync;
mod uploads;

pub use self::admission::{Admission, Admitted, Presented, Refused};

use self::{
    admission::{Guarded, Guest},
    calls::Calls,
    present::{Counted, Present, TurnedAway},
    sync::Sync,
    uploads::Uploads,
};
use crate::{
    admin,
    apply::{Names, Who},
    dialect::{Dialect, Introduction, own_features},
    ended::StreamEnded,
    limit,
    memory::{self, Facts, Identity},
    metadata::{
        self, AUTHORIZATION, HASH_SUFFIX, ZONE_PING_HEALTH, announce, has, is_look, present,
    },
    observe::{Call, Event, Observer, Report, Unobserved},
    quota::Quotas,
};
use daemon::Repeats;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use proto::kuma::{
    mesh::v1alpha1::global_kds_service_server::GlobalKdsServiceServer,
    system::v1alpha1::KumaCpVersion,
};
use resource::{Flow, Kind, ZoneName};
use std::{future::Future, io, sync::Arc, time::Duration};
use store::{Backend, Kinds, view::Revision};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::server::{Connected, Server as Transport},
};

/// What the server is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This process, as zones see it.
    pub instance: String,
    /// This program.
    pub version: KumaCpVersion,
    /// How often zones ask whether global is there.
    pub health_interval: Duration,
    /// The largest message of a plain zone.
    pub plain_limit: usize,
    /// How much each zone may have.
    pub quotas: Arc<Quotas>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            instance: "global".into(),
            version: KumaCpVersion::default(),
            health_interval: Duration::from_secs(30),
            plain_limit: limit::PLAIN_MESSAGE,
            quotas: Arc::new(Quotas::NONE),
        }
    }
}

/// The store has no kind for facts about control planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kind of facts about control planes is missing")]
pub struct NoFacts;

/// The server of global.
pub struct Server<B> {
    shared: Arc<Shared<B>>,
}

impl<B> std::fmt::Debug for Server<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

struct Shared<B> {
    store: B,
    kinds: Arc<Kinds>,
    facts: Facts,
    settings: Settings,
    admission: Arc<dyn Admission>,
    observer: Arc<dyn Observer>,
    admin: admin::Registry,
    present: Present,
    uploads: Uploads,
    streams: Mutex<JoinSet<()>>,
    stop: CancellationToken,
    /// Who is refused, or does what nobody does, comes back and does it again.
    repeats: Arc<Repeats>,
}

impl<B: Backend + 'static> Server<B> {
    /// A server of what `store` holds. Its streams end when `stop` is cancelled.
    pub fn new(
        (store, kinds): (B, Arc<Kinds>),
        settings: Settings,
        admission: Arc<dyn Admission>,
        observer: Arc<dyn Observer>,
        stop: CancellationToken,
    ) -> Result<Self, NoFacts> {
        let facts = Facts::of(&kinds).ok_or(NoFacts)?;
        let (present, streams, admin) = Default::default();
        let uploads = Uploads::default();
        let shared = Shared {
            store,
            kinds,
            facts,
            settings,
            admission,
            observer,
            admin,
            present,
            uploads,
            streams,
            stop,
            repeats: Arc::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Asks proxies of connected zones.
    #[must_use]
    pub fn admin(&self) -> admin::Registry {
        self.shared.admin.clone()
    }

    /// Serves connections until the server stops, and then until its streams have ended.
    pub async fn serve<IO>(
        self,
        incoming: impl Stream<Item = io::Result<IO>>,
    ) -> Result<(), tonic::transport::Error>
    where
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        IO::ConnectInfo: Clone + Send + std::marker::Sync + 'static,
    {
        let guarded = Guarded {
            admission: self.shared.admission.clone(),
            observer: self.shared.observer.clone(),
            refusals: self.shared.repeats.clone(),
            service: (),
        };
        let calls = GlobalKdsServiceServer::new(Calls { shared: self.shared.clone() })
            .accept_compressed(CompressionEncoding::Gzip)
            // An answer of a proxy is bounded by what its zone may send.
            .max_decoding_message_size(limit::OWN_MESSAGE);
        let sync = Sync { shared: self.shared.clone() };
        let stop = self.shared.stop.clone();
        Transport::builder()
            .http2_keepalive_interval(Some(limit::KEEPALIVE))
            .http2_keepalive_timeout(Some(limit::KEEPALIVE))
            .max_concurrent_streams(limit::CALLS_OF_CONNECTION)
            .add_service(guarded.around(calls))
            .add_service(guarded.around(sync))
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await
    }
}

impl Guarded<()> {
    fn around<S>(&self, service: S) -> Guarded<S> {
        Guarded {
            admission: self.admission.clone(),
            observer: self.observer.clone(),
            refusals: self.refusals.clone(),
            service,
        }
    }
}

impl<B: Backend + 'static> Shared<B> {
    fn introduction(&self) -> Introduction {
        Introduction {
            features: own_features(),
            version: self.settings.version.clone(),
            config: String::new(),
            instance: self.settings.instance.clone(),
        }
    }

    const fn limit(&self, dialect: Dialect) -> usize {
        match dialect {
            Dialect::Plain => self.settings.plain_limit,
            Dialect::Ours(_) => limit::OWN_MESSAGE,
        }
    }

    /// Which beacon the view has.
    fn beacon(&self) -> Option<Revision> {
        let beacons = |kind: &Kind| kind.flow == Flow::BeaconToZones;
        let (id, _) = self.kinds.iter().find(|(_, kind)| beacons(kind))?;
        Some(self.store.reader().rows(id).0)
    }

    /// Says which global this is and what it understands.
    fn headers(&self, dialect: Dialect) -> Result<MetadataMap, Status> {
        let reader = self.store.reader();
        let id = self.facts.cluster_id(&reader);
        // Without it a zone could not tell this global from another.
        let id = id.ok_or_else(|| Status::unavailable("global is not set up yet"))?;
        let mut metadata = MetadataMap::new();
        if dialect != Dialect::Plain {
            announce(&mut metadata, metadata::own_features());
            let identity = Identity { id, epoch: Some(self.store.epoch()) };
            let revision = reader.revision().0;
            present(&mut metadata, &memory::Presented { identity, revision });
        }
        Ok(metadata)
    }

    fn zone(&self, guest: &Guest, metadata: &MetadataMap) -> Who {
        let name = guest.admitted.zone.clone();
        let visibility = self.admission.visibility(&name);
        let names = if has(metadata, HASH_SUFFIX) { Names::Hashed } else { Names::Bare };
        Who::Zone { name, visibility, names }
    }

    /// Counts a call that begins, unless it is not taken.
    fn count(
        &self,
        guest: &Guest,
        metadata: &MetadataMap,
        call: Call,
    ) -> Result<Counted, TurnedAway> {
        let zone = &guest.admitted.zone;
        self.present.count(zone, metadata).inspect_err(|error| {
            self.observer.turned_away(error.reason());
            let reason = error.to_string();
            if let Some(unsaid) = self.repeats.say((zone, &reason)) {
                tracing::warn!(%zone, ?call, reason, unsaid, "call of a zone refused");
            }
        })
    }

    /// Starts the task of a stream. What it sends goes into `responses`, and when it has ended the
    /// stream says why.
    fn start<M, F>(
        self: &Arc<Self>,
        (guest, metadata): (&Guest, &MetadataMap),
        (call, counted): (Call, Counted),
        responses: mpsc::Receiver<M>,
        run: impl FnOnce(Arc<Self>, Report) -> F,
    ) -> impl Stream<Item = Result<M, Status>> + Send + 'static
    where
        M: Send + 'static,
        F: Future<Output = StreamEnded> + Send + 'static,
    {
        let observer: Arc<dyn Observer> =
            if is_look(metadata) { Arc::new(Unobserved) } else { self.observer.clone() };
        let report = Report::new(observer, guest.admitted.zone.clone());
        let token = metadata.get(AUTHORIZATION).is_some();
        report.tell(Event::Opened { call, token });
        let (stop, withdrawn) = (self.stop.clone(), guest.admitted.withdrawn.clone());
        let repeats = self.repeats.clone();
        let (ended, end) = oneshot::channel();
        let zone = guest.admitted.zone.clone();
        let run = run(self.clone(), report.clone());
        let pings = has(metadata, ZONE_PING_HEALTH);
        let patience = self.settings.health_interval * limit::MISSED;
        let patience = Some(patience).filter(|patience| pings && !patience.is_zero());
        let task = async move {
            let reason = tokio::select! {
                biased;
                () = stop.cancelled() => StreamEnded::Stopping,
                () = withdrawn.cancelled() => StreamEnded::Withdrawn,
                () = counted.unheard(patience) => StreamEnded::Unheard,
                reason = run => reason,
            };
            report.tell(Event::Ended(&reason));
            report.tell(Event::Closed);
            log(&repeats, &zone, call, &reason);
            drop(counted);
            // Who is gone needs no status.
            ended.send(reason.to_status()).ok();
        };
        let mut streams = self.streams.lock();
        while let Some(joined) = streams.try_join_next() {
            if let Err(error) = joined {
                tracing::error!(%error, "the task of a stream ended unexpectedly");
            }
        }
        streams.spawn(task);
        let end =
            async move { Err(end.await.unwrap_or_else(|_| Status::internal("stream failed"))) };
        ReceiverStream::new(responses).map(Ok).chain(futures::stream::once(end))
    }
}

/// Says why a stream ended: of a peer that breaks the protocol not each time.
fn log(repeats: &Repeats, zone: &ZoneName, call: Call, ended: &StreamEnded) {
    if !ended.is_fault_of_peer() {
        tracing::info!(%zone, ?call, reason = %chain(ended), "stream of a zone ended");
    } else if let Some(unsaid) = repeats.say((zone, call, ended.reason())) {
        tracing::warn!(%zone, ?call, reason = %chain(ended), unsaid, "a zone broke its stream");
    }
}

/// An error with its causes.
fn chain(error: &StreamEnded) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    let all = causes.fold(error.to_string(), |all, cause| format!("{all}: {cause:?}"));
    limit::cut(&all, limit::REASON).into()
}
