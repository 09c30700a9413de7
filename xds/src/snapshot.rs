//! What one proxy gets, and how its stream hears that it changed.

use delta::{Item, Name, Version};
use parking_lot::Mutex;
use prost::Message;
use proto::{envoy::service::discovery::v3::Resource, frame};
use std::{
    array,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use tokio::{sync::Notify, time::Instant};

/// So many answers of a peer are remembered.
const ANSWERS: usize = 32;

/// The types of Envoy's resources that we serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    /// Where requests go: CDS.
    Cluster,
    /// Where a cluster is: EDS.
    Endpoint,
    /// What Envoy listens on: LDS.
    Listener,
    /// What a listener does with a request: RDS.
    Route,
    /// Certificates, and whom to trust: SDS.
    Secret,
    /// Configuration of one filter: ECDS.
    Extension,
    /// Values that filters look up: RTDS.
    Runtime,
}

impl Type {
    /// Every type.
    pub const ALL: [Self; 7] = [
        Self::Cluster,
        Self::Endpoint,
        Self::Listener,
        Self::Route,
        Self::Secret,
        Self::Extension,
        Self::Runtime,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::Runtime => "type.googleapis.com/envoy.service.runtime.v3.Runtime",
        }
    }

    /// What it holds, for messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "clusters",
            Self::Endpoint => "endpoints",
            Self::Listener => "listeners",
            Self::Route => "routes",
            Self::Secret => "secrets",
            Self::Extension => "extensions",
            Self::Runtime => "runtime",
        }
    }

    /// The type of that name.
    #[must_use]
    pub fn of(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }

    /// Whether Envoy takes all there are, rather than ask by name.
    #[must_use]
    pub const fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// A resource as all proxies get it: encoded, and versioned by its content.
#[must_use]
pub fn item(kind: Type, name: &Name, message: &impl Message) -> Item {
    let value = message.encode_to_vec();
    let version = resource::Version::of(&value);
    let any = prost_types::Any { type_url: kind.url().into(), value };
    let bytes = frame::resource(&Resource {
        name: name.to_string(),
        version: version.to_string(),
        resource: Some(any),
        ..Resource::default()
    });
    Item { name: name.clone(), version: Version(version.to_be_bytes()), bytes }
}

/// What one proxy gets, as of now.
///
/// Whoever changes it marks the names that changed before anybody can see the change, and all marks
/// of a change at once: then a stream that sees something new knows what else it must look at.
pub trait Source: Send + Sync {
    /// The resource of that name.
    fn get(&self, kind: Type, name: &str) -> Option<Item>;

    /// Every name that has a resource.
    fn names(&self, kind: Type) -> Vec<Name>;

    /// The name under which Envoy asks for the endpoints of a cluster.
    fn endpoints_of(&self, cluster: &Name) -> Name {
        cluster.clone()
    }
}

/// Names that changed, by type.
pub type Marks = BTreeMap<Type, BTreeSet<Name>>;

/// A mailbox of names that changed: one end marks, the other takes. It holds each name once,
/// however often it changed.
#[must_use]
pub fn changes() -> (Marker, Changes) {
    let mailbox = Arc::<Mailbox>::default();
    (Marker(mailbox.clone()), Changes(mailbox))
}

#[derive(Debug, Default)]
struct Mailbox {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    marks: [BTreeSet<Name>; Type::ALL.len()],
    /// What was marked and has not been settled with the peer.
    open: [BTreeSet<Name>; Type::ALL.len()],
    /// How often something was marked.
    told: u64,
    /// When what was marked of a type was settled, the latest last.
    answers: VecDeque<Answer>,
    /// The last mark of each type whose answer is not remembered any more.
    forgotten: [u64; Type::ALL.len()],
    /// Since when the peer has had everything once.
    synced: Option<Instant>,
    /// The newest beacon, if it was not taken.
    beacon: Option<u64>,
    closed: bool,
}

/// A peer has what was marked of a type.
#[derive(Debug)]
struct Answer {
    kind: Type,
    /// Up to this mark.
    told: u64,
    at: Instant,
}

impl State {
    fn is_empty(&self) -> bool {
        self.beacon.is_none() && self.marks.iter().all(BTreeSet::is_empty)
    }

    fn answered(&mut self, kind: Type, at: Instant) {
        self.answers.push_back(Answer { kind, told: self.told, at });
        if self.answers.len() > ANSWERS
            && let Some(Answer { kind, told, .. }) = self.answers.pop_front()
            && let Some(forgotten) = self.forgotten.get_mut(kind.index())
        {
            *forgotten = told;
        }
    }
}

/// The end that marks. When it is dropped, the stream ends: its proxy has another one, or is gone.
#[derive(Debug)]
pub struct Marker(Arc<Mailbox>);

impl Marker {
    /// Marks one name.
    pub fn mark(&self, kind: Type, name: Name) {
        self.mark_all([(kind, name)]);
    }

    /// Marks names that changed together.
    pub fn mark_all(&self, names: impl IntoIterator<Item = (Type, Name)>) {
        self.change(|state| {
            state.told += 1;
            for (kind, name) in names {
                if let Some(open) = state.open.get_mut(kind.index()) {
                    open.insert(name.clone());
                }
                if let Some(marks) = state.marks.get_mut(kind.index()) {
                    marks.insert(name);
                }
            }
        });
    }

    /// Asks the peer for an answer, whether anything changed or not. A newer beacon takes the place
    /// of one that was not taken.
    pub fn beacon(&self, number: u64) {
        self.change(|state| state.beacon = Some(number));
    }

    /// Whether a name was marked and the peer has not answered about it since.
    #[must_use]
    pub fn is_open(&self, kind: Type, name: &str) -> bool {
        self.0.state.lock().open.get(kind.index()).is_some_and(|open| open.contains(name))
    }

    /// The number of the mark that comes next, for [`answered`](Self::answered).
    #[must_use]
    pub fn next(&self) -> u64 {
        self.0.state.lock().told + 1
    }

    /// When the peer had answered about what was marked of a type with that number, if it did and
    /// not too much was answered since.
    #[must_use]
    pub fn answered(&self, kind: Type, mark: u64) -> Option<Instant> {
        let state = self.0.state.lock();
        state.forgotten.get(kind.index()).filter(|forgotten| **forgotten < mark)?;
        let mut of_it = state.answers.iter().filter(|it| it.kind == kind && it.told >= mark);
        of_it.next().map(|answer| answer.at)
    }

    /// Since when the peer has had everything once.
    #[must_use]
    pub fn synced(&self) -> Option<Instant> {
        self.0.state.lock().synced
    }

    /// Whether the peer has had everything once, and answered about all that was marked since.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let state = self.0.state.lock();
        state.synced.is_some() && state.open.iter().all(BTreeSet::is_empty)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.state.lock();
        let asleep = state.is_empty();
        change(&mut state);
        let wake = asleep && !state.is_empty();
        drop(state);
        if wake {
            self.0.wake.notify_one();
        }
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.wake.notify_one();
    }
}

/// The end that is told. It belongs to one stream.
#[derive(Debug)]
pub struct Changes(Arc<Mailbox>);

/// Nobody marks any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proxy has another stream or is gone")]
pub struct Gone;

impl Changes {
    /// Waits until something is marked.
    ///
    /// Cancel safe: nothing is taken.
    pub async fn changed(&mut self) -> Result<(), Gone> {
        loop {
            {
                let state = self.0.state.lock();
                if state.closed {
                    return Err(Gone);
                }
                if !state.is_empty() {
                    return Ok(());
                }
            }
            self.0.wake.notified().await;
        }
    }

    /// Takes what is marked.
    #[must_use]
    pub fn take(&mut self) -> Marks {
        let marks =
            std::mem::replace(&mut self.0.state.lock().marks, array::from_fn(|_| BTreeSet::new()));
        let marks = Type::ALL.into_iter().zip(marks);
        marks.filter(|(_, names)| !names.is_empty()).collect()
    }

    /// The peer owes no answer about types that are `idle`, and nothing of them is to be sent: what
    /// was marked of them is settled. `synced` if that is so of all it asks for. Returns whether that
    /// is news.
    pub(crate) fn settle(&self, idle: impl Fn(Type) -> bool, synced: bool) -> bool {
        let mut state = self.0.state.lock();
        let mut news = synced && state.synced.is_none();
        if news {
            state.synced = Some(Instant::now());
        }
        for kind in Type::ALL {
            let State { marks, open, .. } = &mut *state;
            let (Some(marks), Some(open)) = (marks.get(kind.index()), open.get_mut(kind.index()))
            else {
                continue;
            };
            // What was marked a moment ago is not known to the stream yet.
            if !open.is_empty() && marks.is_empty() && idle(kind) {
                open.clear();
                state.answered(kind, Instant::now());
                news = true;
            }
        }
        news
    }

    /// Takes the beacon, if there is one.
    #[must_use]
    pub fn take_beacon(&mut self) -> Option<u64> {
        self.0.state.lock().beacon.take()
    }

    /// Whether a name of that type is marked.
    #[must_use]
    pub fn has(&self, kind: Type) -> bool {
        self.0.state.lock().marks.get(kind.index()).is_some_and(|marks| !marks.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Name as _;
    use proto::envoy::{
        config::{
            cluster::v3::Cluster, core::v3::TypedExtensionConfig,
            endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
            route::v3::RouteConfiguration,
        },
        extensions::transport_sockets::tls::v3::Secret,
        service::{discovery::v3::DeltaDiscoveryResponse, runtime::v3::Runtime},
    };
    use std::time::Duration;

    #[test]
    fn types_are_called_as_their_messages() {
        let messages = [
            Cluster::type_url(),
            ClusterLoadAssignment::type_url(),
            Listener::type_url(),
            RouteConfiguration::type_url(),
            Secret::type_url(),
            TypedExtensionConfig::type_url(),
            Runtime::type_url(),
        ];
        assert_eq!(Type::ALL.map(|kind| kind.url().to_owned()), messages);
        assert_eq!(Type::ALL.map(|kind| Type::of(kind.url())), Type::ALL.map(Some));
        assert_eq!(Type::of("type.googleapis.com/envoy.config.cluster.v3"), None);
    }

    #[test]
    fn an_item_is_a_whole_resource_with_the_hash_of_its_content() {
        let cluster = |name: &str| Cluster { name: name.into(), ..Cluster::default() };
        let a = item(Type::Cluster, &"a".into(), &cluster("a"));
        let response = DeltaDiscoveryResponse::decode(a.bytes.clone()).unwrap();
        let version = resource::Version::of(&cluster("a").encode_to_vec());
        let resource = Resource {
            name: "a".into(),
            version: version.to_string(),
            resource: Some(proto::pack(&cluster("a"))),
            ..Resource::default()
        };
        assert_eq!(response.resources, [resource]);
        assert_eq!(a.version, Version(version.to_be_bytes()));
        assert_eq!(a, item(Type::Cluster, &"a".into(), &cluster("a")));
        assert_ne!(a.version, item(Type::Cluster, &"a".into(), &cluster("b")).version);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_told_once_however_often_it_changed() {
        let (marker, mut changes) = changes();
        marker.mark(Type::Route, "a".into());
        marker.mark_all([(Type::Route, "a".into()), (Type::Cluster, "b".into())]);
        assert_eq!(changes.changed().await, Ok(()));
        assert!(changes.has(Type::Cluster) && !changes.has(Type::Secret));
        let expected = [(Type::Cluster, ["b".into()].into()), (Type::Route, ["a".into()].into())];
        assert_eq!(changes.take(), expected.into());
        marker.beacon(1);
        marker.beacon(2);
        assert_eq!(changes.changed().await, Ok(()));
        assert_eq!([changes.take_beacon(), changes.take_beacon()], [Some(2), None]);
        let nothing = tokio::time::timeout(Duration::from_secs(60), changes.changed()).await;
        assert!(nothing.is_err(), "everything was taken");
        drop(marker);
        assert_eq!(changes.changed().await, Err(Gone));
    }

    #[tokio::test(start_paused = true)]
    async fn when_a_peer_answered_about_a_mark_is_remembered_for_a_while() {
        let (marker, mut changes) = changes();
        let start = Instant::now();
        let after = |at: Option<Instant>| at.map(|at| (at - start).as_secs());
        let answer = |changes: &mut Changes, kind| {
            drop(changes.take());
            changes.settle(|idle| idle == kind, false);
        };
        let first = marker.next();
        marker.mark_all([(Type::Route, "a".into()), (Type::Cluster, "a".into())]);
        tokio::time::advance(Duration::from_secs(1)).await;
        answer(&mut changes, Type::Route);
        let second = marker.next();
        marker.mark(Type::Route, "b".into());
        tokio::time::advance(Duration::from_secs(1)).await;
        let answered = |kind, mark| after(marker.answered(kind, mark));
        assert_eq!([first, second].map(|mark| answered(Type::Route, mark)), [Some(1), None]);
        assert_eq!(answered(Type::Cluster, first), None);
        answer(&mut changes, Type::Route);
        assert_eq!([first, second].map(|mark| answered(Type::Route, mark)), [Some(1), Some(2)]);
        assert!(!marker.is_settled(), "about a cluster it did not");
        answer(&mut changes, Type::Cluster);
        assert!(!marker.is_settled(), "it has not had everything");
        changes.settle(|_| true, true);
        assert!(marker.is_settled());
        assert_eq!(after(marker.synced()), Some(2));

        // Two answers were there before: the first of them is forgotten.
        for _ in 2..ANSWERS {
            marker.mark(Type::Secret, "s".into());
            answer(&mut changes, Type::Secret);
        }
        assert_eq!([first, second].map(|mark| answered(Type::Route, mark)), [None, Some(2)]);
        assert_eq!(answered(Type::Cluster, first), Some(2));
    }
}
