//! The law for both ends as they are, with the bytes between them: whatever happens, a zone ends
//! with exactly what it may see, less what it refuses, and nothing of its own is touched.

use super::histories;
use crate::{
    dialect::{Dialect, Introduction, own_features},
    fetch::{Asking, Taken},
    incoming::Incoming,
    memory::{Facts, Identity, Memory, Presented},
    metadata,
    observe::{Report, Unobserved},
    offer::{Forms, Offer, Peer},
    serve::{Due, Offering},
    testkinds::{CONFIG, MESH, TIMEOUT, kinds, zone},
    transit::{Hop, hashed_name},
};
use bytes::Bytes;
use delta::{Name, Offer as _, Version, Versions};
use proptest::prelude::*;
use prost::Message as _;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use resource::{
    Audience, Kind, Labels, MeshName, Peer as Side, Resource, ResourceKey, Scope, label,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use store::{
    Kinds,
    view::{Edit, KindId, Loaded, Reader, Writer, view},
};

pub(super) const ZONES: [Option<&str>; 3] = [None, Some("east"), Some("west")];
const KEYS: u8 = 6;
/// Under the name of this one the zone has something of its own.
const TAKEN: u8 = 5;
const BAD: u8 = 3;

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// Global has the resource `key` of the zone `ZONES[owner]`.
    Put {
        key: u8,
        content: u8,
        owner: usize,
    },
    Delete {
        key: u8,
    },
    /// Hides all of a zone, or shows it again.
    Toggle {
        owner: usize,
    },
    /// Global sends what is due.
    Send,
    /// The zone applies the first of what is on its way.
    Receive,
    /// The zone saves what it remembers.
    Save,
    /// The first answer arrives.
    Answer,
    /// The stream breaks, and what is on its way is lost; the zone connects again, as one of ours
    /// or as a plain one, perhaps as another process.
    Reconnect {
        ours: bool,
        process: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..KEYS, 0..4_u8, 0..3_usize)
            .prop_map(|(key, content, owner)| Step::Put { key, content, owner }),
        2 => (0..KEYS).prop_map(|key| Step::Delete { key }),
        1 => (1..3_usize).prop_map(|owner| Step::Toggle { owner }),
        6 => Just(Step::Send),
        8 => Just(Step::Receive),
        2 => Just(Step::Save),
        8 => Just(Step::Answer),
        1 => (any::<bool>(), any::<bool>())
            .prop_map(|(ours, process)| Step::Reconnect { ours, process }),
    ]
}

pub(super) struct End {
    pub(super) kinds: Arc<Kinds>,
    pub(super) writer: Writer,
    pub(super) reader: Reader,
}

impl End {
    pub(super) fn new(peer: Side, history: usize) -> Self {
        let kinds = Arc::new(kinds(peer));
        let (writer, reader) = view(kinds.list.iter().map(|_| Loaded::default()), history);
        Self { kinds, writer, reader }
    }

    pub(super) fn id(&self, kind: Kind) -> KindId {
        self.kinds.id_of(kind.name).unwrap()
    }

    pub(super) fn put(&self, kind: Kind, row: Resource) {
        self.writer.apply([(self.id(kind), Edit::Put(Arc::new(row)))]);
    }
}

pub(super) struct World {
    pub(super) global: End,
    pub(super) zone: End,
    dialect: Dialect,
    pub(super) offering: Offering,
    pub(super) asking: Asking,
    hidden: BTreeSet<usize>,
    responses: VecDeque<DeltaDiscoveryResponse>,
    requests: VecDeque<DeltaDiscoveryRequest>,
}

fn default_mesh() -> MeshName {
    MeshName::new("default").unwrap()
}

pub(super) fn key(kind: Kind, name: &str) -> ResourceKey {
    let mesh = (kind.scope == Scope::Mesh).then(default_mesh);
    ResourceKey { mesh, name: name.into() }
}

fn named(number: u8) -> ResourceKey {
    key(TIMEOUT, &format!("key-{number}"))
}

/// What key [`TAKEN`] of global would be in the zone.
fn taken() -> ResourceKey {
    let display = named(TAKEN).name;
    key(TIMEOUT, &hashed_name(Some(&default_mesh()), &display, [None, None]))
}

fn row(kind: Kind, key: ResourceKey, labels: Labels, spec: &str) -> Resource {
    let spec = Bytes::from(spec.to_owned());
    kind.resource(key, labels, spec, Bytes::new(), Side::Zone).unwrap()
}

const OWN: &str = r#"{"seconds":77}"#;

pub(super) fn report() -> Report {
    Report::new(Arc::new(Unobserved), zone("east"))
}

impl World {
    pub(super) fn new(ours: bool) -> Self {
        // A history this short is lost all the time.
        let (global, east) = (End::new(Side::Zone, 5), End::new(Side::Global, 64));
        let id = r#"{"config":"c1"}"#;
        let none = Labels::default;
        global.put(CONFIG, row(CONFIG, key(CONFIG, "kuma-cluster-id"), none(), id));
        global.put(MESH, row(MESH, key(MESH, "default"), none(), "{}"));
        east.put(TIMEOUT, row(TIMEOUT, taken(), none(), OWN));
        let dialect = Dialect::Plain;
        let offering = offering(&global, dialect);
        let asking = asking(&east, None);
        let (hidden, responses, requests) = Default::default();
        let mut world =
            Self { global, zone: east, dialect, offering, asking, hidden, responses, requests };
        world.connect(ours, false);
        world
    }

    pub(super) fn connect(&mut self, ours: bool, process: bool) {
        self.responses.clear();
        self.dialect = if ours { Dialect::Ours(metadata::own_features()) } else { Dialect::Plain };
        self.offering = offering(&self.global, self.dialect);
        let facts = Facts::of(&self.zone.kinds).unwrap();
        let mut memory = facts.memory(&self.zone.reader);
        if let Some(memory) = memory.as_mut().filter(|_| process) {
            memory.judge_anew();
        }
        self.asking = asking(&self.zone, memory.clone());
        let identity = Identity { id: "c1".into(), epoch: Some(1) };
        let revision = self.global.reader.revision().0;
        let presented = ours.then_some(Presented { identity, revision });
        if self.asking.met(self.dialect, presented).is_err() {
            let mut memory = memory.unwrap();
            memory.places.values_mut().for_each(|place| place.cursor = None);
            self.remember(facts, &memory);
            return self.connect(ours, process);
        }
        let introduction = Introduction { features: own_features(), ..Introduction::default() };
        self.requests = self.asking.requests(&introduction).into();
    }

    fn remember(&self, facts: Facts, memory: &Memory) {
        let item = facts.remember(memory).unwrap();
        self.zone.writer.apply([(item.kind, item.edit)]);
    }

    fn audience(&self, owner: usize) -> Audience {
        let hidden = self.hidden.contains(&owner);
        Audience { owner: ZONES[owner].map(zone), hidden, ..Audience::default() }
    }

    pub(super) fn put(&self, number: u8, content: u8, owner: usize) {
        let labels = Labels::from_iter([(label::DISPLAY_NAME, &*named(number).name)]);
        let labels = match ZONES[owner] {
            None => labels,
            Some(zone) => labels.with(label::ORIGIN, "zone").with(label::ZONE, zone),
        };
        let seconds = if content == BAD { 100 } else { content };
        let spec = format!(r#"{{"seconds":{seconds}}}"#).into();
        let audience = self.audience(owner);
        let row = Resource::new(named(number), labels, spec, Bytes::new(), audience);
        self.global.put(TIMEOUT, row);
    }

    fn toggle(&mut self, owner: usize) {
        if !self.hidden.remove(&owner) {
            self.hidden.insert(owner);
        }
        let audience = self.audience(owner);
        let id = self.global.id(TIMEOUT);
        let (_, rows) = self.global.reader.rows(id);
        let of_zone = rows.iter().filter(|row| row.head.audience.owner == audience.owner);
        let edits: Vec<_> =
            of_zone.map(|row| (id, Edit::Put(Arc::new(row.shown_to(audience.clone()))))).collect();
        self.global.writer.apply(edits);
    }

    /// Whether there was anything to do.
    fn send(&mut self) -> bool {
        let mut sent = false;
        let kinds: Vec<KindId> = self.global.kinds.iter().map(|(id, _)| id).collect();
        for kind in kinds {
            match self.offering.next(kind, &report()) {
                Ok(None) => {}
                Ok(Some(frame)) => {
                    let response = DeltaDiscoveryResponse::decode(frame.to_bytes()).unwrap();
                    let again = |one: &DeltaDiscoveryResponse| one.type_url == response.type_url;
                    assert!(!self.responses.iter().any(again), "two in flight");
                    self.responses.push_back(response);
                    sent = true;
                }
                Err(_) => {
                    assert_eq!(self.dialect, Dialect::Plain, "ours are never restarted");
                    self.connect(false, false);
                    return true;
                }
            }
        }
        sent
    }

    fn receive(&mut self) -> bool {
        let Some(response) = self.responses.pop_front() else { return false };
        let taken = self.asking.take(response, &self.zone.reader).unwrap();
        let Taken::Ready(ready) = taken else { panic!("{taken:?}") };
        for incoming in ready {
            self.apply(&incoming);
        }
        true
    }

    pub(super) fn apply(&mut self, incoming: &Incoming) {
        let mut judged = self.asking.judge(&self.zone.reader, incoming);
        let batch = std::mem::take(&mut judged.batch);
        let edits: Vec<_> = batch.into_iter().map(|item| (item.kind, item.edit)).collect();
        let mut revision = self.zone.reader.revision();
        if !edits.is_empty() {
            revision = self.zone.writer.apply(edits);
            self.asking.committed(incoming.kind);
        }
        let answer = self.asking.applied(incoming, judged, revision, &report());
        self.requests.push_back(answer);
    }

    pub(super) fn save(&mut self) {
        if let Some(item) = self.asking.unsaved() {
            self.zone.writer.apply([(item.kind, item.edit)]);
        }
    }

    fn answer(&mut self) -> bool {
        let Some(request) = self.requests.pop_front() else { return false };
        let due = self.offering.received(&request, &report()).unwrap();
        assert!(matches!(due, Due::Kind(_)), "{due:?}");
        true
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..1000 {
            let (answered, sent, received) = (self.answer(), self.send(), self.receive());
            if !(answered || sent || received) {
                return;
            }
        }
        panic!("there is always something to send");
    }

    /// Name and version of all that the zone may see.
    fn offered(&self) -> BTreeMap<Name, (Version, DeltaDiscoveryResponse)> {
        let peer = Peer { zone: Some(zone("east")), features: own_features() };
        let forms = Arc::new(Forms::new(TIMEOUT, &Hop::Down, &peer, 1));
        let kind = self.global.id(TIMEOUT);
        let offer = Offer { reader: &self.global.reader, kind, forms: &forms };
        let items = offer.everything().page(usize::MAX).items;
        let read = |bytes: Bytes| DeltaDiscoveryResponse::decode(bytes).unwrap();
        items.into_iter().map(|item| (item.name, (item.version, read(item.bytes)))).collect()
    }

    pub(super) fn check(&self) {
        let (mut refused, mut taken_over) = (Versions::new(), BTreeMap::new());
        for (name, (version, response)) in self.offered() {
            let [resource] = <[_; 1]>::try_from(response.resources).unwrap();
            let received = crate::testkinds::received(resource);
            let bad = received.spec == r#"{"seconds":100}"#.as_bytes();
            if bad || received.key == taken() {
                refused.insert(name, version);
            } else {
                taken_over.insert(received.key, (received.labels, received.spec));
            }
        }
        assert_eq!(self.offering.refused(self.global.id(TIMEOUT)), refused);
        let refused: BTreeSet<&str> =
            refused.keys().map(|name| name.trim_end_matches(".default")).collect();
        let (_, rows) = self.zone.reader.rows(self.zone.id(TIMEOUT));
        let (own, of_global): (Vec<_>, Vec<_>) =
            rows.iter().partition(|row| row.head.labels.get(label::ORIGIN).is_none());
        let own: Vec<_> = own.into_iter().map(|row| (row.head.key.clone(), &*row.spec)).collect();
        assert_eq!(own, [(taken(), OWN.as_bytes())]);
        let held: BTreeMap<ResourceKey, (Labels, Bytes)> = of_global
            .into_iter()
            // Of what it refuses the zone may hold an older version: last good.
            .filter(|row| !refused.contains(&*row.head.key.name))
            .map(|row| (row.head.key.clone(), (row.head.labels.clone(), row.spec.clone())))
            .collect();
        assert_eq!(held, taken_over);
    }
}

fn offering(global: &End, dialect: Dialect) -> Offering {
    let history = (global.reader.clone(), 1);
    Offering::new(history, global.kinds.clone(), Hop::Down, (&zone("east"), dialect), usize::MAX)
        .with_parts_of(300)
}

fn asking(east: &End, memory: Option<Memory>) -> Asking {
    let facts = Facts::of(&east.kinds).unwrap();
    Asking::of_global(east.kinds.clone(), &zone("east"), (facts, memory), None)
}

fn live(ours: bool, steps: impl IntoIterator<Item = Step>) {
    let mut world = World::new(ours);
    for step in steps {
        match step {
            Step::Put { key, content, owner } => world.put(key, content, owner),
            Step::Delete { key } => {
                let id = world.global.id(TIMEOUT);
                world.global.writer.apply([(id, Edit::Delete(named(key)))]);
            }
            Step::Toggle { owner } => world.toggle(owner),
            Step::Send => drop(world.send()),
            Step::Receive => drop(world.receive()),
            Step::Save => world.save(),
            Step::Answer => drop(world.answer()),
            Step::Reconnect { ours, process } => world.connect(ours, process),
        }
    }
    world.settle();
    world.check();
}

proptest! {
    #![proptest_config(histories(2000))]

    #[test]
    fn a_zone_ends_with_what_it_may_see(
        ours in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        live(ours, steps);
    }
}

proptest! {
    #![proptest_config(histories(60_000))]

    #[test]
    #[ignore = "takes minutes: make soak"]
    fn so_it_is_in_many_more_histories(
        ours in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        live(ours, steps);
    }
}

fn delete(world: &World, number: u8) {
    let id = world.global.id(TIMEOUT);
    world.global.writer.apply([(id, Edit::Delete(named(number)))]);
}

/// Too rare to be found by chance.
#[test]
fn what_was_refused_and_is_gone_is_not_refused_any_more() {
    let mut world = World::new(true);
    world.put(0, BAD, 0);
    world.settle();
    delete(&world, 0);
    world.settle();
    world.save();
    world.connect(true, false);
    world.settle();
    world.check();
}

/// What a zone remembers must neither lag behind what it holds nor run ahead.
#[test]
fn what_came_and_went_before_anything_was_saved_does_not_stay() {
    let mut world = World::new(true);
    world.settle();
    world.save();
    world.put(2, 0, 0);
    world.send();
    world.receive();
    // To the zone this is a removal.
    world.put(2, 0, 1);
    world.connect(true, false);
    world.settle();
    world.check();
}
