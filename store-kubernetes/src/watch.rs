//! The objects of one kind as they come: first all there are, then every change.
//!
//! After a loss of connection the watch goes on where it was; if the API server does not remember
//! that place, everything is listed again. Nobody is asked on a timer: only failures are retried.

use super::{metrics::Metrics, place::Place};
use daemon::Backoff;
use futures::{Stream, StreamExt as _, stream, stream::BoxStream};
use kube::{
    Api, Client, Error,
    api::{ListParams, WatchParams},
    core::{DynamicObject, Status, WatchEvent},
};
use parking_lot::Mutex;
use std::{mem, sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};

/// How many objects a page of a list has.
const PAGE: u32 = 500;
/// How long a list or the begin of a watch may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// After how many seconds the API server ends a watch. A dead connection is noticed by then.
const WATCH_SECONDS: u32 = 290;
/// A watch that ends sooner is not asked for at once.
const SHORT: Duration = Duration::from_secs(2);
/// The client does not say that a watch was refused but by an event, which comes at once.
const SOON: Duration = Duration::from_secs(1);
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What is heard of a kind.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A list of all objects begins.
    Begun,
    /// Some of the list.
    Listed(Vec<DynamicObject>),
    /// The list was that, at this version.
    Complete(String),
    /// Everything is heard.
    Watching,
    /// An object was written.
    Changed(Box<DynamicObject>),
    /// An object is gone.
    Removed(Box<DynamicObject>),
    /// The API server does not know the kind.
    Unknown,
    /// The API server cannot be asked now.
    Failed(Failure),
}

/// Why the API server did not answer a request as one would like.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Client(#[from] Error),
    #[error("the API server does not answer")]
    Silent,
}

impl Failure {
    /// What the API server said; `None` if it said nothing.
    pub(crate) fn status(&self) -> Option<&Status> {
        match self {
            Self::Client(Error::Api(status)) => Some(status),
            Self::Client(_) | Self::Silent => None,
        }
    }

    pub(crate) fn code(&self) -> u16 {
        self.status().map_or(0, |status| status.code)
    }
}

/// What is known about the definition of a kind.
#[derive(Debug, Default)]
pub(crate) struct Definition {
    exists: Mutex<Option<bool>>,
    changed: Notify,
}

impl Definition {
    /// Tells that it was seen, or that it is not there.
    pub(crate) fn set(&self, exists: bool) {
        *self.exists.lock() = Some(exists);
        self.changed.notify_one();
    }

    /// Whether it is there; `None` if nobody knows.
    pub(crate) fn exists(&self) -> Option<bool> {
        *self.exists.lock()
    }
}

enum State {
    Begin,
    List { token: Option<String> },
    Listed { version: String },
    Start { version: String },
    Watch { version: String, events: Events, since: Instant, heard: bool },
    Unknown,
    Pause(Box<Self>),
}

type Events = BoxStream<'static, Result<WatchEvent<DynamicObject>, Error>>;

struct Source {
    api: Api<DynamicObject>,
    fields: Option<String>,
    labels: Option<String>,
    definition: Arc<Definition>,
    state: State,
    backoff: Backoff,
    metrics: Metrics,
}

/// Everything that is heard of the objects of `place`, without end.
pub(crate) fn watch(
    client: &Client,
    place: &Place,
    definition: Arc<Definition>,
    metrics: Metrics,
) -> impl Stream<Item = Heard> + Send + use<> {
    let source = Source {
        api: match place.namespace() {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &place.api),
            None => Api::all_with(client.clone(), &place.api),
        },
        fields: place.field_selector(),
        labels: place.label_selector(),
        definition,
        state: State::Begin,
        backoff: Backoff::new(MIN_PAUSE, MAX_PAUSE),
        metrics,
    };
    stream::unfold(source, |mut source| async move { Some((source.next().await, source)) })
}

impl Source {
    async fn next(&mut self) -> Heard {
        loop {
            let state = mem::replace(&mut self.state, State::Begin);
            let (state, heard) = match state {
                State::Begin => (State::List { token: None }, Some(Heard::Begun)),
                State::List { token } => self.list(token).await,
                State::Listed { version } => {
                    (State::Start { version: version.clone() }, Some(Heard::Complete(version)))
                }
                State::Start { version } => self.start(version).await,
                State::Watch { version, mut events, since, heard: false } => {
                    match timeout(SOON, events.next()).await {
                        Ok(first) => self.hear(version, events, since, first),
                        Err(_) => {
                            let heard = true;
                            (State::Watch { version, events, since, heard }, Some(Heard::Watching))
                        }
                    }
                }
                State::Watch { version, mut events, since, heard: true } => {
                    let within = Duration::from_secs(WATCH_SECONDS.into()) + PATIENCE;
                    let next = timeout(within, events.next()).await;
                    self.hear(version, events, since, next.unwrap_or(None))
                }
                State::Unknown => {
                    self.definition_changes().await;
                    (State::Begin, None)
                }
                State::Pause(then) => {
                    sleep_until(Instant::now() + self.backoff.next(fastrand::f64())).await;
                    (*then, None)
                }
            };
            self.state = state;
            if let Some(heard) = heard {
                return heard;
            }
        }
    }

    async fn list(&mut self, token: Option<String>) -> (State, Option<Heard>) {
        let params = ListParams {
            limit: Some(PAGE),
            continue_token: token,
            field_selector: self.fields.clone(),
            label_selector: self.labels.clone(),
            ..ListParams::default()
        };
        let listed = within(PATIENCE, self.api.list(&params)).await;
        self.metrics.requested("list", listed.as_ref().err());
        let list = match listed {
            Ok(list) => list,
            // The list got too old between two pages.
            Err(failure) if failure.code() == 410 => return (State::Begin, None),
            Err(failure) => return Self::failed(failure, State::Begin),
        };
        let token = list.metadata.continue_.filter(|token| !token.is_empty());
        let version = list.metadata.resource_version.unwrap_or_default();
        let next = match token {
            Some(token) => State::List { token: Some(token) },
            None => State::Listed { version },
        };
        (next, Some(Heard::Listed(list.items)))
    }

    async fn start(&mut self, version: String) -> (State, Option<Heard>) {
        let params = WatchParams {
            timeout: Some(WATCH_SECONDS),
            field_selector: self.fields.clone(),
            label_selector: self.labels.clone(),
            ..WatchParams::default()
        };
        let started = within(PATIENCE, self.api.watch(&params, &version)).await;
        self.metrics.requested("watch", started.as_ref().err());
        match started {
            Ok(events) => {
                let (events, since) = (events.boxed(), Instant::now());
                (State::Watch { version, events, since, heard: false }, None)
            }
            Err(failure) => Self::not_watched(failure, version),
        }
    }

    fn hear(
        &mut self,
        version: String,
        events: Events,
        since: Instant,
        event: Option<Result<WatchEvent<DynamicObject>, Error>>,
    ) -> (State, Option<Heard>) {
        let event = match event {
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                self.metrics.watches_restarted.inc();
                return Self::not_watched(error.into(), version);
            }
            None => {
                let again = State::Start { version };
                let short = since.elapsed() < SHORT;
                return (if short { State::Pause(again.into()) } else { again }, None);
            }
        };
        if let WatchEvent::Error(status) = event {
            self.metrics.watches_restarted.inc();
            if status.code == 410 {
                return (State::Pause(State::Begin.into()), None);
            }
            return Self::failed(Error::Api(status.boxed()).into(), State::Begin);
        }
        self.backoff.made_progress();
        let at = |object: &DynamicObject| {
            object.metadata.resource_version.clone().unwrap_or_else(|| version.clone())
        };
        let (version, said) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                (at(&object), Heard::Changed(object.into()))
            }
            WatchEvent::Deleted(object) => (at(&object), Heard::Removed(object.into())),
            WatchEvent::Bookmark(bookmark) => (bookmark.metadata.resource_version, Heard::Watching),
            WatchEvent::Error(_) => (version, Heard::Watching),
        };
        (State::Watch { version, events, since, heard: true }, Some(said))
    }

    /// A watch does not begin, or is broken off. Which of the two the client does not tell.
    fn not_watched(failure: Failure, version: String) -> (State, Option<Heard>) {
        let then = match (failure.code(), &failure) {
            // What is no event may be a page that says anything; a list tells better.
            (0, Failure::Client(Error::SerdeError(_))) => State::Begin,
            (0 | 401 | 403 | 429 | 500 | 503, _) => State::Start { version },
            // It does not know that version, or not yet.
            (410, _) => return (State::Pause(State::Begin.into()), None),
            _ => State::Begin,
        };
        Self::failed(failure, then)
    }

    fn failed(failure: Failure, then: State) -> (State, Option<Heard>) {
        if failure.code() == 404 {
            return (State::Unknown, Some(Heard::Unknown));
        }
        (State::Pause(then.into()), Some(Heard::Failed(failure)))
    }

    /// A definition that is there is not always followed at once.
    async fn definition_changes(&mut self) {
        let changed = self.definition.changed.notified();
        if self.definition.exists() == Some(true) {
            let pause = self.backoff.next(fastrand::f64());
            timeout(pause, changed).await.ok();
        } else {
            changed.await;
        }
    }
}

/// What a request comes to if it may take so long.
pub(crate) async fn within<T>(
    patience: Duration,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    timeout(patience, request).await.map_or(Err(Failure::Silent), |answer| Ok(answer?))
}
