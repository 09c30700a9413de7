//! What became of resources in zones.

use super::*;
use api::propagation::{State, Zone};
use daemon::Metrics;
use delta::Versions;
use kds::{
    dialect::{Introduction, own_features},
    observe::Unobserved,
    refusal::{Refusal, Refusals},
};
use kinds::mesh_timeout;
use resource::{Audience, Labels, MeshName, Resource};
use store::view::{KindId, Revision};

const KIND: &str = "MeshTimeout";

struct Known {
    global: Global,
    metrics: Metrics,
    propagation: Arc<Propagation>,
}

impl Known {
    async fn new() -> Self {
        let global = Global::new().await;
        let (author, reader, clock) =
            (global.author.clone(), global.store.reader(), global.clock.clone());
        let metrics = Metrics::default();
        let next = Arc::new(Unobserved);
        let propagation = Propagation::new(author, reader, clock, &metrics, next);
        Self { global, metrics, propagation }
    }

    /// A policy, written on global or in a zone.
    async fn put(&self, name: &str, owner: Option<&str>) -> Revision {
        let spec = json!({"targetRef": {"kind": "Mesh"}, "to": [{"targetRef": {"kind": "Mesh"},
            "default": {"connectionTimeout": "1s"}}]});
        let kind = mesh_timeout::KIND.kind;
        let spec = kind.encode(&kind.from_json(spec).unwrap()).unwrap();
        let row: Resource =
            kind.resource(key(name), Labels::default(), spec, "".into(), Peer::Zone).unwrap();
        let owner = owner.map(|zone| zone.parse().unwrap());
        let row = row.shown_to(Audience { owner, ..Audience::default() });
        let id = self.global.author.kinds.id_of(KIND).unwrap();
        let edit = Edit::Put(Arc::new(row));
        self.global.commit(Item { kind: id, expected: Expected::Anything, edit }).await;
        self.global.store.reader().rows(id).0
    }

    async fn delete(&self, name: &str) {
        let edit = Edit::Delete(key(name));
        let (kind, expected) = (self.id(), Expected::Anything);
        self.global.commit(Item { kind, expected, edit }).await;
    }

    fn tell(&self, stream: StreamId, event: Event<'_>) {
        self.propagation.observe(stream, &"east".parse().unwrap(), event);
    }

    /// A stream begins at a place.
    fn open(&self, until: Option<Revision>) -> StreamId {
        let stream = StreamId::next();
        self.tell(stream, OPENED);
        let features = own_features();
        let introduction = Introduction { features, ..Introduction::default() };
        self.tell(stream, Event::Introduced(&introduction));
        self.tell(stream, Event::Begins { kind: KIND, until, refused: &Versions::new() });
        stream
    }

    fn took(&self, stream: StreamId, until: Revision) {
        let (refused, said) = (&Versions::new(), &Refusals::default());
        self.tell(stream, Event::Stands { kind: KIND, until: Some(until), refused, said });
    }

    fn zone(&self, name: &str) -> Zone {
        let id = self.global.author.kinds.id_of(KIND).unwrap();
        let zones = self.propagation.of(id, &key(name), None).unwrap();
        let [zone] = &zones[..] else { panic!("one zone") };
        zone.clone()
    }

    fn id(&self) -> KindId {
        self.global.author.kinds.id_of(KIND).unwrap()
    }

    /// State and reason.
    fn state(&self, name: &str) -> (State, String) {
        let zone = self.zone(name);
        (zone.state, zone.reason.unwrap_or_default())
    }

    fn metric(&self, name: &str) -> String {
        let text = self.metrics.encode().unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")));
        line.unwrap().split_once(' ').unwrap().1.to_owned()
    }
}

fn key(name: &str) -> ResourceKey {
    ResourceKey::in_mesh(&MeshName::new("shop").unwrap(), name)
}

#[tokio::test(start_paused = true)]
async fn a_zone_has_a_resource_when_it_answered_and_also_while_it_is_away() {
    let known = Known::new().await;
    let one = known.put("a", None).await;
    assert_eq!(known.state("a"), (State::Pending, "the zone never was connected".into()));
    let stream = known.open(None);
    assert_eq!(known.state("a"), (State::Pending, "it is about to be sent".into()));
    let mut moved = known.propagation.changes(known.id());
    known.tell(stream, Event::Sent { kind: KIND, resources: 1, until: None });
    let sent = "the zone has not answered what was sent at 2026-11-24T12:00:00Z";
    assert_eq!(known.state("a"), (State::Pending, sent.into()));
    assert!(moved.has_changed().unwrap());
    moved.borrow_and_update();
    tokio::time::advance(Duration::from_secs(7)).await;
    assert_eq!(known.metric("propagation_unanswered_seconds"), "7.0");
    known.took(stream, one);
    assert!(moved.has_changed().unwrap(), "who waits is woken");
    assert_eq!(known.state("a"), (State::Applied, String::new()));
    assert_eq!(known.zone("a").before, Some("2026-11-24T12:00:07Z".parse().unwrap()));
    assert_eq!(known.metric("propagation_unanswered_seconds"), "0.0");

    known.tell(stream, Event::Closed);
    known.put("b", None).await;
    assert_eq!(known.state("a").0, State::Applied);
    assert_eq!(known.state("b").0, State::Pending);
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_comes_back_is_known_by_what_it_says_also_after_a_restart() {
    let known = Known::new().await;
    let (one, two) = (known.put("a", None).await, known.put("b", None).await);
    known.open(Some(one));
    assert_eq!(known.state("a").0, State::Applied);
    assert_eq!(known.state("b").0, State::Pending);
    let newer = known.open(Some(two));
    assert_eq!(known.state("b").0, State::Applied);
    // One that lost all begins anew.
    let fresh = known.open(None);
    assert_eq!(known.state("b").0, State::Pending);
    known.took(newer, two);
    assert_eq!(known.state("b").0, State::Pending, "an older stream does not count any more");
    known.took(fresh, two);
    assert_eq!(known.state("b").0, State::Applied);
}

#[tokio::test(start_paused = true)]
async fn what_a_zone_refuses_is_told_with_its_reason_and_what_is_not_for_it_too() {
    let known = Known::new().await;
    let stream = known.open(None);
    let one = known.put("a", None).await;
    let id = known.global.author.kinds.id_of(KIND).unwrap();
    let row = known.global.store.reader().get(id, &key("a")).unwrap();
    let peer = kds::offer::Peer { zone: "east".parse().ok(), features: own_features() };
    let kind = mesh_timeout::KIND.kind;
    let forms = kds::offer::Forms::new(kind, &kds::transit::Hop::Down, &peer, 0);
    let (name, version) = forms.seen(&row.head).unwrap();
    let refused = Versions::from([(name.clone(), version)]);
    let said = Refusals::of(&[Refusal { name, reason: "spec.to: no".into() }]);
    let (until, refused, said) = (Some(one), &refused, &said);
    known.tell(stream, Event::Stands { kind: KIND, until, refused, said });
    let zone = known.zone("a");
    assert_eq!((zone.state, zone.by), (State::Refused, Some("zone east".into())));
    assert_eq!(zone.reason.as_deref(), Some("spec.to: no"));
    assert_eq!(known.metric("propagation_refused"), "1");
    known.put("hers", Some("east")).await;
    assert_eq!(known.state("hers"), (State::NotForThisZone, "the zone wrote it".into()));
    let dataplanes = known.global.author.kinds.id_of("Dataplane").unwrap();
    assert_eq!(known.propagation.of(dataplanes, &key("a"), None), None, "they go up");
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_is_gone_where_the_zone_took_note() {
    let known = Known::new().await;
    let one = known.put("a", None).await;
    known.delete("a").await;
    let never = "the zone never was connected".to_owned();
    assert_eq!(known.state("a"), (State::NotForThisZone, never));
    let stream = known.open(Some(one));
    assert_eq!(known.state("a"), (State::Pending, "it is about to be sent".into()));
    let other = known.state("other");
    assert_eq!(other.0, State::NotForThisZone, "nothing was there: {other:?}");
    let (until, _) = known.global.store.reader().rows(known.id());
    known.took(stream, until);
    let zone = known.zone("a");
    assert_eq!(
        (zone.state, zone.since),
        (State::Applied, Some("2026-11-24T12:00:00Z".parse().unwrap()))
    );
}

#[tokio::test(start_paused = true)]
async fn a_zone_is_asked_for_a_resource_by_the_name_that_it_has_there() {
    let known = Known::new().await;
    known.put("a", None).await;
    known.put("hers", Some("east")).await;
    let east = "east".parse().unwrap();
    let asked = |name: &str| known.propagation.key_in(known.id(), &key(name), &east);
    let hashed = kds::transit::hashed_name(key("a").mesh.as_ref(), "a", [None, None]);
    assert_eq!(asked("a"), Some((KIND, key(&hashed))));
    assert_eq!((asked("hers"), asked("none")), (None, None));
    // One that does not know hashes has it as it is called here.
    let stream = known.open(None);
    known.tell(stream, Event::Introduced(&Introduction::default()));
    assert_eq!(asked("a"), Some((KIND, key("a"))));
}
