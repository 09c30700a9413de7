//! The six calls of a connection. The first that ends for good ends them all.

use super::{
    Settings, chain,
    look::Looks,
    state::{State, Watcher},
};
use crate::{
    admin::{Answerer, Wire},
    apply::Visibility,
    dialect::Dialect,
    fetch::Asking,
    limit,
    memory::{Facts, Identity, Memory},
    metadata::{announce, hold, live_at, of_zone, presented, shines},
    observe::{Call, Event, Observer, Report, StreamId},
    serve::Offering,
    transit::Hop,
};
use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use proto::{
    bounded::Bounded,
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    frame::FrameCodec,
    kuma::mesh::v1alpha1::{
        ClustersResponse, StatsResponse, XdsConfigResponse, ZoneHealthCheckRequest,
        ZoneHealthCheckResponse,
    },
};
use resource::{Feature, ZoneName};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use store::{Backend, Kinds};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, IntoRequest, Request, Status,
    client::Grpc,
    codec::{Codec, CompressionEncoding},
    metadata::MetadataMap,
    transport::Channel,
};
use tonic_prost::ProstCodec;

pub(crate) const GLOBAL_TO_ZONE: &str = "/kuma.mesh.v1alpha1.KDSSyncService/GlobalToZoneSync";
const ZONE_TO_GLOBAL: &str = "/kuma.mesh.v1alpha1.KDSSyncService/ZoneToGlobalSync";
const CONFIGS: &str = "/kuma.mesh.v1alpha1.GlobalKDSService/StreamXDSConfigs";
const STATS: &str = "/kuma.mesh.v1alpha1.GlobalKDSService/StreamStats";
const CLUSTERS: &str = "/kuma.mesh.v1alpha1.GlobalKDSService/StreamClusters";
const HEALTH: &str = "/kuma.mesh.v1alpha1.GlobalKDSService/HealthCheck";

/// A connection with global.
pub(super) struct Connection<B> {
    pub(super) store: Arc<B>,
    pub(super) kinds: Arc<Kinds>,
    pub(super) facts: Facts,
    /// What the zone remembers of global.
    pub(super) memory: Option<Memory>,
    pub(super) settings: Settings,
    pub(super) answerer: Arc<dyn Answerer>,
    pub(super) watcher: Watcher,
    pub(super) confirmed: Arc<Mutex<Option<Identity>>>,
    /// Set when something of global was applied.
    pub(super) progress: Arc<AtomicBool>,
    pub(super) channel: Channel,
    /// Who wants to know what would change.
    pub(super) looks: Looks,
}

impl<B> Clone for Connection<B> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            kinds: self.kinds.clone(),
            facts: self.facts,
            memory: self.memory.clone(),
            settings: self.settings.clone(),
            answerer: self.answerer.clone(),
            watcher: self.watcher.clone(),
            confirmed: self.confirmed.clone(),
            progress: self.progress.clone(),
            channel: self.channel.clone(),
            looks: self.looks.clone(),
        }
    }
}

/// How one of the calls ended.
enum Over {
    /// Nothing goes on without it.
    All(String),
    /// Global does not have it, or does not need it any more.
    This,
}

impl<B: Backend + 'static> Connection<B> {
    /// Opens all calls and returns why the connection is over.
    pub(super) async fn run(self) -> String {
        let mut metadata = of_zone(
            &self.settings.zone,
            &self.settings.introduction.version.version,
            (self.settings.token)().as_deref(),
        );
        announce(&mut metadata, self.settings.features);
        if let Some(home) = &self.settings.home {
            live_at(&mut metadata, home);
        }
        let mut calls = JoinSet::new();
        // All at once: a call is open when its headers have come, which may be never.
        calls.spawn(self.clone().global_to_zone(metadata.clone()));
        calls.spawn(self.clone().zone_to_global(metadata.clone()));
        calls.spawn(self.clone().questions::<XdsConfigResponse>(CONFIGS, metadata.clone()));
        calls.spawn(self.clone().questions::<StatsResponse>(STATS, metadata.clone()));
        calls.spawn(self.clone().questions::<ClustersResponse>(CLUSTERS, metadata.clone()));
        calls.spawn(self.clone().look_until_end(metadata.clone()));
        calls.spawn(self.clone().doubt(metadata.clone()));
        calls.spawn(self.health(metadata));
        while let Some(over) = calls.join_next().await {
            match over {
                Ok(Over::All(why)) => return why,
                Ok(Over::This) => {}
                Err(error) => return error.to_string(),
            }
        }
        "all calls ended".into()
    }

    async fn look_until_end(self, metadata: MetadataMap) -> Over {
        self.look_for(&metadata).await;
        Over::This
    }

    fn report(&self) -> Report {
        let (made, confirmed) = (self.progress.clone(), self.confirmed.clone());
        let observer = Progress { watcher: self.watcher.clone(), made, confirmed };
        Report::new(Arc::new(observer), self.settings.zone.clone())
    }

    /// What global offers.
    async fn global_to_zone(self, metadata: MetadataMap) -> Over {
        let confirmed = self.confirmed.lock().clone();
        let remembered = (self.facts, self.memory.clone());
        let (kinds, zone) = (self.kinds.clone(), &self.settings.zone);
        let mut asking = Asking::of_global(kinds, zone, remembered, confirmed)
            .saying(self.watcher.repeats.clone());
        let (requests, outgoing) = mpsc::channel(asking.capacity());
        // Before the headers of a plain global, which come with its first response.
        for request in asking.requests(&self.settings.introduction) {
            if requests.try_send(request).is_err() {
                return Over::All("more kinds than requests".into());
            }
        }
        let codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
        let codec = Bounded::new(codec, limit::FIELDS);
        let outgoing = ReceiverStream::new(outgoing);
        let opened = open(&self.channel, GLOBAL_TO_ZONE, metadata, outgoing, codec).await;
        let (headers, responses, _) = match opened {
            Ok(response) => response.into_parts(),
            Err(status) => return Over::All(describe("GlobalToZoneSync", &status)),
        };
        let dialect = self.settings.dialect(&headers);
        if let Err(forgotten) = asking.met(dialect, presented(&headers)) {
            // What it remembers is of no use with this global.
            self.forget().await;
            return Over::All(forgotten.to_string());
        }
        for request in asking.further_requests(&self.settings.introduction) {
            if requests.try_send(request).is_err() {
                return Over::All("more kinds than requests".into());
            }
        }
        self.watcher.connected(dialect);
        if dialect == Dialect::Plain {
            tracing::warn!(
                zone = %self.settings.zone,
                "global is a plain one: it says everything anew on each connection, cannot split \
                 a large state, and does not tell whether its store was set back"
            );
        }
        let report = self.report();
        report.tell(Event::Opened { call: Call::GlobalToZone, token: false });
        let shown = || Visibility::Shown;
        let ended = asking.run(&*self.store, responses, requests, &report, shown).await;
        report.tell(Event::Ended(&ended));
        report.tell(Event::Closed);
        Over::All(format!("GlobalToZoneSync: {}", chain(&ended)))
    }

    /// The zone goes on with all it has, but asks anew.
    async fn forget(&self) {
        let Some(mut memory) = self.facts.memory(&self.store.reader()) else { return };
        for place in memory.places.values_mut() {
            place.cursor = None;
        }
        let batch = self.facts.remember(&memory).into_iter().collect();
        if let Err(error) = self.store.commit(batch).await {
            tracing::error!(%error, "cannot forget a place in the history of global");
        }
    }

    /// What global asks for.
    async fn zone_to_global(self, metadata: MetadataMap) -> Over {
        let (reader, epoch) = (self.store.reader(), self.store.epoch());
        let zone = &self.settings.zone;
        let (sender, outgoing) = mpsc::channel(Offering::capacity(&self.kinds));
        let codec = Bounded::new(FrameCodec::<DeltaDiscoveryRequest>::default(), limit::FIELDS);
        let outgoing = ReceiverStream::new(outgoing);
        let opened = open(&self.channel, ZONE_TO_GLOBAL, metadata, outgoing, codec).await;
        let (headers, requests, _) = match opened {
            Ok(response) => response.into_parts(),
            Err(status) => return Over::All(describe("ZoneToGlobalSync", &status)),
        };
        let dialect = self.settings.dialect(&headers);
        let limit = match dialect {
            Dialect::Plain => limit::PLAIN_MESSAGE,
            Dialect::Ours(_) => limit::OWN_MESSAGE,
        };
        let hop = Hop::Up(zone.clone());
        let of = (zone, dialect);
        let offering = Offering::new((reader, epoch), self.kinds.clone(), hop, of, limit);
        let report = self.report();
        report.tell(Event::Opened { call: Call::ZoneToGlobal, token: false });
        let ended = offering.run(requests, sender, &report).await;
        report.tell(Event::Ended(&ended));
        report.tell(Event::Closed);
        // Also after a clean end: a plain zone would not notice, and stay silent for ever.
        Over::All(format!("ZoneToGlobalSync: {}", chain(&ended)))
    }

    /// Questions of global about proxies.
    async fn questions<W: Wire>(self, path: &'static str, metadata: MetadataMap) -> Over {
        let (answers, outgoing) = mpsc::channel::<W>(limit::QUESTIONS);
        let codec = ProstCodec::<W, W::Request>::default();
        let outgoing = ReceiverStream::new(outgoing);
        let mut asked = match open(&self.channel, path, metadata, outgoing, codec).await {
            Ok(response) => response.into_inner(),
            Err(status) => return over(path, &status),
        };
        let mut running = JoinSet::new();
        loop {
            let question = tokio::select! {
                biased;
                Some(answered) = running.join_next(), if !running.is_empty() => {
                    if let Err(error) = answered {
                        tracing::error!(%error, "answering a question of global failed");
                    }
                    continue;
                }
                question = asked.next(), if running.len() < limit::QUESTIONS => question,
            };
            match question {
                Some(Ok(question)) => {
                    let (id, question) = W::question(question);
                    let (answerer, answers) = (self.answerer.clone(), answers.clone());
                    let most = self.message_limit();
                    running.spawn(async move {
                        let answer = timeout(limit::PROXY, answerer.answer(question)).await;
                        let late = |_| Err("the proxy did not answer in time".into());
                        let answer = bounded::<W>(id, answer.unwrap_or_else(late), most);
                        // Global has gone: nobody waits.
                        answers.send(answer).await.ok();
                    });
                }
                Some(Err(status)) => return over(path, &status),
                None => return Over::All(format!("{path}: closed by global")),
            }
        }
    }

    /// The largest message that global takes, as far as is known by now.
    fn message_limit(&self) -> usize {
        match self.watcher.state.borrow().dialect {
            Some(Dialect::Ours(_)) => limit::OWN_MESSAGE,
            Some(Dialect::Plain) | None => limit::PLAIN_MESSAGE,
        }
    }

    /// Asks whether global is there.
    async fn ask_health(
        &self,
        metadata: MetadataMap,
    ) -> Result<tonic::Response<ZoneHealthCheckResponse>, Over> {
        let codec = ProstCodec::<ZoneHealthCheckRequest, ZoneHealthCheckResponse>::default();
        let mut request = Request::new(ZoneHealthCheckRequest {});
        *request.metadata_mut() = metadata;
        let asked = async {
            let mut grpc = grpc(&self.channel);
            grpc.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
            grpc.unary(request, http::uri::PathAndQuery::from_static(HEALTH), codec).await
        };
        match timeout(limit::HEALTH, asked).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(status)) if status.code() == Code::Unimplemented => Err(Over::This),
            Ok(Err(status)) => Err(Over::All(describe("HealthCheck", &status))),
            Err(_) => Err(Over::All("HealthCheck: no answer in time".into())),
        }
    }

    /// Ends a connection of which a stream is open but stuck: when no beacon comes, or an answer is
    /// owed, global is asked which beacon it has, and if that is a newer one it goes on elsewhere.
    ///
    /// As long as global answers and nothing else changes it is asked less and less often: the longer
    /// the doubt, the longer may it take to see that it was right.
    async fn doubt(self, metadata: MetadataMap) -> Over {
        let mut state = self.watcher.state.subscribe();
        let mut pause = limit::DOUBT;
        loop {
            let due = doubtful(&state.borrow_and_update());
            if let Some(due) = due.filter(|due| *due <= Instant::now()) {
                tracing::debug!(zone = %self.settings.zone, ?due, "asking global for its beacon");
                let asked = timeout(limit::DOUBT, self.ask_health(metadata.clone())).await;
                let silent = |_| Err(Over::All("global does not answer".into()));
                match asked.unwrap_or_else(silent) {
                    Ok(response) => {
                        let beacon = shines(response.metadata());
                        let stuck = beacon.and_then(|beacon| state.borrow().stuck(beacon));
                        if let Some(why) = stuck {
                            return Over::All(why.into());
                        }
                    }
                    Err(over) => return over,
                }
                let changed = state.wait_for(|state| doubtful(state) != Some(due));
                if timeout(pause, changed).await.is_err() {
                    pause = (pause * 2).min(limit::HEALTH_INTERVAL);
                }
                continue;
            }
            pause = limit::DOUBT;
            tokio::select! {
                biased;
                changed = state.changed() => if changed.is_err() {
                    return Over::This;
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Asks again and again whether global is there, and says by it whether anything of it is
    /// applied: at once when that changes.
    async fn health(self, metadata: MetadataMap) -> Over {
        let mut interval = limit::HEALTH_INTERVAL;
        let report = self.report();
        let mut state = self.watcher.state.subscribe();
        loop {
            let held = state.borrow_and_update().held.clone();
            let mut metadata = metadata.clone();
            if let Some(held) = &held {
                hold(&mut metadata, &held.to_string());
            }
            let response = match self.ask_health(metadata).await {
                Ok(response) => response,
                Err(over) => return over,
            };
            let said = response.into_inner().interval;
            let said = said.and_then(|said| Duration::try_from(said).ok());
            let said = said.filter(|said| !said.is_zero());
            interval = said.map_or(interval, |said| said.max(limit::HEALTH_LEAST));
            report.tell(Event::HealthChecked { held: None });
            // A pause: nothing else ends it but the end of the connection.
            timeout(interval, state.wait_for(|state| state.held != held)).await.ok();
        }
    }
}

/// When global is to be asked for its beacon, if it has any.
fn doubtful(state: &State) -> Option<Instant> {
    let has = state.dialect.is_some_and(|dialect| dialect.has(Feature::Beacon));
    state.doubtful().filter(|_| has && state.connected_since.is_some())
}

/// An answer that global can read: a larger message would end the stream, and with it all others.
fn bounded<W: Wire>(id: String, answer: Result<Bytes, String>, most: usize) -> W {
    let whole = W::answer(id.clone(), answer);
    let bytes = whole.encoded_len();
    if bytes <= most {
        return whole;
    }
    W::answer(id, Err(format!("the answer has {bytes} bytes, and global takes {most}")))
}

/// Reports, and notes whether there was progress.
struct Progress {
    watcher: Watcher,
    made: Arc<AtomicBool>,
    confirmed: Arc<Mutex<Option<Identity>>>,
}

impl Observer for Progress {
    fn observe(&self, stream: StreamId, zone: &ZoneName, event: Event<'_>) {
        if matches!(event, Event::Applied { .. }) {
            self.made.store(true, Ordering::Relaxed);
        }
        if matches!(event, Event::Remembered) {
            *self.confirmed.lock() = None;
        }
        self.watcher.observe(stream, zone, event);
    }
}

fn grpc(channel: &Channel) -> Grpc<Channel> {
    Grpc::new(channel.clone())
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(limit::OWN_MESSAGE)
}

pub(super) async fn open<C: Codec>(
    channel: &Channel,
    path: &'static str,
    metadata: MetadataMap,
    outgoing: ReceiverStream<C::Encode>,
    codec: C,
) -> Result<tonic::Response<tonic::Streaming<C::Decode>>, Status>
where
    C::Encode: Send + Sync + 'static,
    C::Decode: Send + Sync + 'static,
{
    let mut grpc = grpc(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
    let mut request = outgoing.into_request();
    *request.metadata_mut() = metadata;
    grpc.streaming(request, http::uri::PathAndQuery::from_static(path), codec).await
}

fn describe(call: &str, status: &Status) -> String {
    format!("{call}: {:?}: {}", status.code(), status.message())
}

/// What a plain zone does when a stream of questions ends.
fn over(path: &str, status: &Status) -> Over {
    if [Code::Unimplemented, Code::Cancelled].contains(&status.code()) {
        tracing::info!(path, code = ?status.code(), "global asks no such questions");
        return Over::This;
    }
    Over::All(describe(path, status))
}
