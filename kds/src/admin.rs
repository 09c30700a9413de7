//! Questions of global about a zone's proxies.
//!
//! A zone opens three calls and waits; global asks on them and the zone answers each question once.
//! Both ends bound how long a question takes, and forget it with the stream.
//!
//! The protocol asks for configurations, statistics and clusters. Between two of ours global also asks
//! what became of a resource in the proxies of the zone: as if for a configuration, of a kind that
//! nobody else has. A plain zone is never asked that.

use crate::{dialect::Dialect, limit};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message;
use proto::kuma::mesh::v1alpha1::{
    AdminOutputFormat, ClustersRequest, ClustersResponse, StatsRequest, StatsResponse,
    XdsConfigRequest, XdsConfigResponse, clusters_response, stats_response, xds_config_response,
};
use resource::{
    Feature, MeshName, ResourceKey, ZoneName,
    inspect::{Format, What},
};
use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};
use uuid::Uuid;

/// A question about a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The kind of the proxy's resource.
    pub kind: String,
    /// Its mesh, and its name in the zone.
    pub mesh: String,
    /// Its name in the zone.
    pub name: String,
    /// What is asked.
    pub what: What,
}

impl Question {
    /// A question about the proxy whose resource is called `key` in its zone.
    #[must_use]
    pub fn about(kind: &str, key: &ResourceKey, what: What) -> Self {
        let mesh = key.mesh.as_ref().map(ToString::to_string).unwrap_or_default();
        Self { kind: kind.into(), mesh, name: key.name.to_string(), what }
    }

    /// The question what became of the resource that is called `key` in the zone, in its proxies.
    #[must_use]
    pub fn propagation(kind: &str, key: &ResourceKey, when: When) -> Self {
        let endpoints = match when {
            When::Now => false,
            When::Settled => true,
        };
        Self::about(&format!("{PROPAGATION}{kind}"), key, What::Config { endpoints })
    }

    /// The kind of the resource, and when to answer, if that is the question.
    #[must_use]
    pub fn asks_propagation(&self) -> Option<(&str, When)> {
        let kind = self.kind.strip_prefix(PROPAGATION)?;
        match self.what {
            What::Config { endpoints: true } => Some((kind, When::Settled)),
            What::Config { endpoints: false } => Some((kind, When::Now)),
            What::Stats { .. } | What::Clusters { .. } => None,
        }
    }

    /// What it is about, if that can be the name of something.
    #[must_use]
    pub fn key(&self) -> Option<ResourceKey> {
        let mesh = match &*self.mesh {
            "" => None,
            mesh => Some(MeshName::new(mesh).ok()?),
        };
        Some(ResourceKey { mesh, name: self.name.as_str().into() })
    }
}

/// Before the kind of a resource, if the question is what became of it.
const PROPAGATION: &str = "atoll-propagation/";

/// When a zone says what became of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// When no proxy lacks it any more, or after [`limit::SETTLING`].
    Settled,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The zone has no stream for such questions.
    #[error("zone {0:?} is not connected")]
    NotConnected(ZoneName),
    /// Too many questions wait.
    #[error("zone {0:?} has too many questions to answer")]
    Busy(ZoneName),
    /// No answer came in time.
    #[error("zone {0:?} did not answer in time")]
    TimedOut(ZoneName),
    /// The zone does not know such questions.
    #[error("zone {0:?} does not say what its proxies took")]
    NotUnderstood(ZoneName),
    /// The zone says why.
    #[error("{0}")]
    Failed(String),
}

/// Answers questions about proxies of a zone.
pub trait Answerer: Send + Sync + 'static {
    /// The answer, or why there is none.
    fn answer(&self, question: Question) -> BoxFuture<'static, Result<Bytes, String>>;
}

/// Knows no proxies.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProxies;

impl Answerer for NoProxies {
    fn answer(&self, question: Question) -> BoxFuture<'static, Result<Bytes, String>> {
        let text = format!("{} {:?} is not connected", question.kind, question.name);
        Box::pin(std::future::ready(Err(text)))
    }
}

/// One of the three sorts of questions, by the message of its answers.
pub trait Wire: Message + Default + 'static {
    /// The message of its questions.
    type Request: Message + Default + 'static;
    /// Writes a question; `None` if it is of another sort.
    fn ask(id: String, question: &Question) -> Option<Self::Request>;
    /// Reads a question.
    fn question(request: Self::Request) -> (String, Question);
    /// Writes an answer.
    fn answer(id: String, answer: Result<Bytes, String>) -> Self;
    /// Reads an answer.
    fn read(self) -> (String, Result<Bytes, String>);
}

macro_rules! wire {
    ($answer:ident, $results:ident, $payload:ident, $field:ident, $request:ident,
     |$what:pat_param| $fields:tt, |$asked:ident| $read:expr) => {
        impl Wire for $answer {
            type Request = $request;

            #[allow(irrefutable_let_patterns, reason = "sorts differ in what they ask")]
            fn ask(id: String, question: &Question) -> Option<$request> {
                let $what = question.what else { return None };
                let mut request = wire!(@ $request $fields);
                request.request_id = id;
                request.resource_type = question.kind.clone();
                request.resource_name = question.name.clone();
                request.resource_mesh = question.mesh.clone();
                Some(request)
            }

            fn question($asked: $request) -> (String, Question) {
                let what = $read;
                let (kind, name) = ($asked.resource_type, $asked.resource_name);
                let question = Question { kind, mesh: $asked.resource_mesh, name, what };
                ($asked.request_id, question)
            }

            fn answer(request_id: String, answer: Result<Bytes, String>) -> Self {
                let result = match answer {
                    // An empty payload leaves the answer unset, as the protocol has it.
                    Ok(bytes) if bytes.is_empty() => None,
                    Ok(bytes) => Some($results::Result::$payload(bytes.into())),
                    Err(error) => Some($results::Result::Error(error)),
                };
                Self { request_id, result }
            }

            fn read(self) -> (String, Result<Bytes, String>) {
                let answer = match self.result {
                    None => Ok(Bytes::new()),
                    Some($results::Result::$payload(bytes)) => Ok(bytes.into()),
                    Some($results::Result::Error(error)) => Err(error),
                };
                (self.request_id, answer)
            }
        }
    };
    (@ $request:ident { $($field:ident: $value:expr),* $(,)? }) => {
        $request { $($field: $value,)* ..$request::default() }
    };
}

wire!(XdsConfigResponse, xds_config_response, Config, config, XdsConfigRequest,
    |What::Config { endpoints }| { include_eds: endpoints },
    |asked| What::Config { endpoints: asked.include_eds });
wire!(StatsResponse, stats_response, Stats, stats, StatsRequest,
    |What::Stats { format, used_only }| { format: print(format), used_only: used_only },
    |asked| What::Stats { format: parse(asked.format), used_only: asked.used_only });
wire!(ClustersResponse, clusters_response, Clusters, clusters, ClustersRequest,
    |What::Clusters { format }| { format: print(format) },
    |asked| What::Clusters { format: parse(asked.format) });

const fn print(format: Format) -> i32 {
    match format {
        Format::Text => AdminOutputFormat::Text as i32,
        Format::Json => AdminOutputFormat::Json as i32,
    }
}

const fn parse(format: i32) -> Format {
    if format == AdminOutputFormat::Json as i32 { Format::Json } else { Format::Text }
}

type Waiting = BTreeMap<String, oneshot::Sender<Result<Bytes, String>>>;

/// The streams on which zones answer questions.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<(ZoneName, &'static str), Stream>>>);

struct Stream {
    /// Tells streams of one zone apart: one that ends takes away none but itself.
    number: u64,
    dialect: Dialect,
    questions: Box<dyn Any + Send + Sync>,
    waiting: Arc<Mutex<Waiting>>,
    /// Lets as many questions about resources through as may be asked at once.
    propagations: Arc<Semaphore>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("streams", &self.0.lock().len()).finish()
    }
}

impl Registry {
    /// Takes note of a stream of `zone`, until the connection is dropped.
    pub(crate) fn connect<W: Wire>(
        &self,
        zone: &ZoneName,
        dialect: Dialect,
    ) -> (Connection<W>, mpsc::Receiver<W::Request>) {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let (questions, asked) = mpsc::channel::<W::Request>(limit::QUESTIONS);
        let waiting = Arc::<Mutex<Waiting>>::default();
        let at = (zone.clone(), sort::<W>());
        let propagations = Arc::new(Semaphore::new(limit::PROPAGATIONS));
        let (questions, waits) = (Box::new(questions), waiting.clone());
        let stream = Stream { number, dialect, questions, waiting: waits, propagations };
        self.0.lock().insert(at.clone(), stream);
        (Connection { registry: self.clone(), at, number, waiting, sort: PhantomData }, asked)
    }

    /// Asks a proxy of `zone`, or the zone about its proxies.
    pub async fn ask(&self, zone: &ZoneName, question: &Question) -> Result<Bytes, Unanswered> {
        let _turn = match question.asks_propagation() {
            Some(_) => Some(self.turn(zone).await?),
            None => None,
        };
        match question.what {
            What::Config { .. } => self.ask_as::<XdsConfigResponse>(zone, question).await,
            What::Stats { .. } => self.ask_as::<StatsResponse>(zone, question).await,
            What::Clusters { .. } => self.ask_as::<ClustersResponse>(zone, question).await,
        }
    }

    /// Waits until a zone may be asked what became of a resource.
    async fn turn(&self, zone: &ZoneName) -> Result<OwnedSemaphorePermit, Unanswered> {
        let turns = {
            let streams = self.0.lock();
            let stream = streams.get(&(zone.clone(), sort::<XdsConfigResponse>()));
            let stream = stream.ok_or_else(|| Unanswered::NotConnected(zone.clone()))?;
            if !stream.dialect.has(Feature::Propagation) {
                return Err(Unanswered::NotUnderstood(zone.clone()));
            }
            stream.propagations.clone()
        };
        let turn = timeout(limit::QUESTION, turns.acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| Unanswered::Busy(zone.clone()))
    }

    async fn ask_as<W: Wire>(
        &self,
        zone: &ZoneName,
        question: &Question,
    ) -> Result<Bytes, Unanswered> {
        let id = Uuid::new_v4().to_string();
        let (waiting, answered) = self.send::<W>(zone, &id, question)?;
        // Whoever asks may leave before there is an answer.
        let _forgotten = Forgotten { waiting, id };
        match timeout(limit::QUESTION, answered).await {
            Ok(Ok(answer)) => answer.map_err(Unanswered::Failed),
            Ok(Err(_)) => Err(Unanswered::NotConnected(zone.clone())),
            Err(_) => Err(Unanswered::TimedOut(zone.clone())),
        }
    }

    /// How many questions wait for an answer.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().values().map(|stream| stream.waiting.lock().len()).sum()
    }

    #[expect(clippy::type_complexity, reason = "what waits, and for what")]
    fn send<W: Wire>(
        &self,
        zone: &ZoneName,
        id: &str,
        question: &Question,
    ) -> Result<(Arc<Mutex<Waiting>>, oneshot::Receiver<Result<Bytes, String>>), Unanswered> {
        let none = || Unanswered::NotConnected(zone.clone());
        let streams = self.0.lock();
        let stream = streams.get(&(zone.clone(), sort::<W>())).ok_or_else(none)?;
        let questions = stream.questions.downcast_ref::<mpsc::Sender<W::Request>>();
        let questions = questions.ok_or_else(none)?;
        let request = W::ask(id.into(), question).ok_or_else(none)?;
        let (answer, answered) = oneshot::channel();
        // Before it is sent: the answer may be quick.
        stream.waiting.lock().insert(id.into(), answer);
        if let Err(error) = questions.try_send(request) {
            stream.waiting.lock().remove(id);
            return Err(match error {
                mpsc::error::TrySendError::Full(_) => Unanswered::Busy(zone.clone()),
                mpsc::error::TrySendError::Closed(_) => none(),
            });
        }
        Ok((stream.waiting.clone(), answered))
    }
}

/// A question that waits until this is dropped.
struct Forgotten {
    waiting: Arc<Mutex<Waiting>>,
    id: String,
}

impl Drop for Forgotten {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.id);
    }
}

fn sort<W: Wire>() -> &'static str {
    std::any::type_name::<W>()
}

/// A zone's stream for one sort of questions.
pub(crate) struct Connection<W> {
    registry: Registry,
    at: (ZoneName, &'static str),
    number: u64,
    waiting: Arc<Mutex<Waiting>>,
    sort: PhantomData<fn(W)>,
}

impl<W: Wire> Connection<W> {
    /// An answer came. One that nobody waits for is too late, and is ignored: that is told.
    pub(crate) fn answered(&self, answer: W) -> bool {
        let (id, answer) = answer.read();
        let waiting = self.waiting.lock().remove(&id);
        // Who asked may have left.
        waiting.map(|waiting| waiting.send(answer)).is_some()
    }
}

impl<W> Drop for Connection<W> {
    fn drop(&mut self) {
        let mut streams = self.registry.0.lock();
        if streams.get(&self.at).is_some_and(|stream| stream.number == self.number) {
            streams.remove(&self.at);
        }
        drop(streams);
        self.waiting.lock().clear();
    }
}
