//! All proxies of the zone, and what of them is not written yet.

use super::{
    insight::Versions,
    limits,
    place::{Shelf, is_ours},
    presence::{Crowd, Held, Presence},
    proxy::{ConnectionId, Ping, Proxy, Question, Sent, Session},
    taken::{Taken, is_inbound},
};
use crate::identities::Issuer;
use daemon::Clock;
use delta::Name;
use kinds::dataplane_insight::DataplaneInsight;
use parking_lot::Mutex;
use proto::{
    atoll::proxy::v1::{Address, Problems, State},
    envoy::service::discovery::v3::DeltaDiscoveryRequest,
};
use resource::{MeshName, ResourceKey};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::Item;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use xds::{
    Type,
    ads::{Event, Refusal},
};

/// See the module. Nothing is told twice: who changes something marks the proxy, and the one task
/// that writes asks what is so then.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) shelf: Shelf,
    pub(super) clock: Clock,
    pub(super) instance: String,
    issuer: Issuer,
    state: Mutex<Inner>,
    pub(super) dirty: Notify,
}

#[derive(Debug)]
struct Inner {
    presence: Presence,
    proxies: BTreeMap<ResourceKey, Proxy>,
    dirty: BTreeSet<ResourceKey>,
    /// Those of which nothing is kept any more.
    gone: BTreeSet<ResourceKey>,
    last: u64,
}

/// A session that is about to begin.
#[derive(Clone, Debug)]
pub(super) struct Beginning {
    pub(super) sent: Option<Sent>,
    pub(super) instance: String,
    pub(super) state: State,
    pub(super) advertised: Option<Address>,
    pub(super) versions: Versions,
}

/// The session's ends of what others reach it by.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) id: ConnectionId,
    pub(super) pings: mpsc::Receiver<Ping>,
    pub(super) questions: mpsc::Receiver<Question>,
    pub(super) problems: watch::Receiver<Problems>,
    pub(super) replaced: CancellationToken,
    /// Comes when the proxy is in the store.
    pub(super) written: oneshot::Receiver<()>,
}

/// Another process has a session for the same Dataplane.
#[derive(Debug)]
pub(super) struct Rival {
    pub(super) id: ConnectionId,
    pub(super) pings: mpsc::Sender<Ping>,
}

/// What is to be written, and for whom.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) items: Vec<Item>,
    pub(super) waiting: Vec<oneshot::Sender<()>>,
    /// Proxies that are none of the zone any more.
    pub(super) gone: BTreeSet<ResourceKey>,
}

impl Registry {
    pub(super) fn new(shelf: Shelf, clock: Clock, instance: String, issuer: Issuer) -> Self {
        let state = Mutex::new(Inner {
            presence: Presence::new(Instant::now()),
            proxies: BTreeMap::new(),
            dirty: BTreeSet::new(),
            gone: BTreeSet::new(),
            last: 0,
        });
        Self { shelf, clock, instance, issuer, state, dirty: Notify::new() }
    }

    /// Proxies that were there when a control plane of this zone ran last. They have their time to
    /// come back.
    pub(super) fn remember(&self) {
        let ids = self.shelf.ids;
        let mut inner = self.state.lock();
        let (_, dataplanes) = self.shelf.reader.rows(ids.dataplane);
        for row in dataplanes.iter().filter(|row| is_ours(row)) {
            inner.presence.remembered(row.head.key.clone());
        }
        let (_, insights) = self.shelf.reader.rows(ids.insight);
        for row in insights.iter() {
            let online = kinds::read::<DataplaneInsight>(row).is_ok_and(|it| it.is_online());
            // Those of other zones are not ours to end.
            if online && self.shelf.place.is_origin_of(&row.head.labels) {
                inner.presence.remembered(row.head.key.clone());
            }
        }
    }

    /// Proxies are let in from now on.
    pub(super) fn opened(&self) {
        self.state.lock().presence.opened(Instant::now());
    }

    /// Begins a session, unless another process has one that is not `over`.
    pub(super) fn begin_session(
        &self,
        key: &ResourceKey,
        beginning: &Beginning,
        over: Option<ConnectionId>,
    ) -> Result<Ends, Rival> {
        let mut inner = self.state.lock();
        let inner = &mut *inner;
        let now = self.clock.now();
        let proxy = inner.proxies.entry(key.clone()).or_insert_with(|| Proxy::new(now));
        if let Some(there) = &proxy.session
            && there.instance != beginning.instance
            && Some(there.id) != over
        {
            return Err(Rival { id: there.id, pings: there.pings.clone() });
        }
        inner.last += 1;
        let id = ConnectionId(inner.last);
        let (pings, pinged) = mpsc::channel(limits::QUESTIONS);
        let (questions, asked) = mpsc::channel(limits::QUESTIONS);
        let (problems, told) = watch::channel(Problems::default());
        let (writes, written) = oneshot::channel();
        let replaced = CancellationToken::new();
        let Beginning { sent, instance, state, advertised, versions } = beginning.clone();
        proxy.arrives(now);
        proxy.sent = sent;
        proxy.state = Some(state);
        proxy.advertised = advertised;
        proxy.versions = versions;
        proxy.waiting.push(writes);
        let session =
            Session { id, instance, pings, questions, problems, replaced: replaced.clone() };
        match proxy.session.replace(session) {
            // The place in the count is the new one's.
            Some(old) => old.replaced.cancel(),
            None => inner.presence.arrived(key, Instant::now()),
        }
        inner.dirty.insert(key.clone());
        self.dirty.notify_one();
        Ok(Ends { id, pings: pinged, questions: asked, problems: told, replaced, written })
    }

    /// What the Envoy of a proxy refused and has not taken since.
    pub(super) fn refused(&self, key: &ResourceKey) -> BTreeMap<(Type, Name), String> {
        let inner = self.state.lock();
        let streams = inner.proxies.get(key).into_iter().flat_map(|proxy| proxy.streams.values());
        streams.flat_map(|taken| taken.lock().refused.clone()).collect()
    }

    /// Whether any proxy of a mesh refused something and has not taken it since.
    pub(super) fn refuses(&self, mesh: &MeshName) -> bool {
        let inner = self.state.lock();
        let of_mesh = inner.proxies.iter().filter(|(key, _)| key.mesh.as_ref() == Some(mesh));
        let mut streams = of_mesh.flat_map(|(_, proxy)| proxy.streams.values());
        streams.any(|taken| !taken.lock().refused.is_empty())
    }

    /// How many proxies refused resources of each type.
    pub(super) fn refusing(&self) -> BTreeMap<Type, usize> {
        let mut refusing = BTreeMap::new();
        for proxy in self.state.lock().proxies.values() {
            let mut types = BTreeSet::new();
            for taken in proxy.streams.values() {
                types.extend(taken.lock().refused.keys().map(|(kind, _)| *kind));
            }
            types.into_iter().for_each(|kind| *refusing.entry(kind).or_default() += 1);
        }
        refusing
    }

    /// What the proxy says now.
    pub(super) fn set_state(&self, key: &ResourceKey, id: ConnectionId, state: State) {
        let mut inner = self.state.lock();
        let Some(proxy) = inner.of_session(key, id) else { return };
        if proxy.state.as_ref() != Some(&state) {
            proxy.state = Some(state);
            inner.mark(key);
            self.dirty.notify_one();
        }
    }

    /// The session is over; nothing is said about the proxy.
    pub(super) fn end_session(&self, key: &ResourceKey, id: ConnectionId) {
        let mut inner = self.state.lock();
        let now = self.clock.now();
        let Some(proxy) = inner.of_session(key, id) else { return };
        proxy.session = None;
        inner.departed(key, now);
        self.dirty.notify_one();
    }

    /// The proxy will not come back. The answer comes when it is withdrawn.
    pub(super) fn leave(
        &self,
        key: &ResourceKey,
        id: ConnectionId,
    ) -> Option<oneshot::Receiver<()>> {
        let mut inner = self.state.lock();
        let now = self.clock.now();
        let proxy = inner.of_session(key, id)?;
        let (writes, written) = oneshot::channel();
        proxy.session = None;
        proxy.withdrawn = true;
        proxy.disconnected = Some(now);
        proxy.waiting.push(writes);
        inner.presence.forget(key, Instant::now());
        inner.mark(key);
        self.dirty.notify_one();
        Some(written)
    }

    /// Begins a stream of an Envoy. One without a session brings its Dataplane along.
    pub(super) fn begin_stream(
        self: &Arc<Self>,
        key: &ResourceKey,
        alone: Option<(Option<Sent>, Versions)>,
    ) -> Option<(Stream, Option<oneshot::Receiver<()>>)> {
        let mut inner = self.state.lock();
        let inner = &mut *inner;
        let now = self.clock.now();
        let proxy = inner.proxies.entry(key.clone()).or_insert_with(|| Proxy::new(now));
        if proxy.streams.len() >= limits::STREAMS {
            return None;
        }
        inner.last += 1;
        let id = ConnectionId(inner.last);
        let taken = Arc::<Mutex<Taken>>::default();
        proxy.streams.insert(id, taken.clone());
        let counts = alone.is_some();
        let written = alone.map(|(sent, versions)| {
            let (writes, written) = oneshot::channel();
            proxy.arrives(now);
            proxy.sent = sent;
            proxy.versions = versions;
            proxy.waiting.push(writes);
            written
        });
        if counts {
            inner.presence.arrived(key, Instant::now());
            inner.dirty.insert(key.clone());
            self.dirty.notify_one();
        }
        let stream = Stream { registry: self.clone(), key: key.clone(), id, taken, counts };
        Some((stream, written))
    }

    fn end_stream(&self, stream: &Stream) {
        let mut inner = self.state.lock();
        let now = self.clock.now();
        let Some(proxy) = inner.proxies.get_mut(&stream.key) else { return };
        if let Some(taken) = proxy.streams.remove(&stream.id) {
            let taken = taken.lock();
            proxy.past.add(&taken.counts);
            // One that left may have drained until now.
            if !taken.refused.is_empty() || proxy.withdrawn {
                inner.mark(&stream.key);
            }
        }
        if stream.counts {
            inner.departed(&stream.key, now);
        } else {
            inner.drop_if_unknown(&stream.key);
        }
        self.dirty.notify_one();
    }

    /// Somebody deleted a Dataplane: it comes back if its proxy is here.
    pub(super) fn deleted(&self, key: &ResourceKey) {
        let mut inner = self.state.lock();
        if inner.proxies.get(key).is_some_and(|proxy| proxy.is_connected() && !proxy.withdrawn) {
            inner.mark(key);
            self.dirty.notify_one();
        } else if !inner.presence.is_here(key) {
            inner.presence.forget(key, Instant::now());
        }
    }

    /// When to call [`look`](Self::look).
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.state.lock().presence.deadline()
    }

    /// Withdraws who was away for too long.
    pub(super) fn look(&self) -> Option<Held> {
        let mut inner = self.state.lock();
        let now = self.clock.now();
        let due = inner.presence.due(Instant::now());
        for key in due.withdraw {
            tracing::info!(dataplane = %key, "proxy was away for too long and is withdrawn");
            let proxy = inner.proxies.entry(key.clone()).or_insert_with(|| Proxy::new(now));
            proxy.withdrawn = true;
            inner.mark(&key);
        }
        due.held
    }

    /// Takes what is to be written.
    pub(super) fn work(&self) -> Work {
        let now = self.clock.now();
        let mut inner = self.state.lock();
        let mut work = Work::default();
        for key in std::mem::take(&mut inner.dirty) {
            let Some(proxy) = inner.proxies.get_mut(&key) else { continue };
            work.items.extend(proxy.items(&key, &self.shelf, &self.instance, now));
            work.waiting.append(&mut proxy.waiting);
            if let Some(session) = &proxy.session {
                let problems = proxy.problems(&key, &self.shelf);
                session.problems.send_if_modified(|told| {
                    let changed = *told != problems;
                    *told = problems;
                    changed
                });
            }
            if proxy.withdrawn && !proxy.is_connected() {
                inner.proxies.remove(&key);
                inner.gone.insert(key);
            }
        }
        work.gone = std::mem::take(&mut inner.gone);
        work
    }

    /// Where questions for the proxy go.
    pub(super) fn questions(&self, key: &ResourceKey) -> Option<mpsc::Sender<Question>> {
        let inner = self.state.lock();
        Some(inner.proxies.get(key)?.session.as_ref()?.questions.clone())
    }

    /// How many proxies there are.
    pub(super) fn crowd(&self) -> Crowd {
        self.state.lock().presence.crowd()
    }

    /// How many proxies are here.
    #[cfg(test)]
    pub(super) fn connected(&self) -> usize {
        self.state.lock().proxies.values().filter(|proxy| proxy.is_connected()).count()
    }
}

impl Inner {
    fn of_session(&mut self, key: &ResourceKey, id: ConnectionId) -> Option<&mut Proxy> {
        let proxy = self.proxies.get_mut(key)?;
        proxy.session.as_ref().is_some_and(|session| session.id == id).then_some(proxy)
    }

    fn mark(&mut self, key: &ResourceKey) {
        self.dirty.insert(key.clone());
    }

    fn departed(&mut self, key: &ResourceKey, now: jiff::Timestamp) {
        if self.presence.departed(key, Instant::now())
            && let Some(proxy) = self.proxies.get_mut(key)
        {
            proxy.disconnected = Some(now);
        }
        self.mark(key);
    }

    /// An Envoy whose session never came leaves nothing behind.
    fn drop_if_unknown(&mut self, key: &ResourceKey) {
        if let Some(proxy) = self.proxies.get(key)
            && !proxy.is_connected()
            && proxy.state.is_none()
            && proxy.sent.is_none()
        {
            self.proxies.remove(key);
            self.gone.insert(key.clone());
        }
    }
}

/// One ADS stream. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Stream {
    registry: Arc<Registry>,
    key: ResourceKey,
    id: ConnectionId,
    taken: Arc<Mutex<Taken>>,
    /// Whether the proxy is present by it.
    counts: bool,
}

impl Stream {
    /// Takes note of what Envoy says that it holds, as after a reconnect.
    pub(super) fn holds(&self, request: &DeltaDiscoveryRequest) {
        if request.type_url == Type::Listener.url() {
            let held = request.initial_resource_versions.keys();
            let held = held.filter(|name| is_inbound(name)).map(|name| Name::from(&**name));
            self.taken.lock().inbounds.extend(held);
        }
    }

    /// Takes note of what was sent and what became of it. Only what is news is written down.
    pub(super) fn report(&self, event: Event) {
        let (kind, update, refusal) = match event {
            Event::Sent { kind, .. } => {
                self.taken.lock().counts.of(kind).sent += 1;
                return;
            }
            Event::Acked { kind, update } => {
                // With it anybody can see how long a change takes to reach a proxy.
                tracing::debug!(
                    dataplane = %self.key,
                    ?kind,
                    resources = ?update.upserts.iter().map(|item| &*item.name).collect::<Vec<_>>(),
                    "Envoy took its configuration"
                );
                (kind, update, Refusal::default())
            }
            Event::Refused { kind, update, refusal } => (kind, update, refusal),
            // Beacons change nothing.
            Event::Beacon(_) | Event::Answered(_) | Event::Settled => return,
        };
        let note = || {
            let news = self.taken.lock().heard(kind, &update, &refusal);
            if news && !refusal.text.is_empty() {
                let text = &refusal.text;
                tracing::warn!(dataplane = %self.key, ?kind, text, "Envoy refuses its configuration");
            }
            news
        };
        let news = match kind {
            Type::Secret | Type::Listener => self.who_serves(note),
            Type::Cluster | Type::Endpoint | Type::Route | Type::Extension | Type::Runtime => {
                note()
            }
        };
        if news {
            self.registry.state.lock().mark(&self.key);
            self.registry.dirty.notify_one();
        }
    }

    /// Notes something that may change who the proxy is, or what it serves. Returns whether it is
    /// news.
    fn who_serves(&self, note: impl FnOnce() -> bool) -> bool {
        let mut inner = self.registry.state.lock();
        let Some(proxy) = inner.proxies.get_mut(&self.key) else { return note() };
        let shelf = &self.registry.shelf;
        let before = proxy.unserved(&self.key, shelf);
        let noted = note();
        let certified = proxy.certify(self.registry.issuer.last(&self.key));
        noted || certified || before != proxy.unserved(&self.key, shelf)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.registry.end_stream(self);
    }
}
