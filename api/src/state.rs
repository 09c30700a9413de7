//! What the API works on.

use super::{
    Problem, expiry::Expiry, following::Follow, freshness::Freshness, insight::Insight,
    inspect::Envoys, keys::Keys, propagation::Propagate,
};
use daemon::Clock;
use resource::{Kind, MeshName, Resource, ResourceKey};
use serde::Serialize;
use std::{fmt, future::Future, pin::Pin, sync::Arc};
use store::{
    Backend, Item, Kinds,
    view::{KindId, Reader},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Which control plane answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Global, or a zone.
    pub here: kinds::labels::Place,
    /// Whether it is a zone that is attached to a global: then it writes only what is its own.
    pub federated: bool,
}

impl Place {
    /// The global control plane.
    #[must_use]
    pub const fn global() -> Self {
        Self { here: kinds::labels::Place::Global, federated: false }
    }
}

/// What `/` says.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The version of the program.
    pub version: String,
    /// Names this process.
    pub instance_id: String,
    /// The machine.
    pub hostname: String,
    /// The address of the GUI; empty if there is none.
    pub gui: String,
}

impl About {
    /// Two processes on one machine, or one after the other, are not the same instance.
    #[must_use]
    pub fn of_this_process() -> Self {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let hostname = hostname.trim().to_owned();
        let mut suffix = uuid::Uuid::new_v4().simple().to_string();
        suffix.truncate(4);
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            instance_id: format!("{hostname}-{suffix}"),
            hostname,
            gui: String::new(),
        }
    }
}

/// A write that was found good and is about to be committed.
#[derive(Debug)]
pub struct Change<'a> {
    /// The kind of the resource.
    pub kind: &'a Kind,
    /// Its name.
    pub key: &'a ResourceKey,
    /// What is there; `None` if the write creates it.
    pub before: Option<&'a Resource>,
    /// What shall be there; `None` if the write deletes it.
    pub after: Option<&'a Resource>,
    /// Everything that is stored.
    pub reader: &'a Reader,
}

/// What [`Hooks::before`] returns.
pub type Prepared<'a> = Pin<Box<dyn Future<Output = Result<Vec<Item>, Problem>> + Send + 'a>>;

/// What a program adds to the writes of users.
pub trait Hooks: Send + Sync {
    /// May refuse a change, or say what else is committed with it.
    fn before<'a>(&'a self, change: &'a Change<'a>) -> Prepared<'a>;
}

/// Adds nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoHooks;

impl Hooks for NoHooks {
    fn before<'a>(&'a self, _change: &'a Change<'a>) -> Prepared<'a> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// Who gets in, see [`access`](super::access).
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The names and addresses, without port, that a request may be sent to, besides those of the
    /// machine that the connection itself shows.
    pub hosts: Vec<String>,
    /// The origins whose web pages may use the API.
    pub origins: Vec<String>,
    /// Whether requests from this machine without a token are the administrator's.
    pub localhost_is_admin: bool,
}

/// Everything the API works on.
#[derive(Clone)]
pub struct ApiState<B> {
    /// Where resources are kept.
    pub backend: B,
    /// Their kinds.
    pub kinds: Arc<Kinds>,
    /// Which control plane answers.
    pub place: Place,
    /// What time it is.
    pub clock: Clock,
    /// What `/` says.
    pub about: About,
    /// Who gets in.
    pub entry: Entry,
    /// What `/config` shows.
    pub config: serde_json::Value,
    /// What the program adds to writes.
    pub hooks: Arc<dyn Hooks>,
    /// The global that the control plane follows, if it is a zone that does.
    pub global: Option<Arc<dyn Follow>>,
    /// Knows what became of resources.
    pub propagation: Option<Arc<dyn Propagate>>,
    /// Knows how fresh zones are.
    pub freshness: Option<Arc<dyn Freshness>>,
    /// Knows what expires.
    pub expiry: Option<Arc<Expiry>>,
    /// Asks the Envoys of proxies.
    pub envoys: Option<Arc<dyn Envoys>>,
    /// Ends the watches.
    pub shutdown: CancellationToken,
}

impl<B> fmt::Debug for ApiState<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The state of a running API.
pub(crate) struct Api<B> {
    pub(crate) given: ApiState<B>,
    pub(crate) reader: Reader,
    pub(crate) meshes: Option<KindId>,
    pub(crate) keys: Keys,
    pub(crate) watches: Arc<Semaphore>,
    pub(crate) inspections: Semaphore,
    pub(crate) insight: Insight,
}

impl<B: Backend> Api<B> {
    pub(crate) fn new(given: ApiState<B>) -> Self {
        let reader = given.backend.reader();
        Self {
            meshes: given.kinds.id_of(MESH),
            keys: Keys::new(&given.kinds),
            watches: Arc::new(Semaphore::new(super::limits::WATCHES)),
            inspections: Semaphore::new(super::limits::INSPECTIONS),
            insight: Insight::default(),
            reader,
            given,
        }
    }

    /// Whether there is a mesh of this name.
    pub(crate) fn has_mesh(&self, mesh: &MeshName) -> bool {
        let key = ResourceKey::global(mesh.as_str());
        self.meshes.is_some_and(|kind| self.reader.get(kind, &key).is_some())
    }

    /// The kind called `name`.
    pub(crate) fn kind(&self, name: &str) -> Option<(KindId, &Kind)> {
        self.given.kinds.iter().find(|(_, kind)| kind.name == name)
    }
}

/// The kind that other kinds live in.
pub(crate) const MESH: &str = "Mesh";

/// The answer to a write that was done.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Written {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
}
