use super::*;
use crate::{
    metadata,
    observe::Observer,
    testkinds::{BEACON, MESH, TIMEOUT, kinds, zone},
    tests::world::Counts,
    transit::hashed_name,
};
use delta::Extent;
use prost::Message as _;
use proto::envoy::{config::core::v3::Node, service::discovery::v3::DeltaDiscoveryResponse};
use resource::{Labels, Peer as Side, ResourceKey};
use std::time::Duration;
use store::view::{Edit, Loaded, Writer, view};
use tokio::{task::JoinSet, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

// How long a test waits in virtual time before it calls something impossible.
const PATIENCE: Duration = Duration::from_secs(60);

struct Stream {
    writer: Writer,
    reader: Reader,
    kind: KindId,
    counts: Arc<Counts>,
    requests: mpsc::Sender<Result<DeltaDiscoveryRequest, Status>>,
    responses: mpsc::Receiver<Frame>,
    serving: JoinSet<StreamEnded>,
}

impl Stream {
    fn open(dialect: Dialect, limit: usize) -> Self {
        let kinds = Arc::new(kinds(Side::Zone));
        let (writer, reader) = view(kinds.list.iter().map(|_| Loaded::default()), 4);
        let kind = kinds.id_of(TIMEOUT.name).unwrap();
        let peer = (&zone("east"), dialect);
        let capacity = Offering::capacity(&kinds);
        let offering = Offering::new((reader.clone(), 1), kinds, Hop::Down, peer, limit);
        let counts = Arc::<Counts>::default();
        let observer: Arc<dyn Observer> = counts.clone();
        let report = Report::new(observer, zone("east"));
        let (requests, asked) = mpsc::channel(100);
        let (sender, responses) = mpsc::channel(capacity);
        let mut serving = JoinSet::new();
        serving
            .spawn(async move { offering.run(ReceiverStream::new(asked), sender, &report).await });
        Self { writer, reader, kind, counts, requests, responses, serving }
    }

    fn put(&self, name: &str, seconds: u8) {
        let key = ResourceKey::in_mesh(&"default".parse().unwrap(), name);
        let spec = format!(r#"{{"seconds":{seconds}}}"#).into();
        let labels = Labels::default();
        let row = TIMEOUT.resource(key, labels, spec, "".into(), Side::Zone).unwrap();
        self.writer.apply([(self.kind, Edit::Put(Arc::new(row)))]);
    }

    /// Whether anybody listened.
    async fn ask(&self, kind: &str) -> bool {
        let introduction = Introduction::default();
        let node = introduction.node(&zone("east"));
        let request = crate::dialect::first_request(node, kind, &Start::Fresh);
        self.requests.send(Ok(request)).await.is_ok()
    }

    async fn ack(&self, nonce: &str) {
        let ack = crate::dialect::answer(&zone("east"), TIMEOUT.name, nonce, &[]);
        self.requests.send(Ok(ack)).await.unwrap();
    }

    /// Nonce and names of the next response.
    async fn next(&mut self) -> (String, Vec<String>) {
        let frame = timeout(PATIENCE, self.responses.recv()).await.unwrap().unwrap();
        let response = DeltaDiscoveryResponse::decode(frame.to_bytes()).unwrap();
        (response.nonce, response.resources.into_iter().map(|one| one.name).collect())
    }

    async fn nothing(&mut self) {
        let early = timeout(PATIENCE, self.responses.recv()).await;
        assert!(early.is_err(), "{early:?}");
    }

    async fn end(&mut self) -> StreamEnded {
        timeout(PATIENCE, self.serving.join_next()).await.unwrap().unwrap().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn changes_made_while_a_response_is_in_flight_arrive_together() {
    let mut stream = Stream::open(Dialect::Plain, usize::MAX);
    stream.ask(TIMEOUT.name).await;
    assert_eq!(stream.next().await, ("1".into(), vec![]));
    stream.put("a", 1);
    stream.nothing().await;
    stream.put("b", 1);
    stream.ack("1").await;
    assert_eq!(stream.next().await, ("2".into(), vec!["a.default".into(), "b.default".into()]));
    stream.ack("2").await;
    stream.nothing().await;
    stream.put("c", 1);
    assert_eq!(stream.next().await, ("3".into(), vec!["c.default".into()]));
}

#[tokio::test(start_paused = true)]
async fn a_plain_peer_that_fell_behind_starts_over_and_one_of_ours_goes_on() {
    let behind = |stream: &Stream| {
        for seconds in 1..9 {
            stream.put("a", seconds);
        }
    };
    let mut plain = Stream::open(Dialect::Plain, usize::MAX);
    plain.ask(TIMEOUT.name).await;
    plain.next().await;
    behind(&plain);
    plain.ack("1").await;
    assert!(matches!(plain.end().await, StreamEnded::Behind));

    let mut ours = Stream::open(Dialect::Ours(metadata::own_features()), usize::MAX);
    ours.ask(TIMEOUT.name).await;
    ours.next().await;
    behind(&ours);
    ours.ack("1").await;
    let frame = timeout(PATIENCE, ours.responses.recv()).await.unwrap().unwrap();
    let response = DeltaDiscoveryResponse::decode(frame.to_bytes()).unwrap();
    let dialect = Dialect::Ours(metadata::own_features());
    let (extent, _) = crate::dialect::extent(&response, dialect, false).unwrap();
    assert_eq!((extent, response.resources.len()), (Extent::Complete, 1));
}

#[tokio::test(start_paused = true)]
async fn a_state_that_a_plain_peer_cannot_take_does_not_end_its_stream() {
    let mut stream = Stream::open(Dialect::Plain, 200);
    for name in ["a", "b", "c"] {
        stream.put(name, 1);
    }
    stream.ask(TIMEOUT.name).await;
    stream.nothing().await;
    assert_eq!(stream.counts.of("too large", TIMEOUT), 1);
    stream.ask("Mesh").await;
    assert_eq!(stream.next().await, ("2".into(), vec![]), "the other kinds go on");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_a_peer_can_just_take_is_sent_and_one_of_a_byte_more_is_not() {
    let asked = async |limit: usize| {
        let mut stream = Stream::open(Dialect::Plain, limit);
        stream.put("a", 1);
        stream.ask(TIMEOUT.name).await;
        let frame = timeout(PATIENCE, stream.responses.recv()).await.ok().flatten();
        (frame.map(|frame| frame.len()), stream.counts.of("too large", TIMEOUT))
    };
    let (whole, _) = asked(usize::MAX).await;
    let bytes = whole.unwrap();
    assert_eq!(asked(bytes).await, (whole, 0));
    assert_eq!(asked(bytes - 1).await, (None, 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_understands_it_says_once_and_that_holds_for_the_whole_stream() {
    let mut stream = Stream::open(Dialect::Plain, usize::MAX);
    stream.put("a", 1);
    let features = Features::default().with(Feature::HashSuffix);
    let first = Introduction { features, ..Introduction::default() }.node(&zone("east"));
    let later = Node { id: "east".into(), ..Node::default() };
    for (kind, node) in [(MESH, first), (TIMEOUT, later)] {
        let request = crate::dialect::first_request(node, kind.name, &Start::Fresh);
        stream.requests.send(Ok(request)).await.unwrap();
        let (_, names) = stream.next().await;
        let hashed = hashed_name("default".parse().ok().as_ref(), "a", [None, None]);
        let expected = if kind.name == MESH.name { vec![] } else { vec![hashed + ".default"] };
        assert_eq!(names, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_unknown_kinds_without_end_is_ended() {
    let mut stream = Stream::open(Dialect::Plain, usize::MAX);
    let mut number = 0;
    while stream.ask(&format!("Invention{number}")).await {
        number += 1;
        assert!(number < 1000, "there is no end");
    }
    assert!(matches!(stream.end().await, StreamEnded::Broken(Broken::Flood)));
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_again_and_again_and_takes_what_changes_is_served_on() {
    let mut stream = Stream::open(Dialect::Plain, usize::MAX);
    stream.ask(TIMEOUT.name).await;
    let (mut nonce, _) = stream.next().await;
    for number in 0..limit::IDLE + 100 {
        stream.ack("99999").await;
        stream.ack(&nonce).await;
        stream.put("a", u8::try_from(number % 90).unwrap() + 1);
        let (next, names) = stream.next().await;
        assert_eq!(names, ["a.default"]);
        nonce = next;
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_listen_any_more_is_left() {
    let mut stream = Stream::open(Dialect::Plain, usize::MAX);
    stream.responses.close();
    assert!(matches!(stream.end().await, StreamEnded::ByPeer));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_in_time_starts_over() {
    let mut stream = Stream::open(Dialect::Plain, usize::MAX);
    stream.ask(TIMEOUT.name).await;
    stream.next().await;
    let ended = timeout(limit::SILENCE * 2, stream.serving.join_next()).await;
    let ended = ended.unwrap().unwrap().unwrap();
    assert!(matches!(ended, StreamEnded::Silent), "{ended:?}");

    let mut stream = Stream::open(Dialect::Plain, usize::MAX);
    stream.ask(TIMEOUT.name).await;
    stream.next().await;
    stream.ack("1").await;
    let early = timeout(limit::SILENCE * 2, stream.serving.join_next()).await;
    assert!(early.is_err(), "{early:?} though nothing was to be answered");
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_knows_beacons_and_answers_nothing_is_left_sooner_than_one_that_is_busy() {
    let knows = Dialect::Ours(Features::default().with(Feature::Beacon));
    let mut stream = Stream::open(knows, usize::MAX);
    stream.ask(TIMEOUT.name).await;
    stream.next().await;
    stream.ask(MESH.name).await;
    stream.next().await;
    for _ in 0..10 {
        // It answers about another kind.
        timeout(limit::BEACON / 2, std::future::pending::<()>()).await.unwrap_err();
        let ack = crate::dialect::answer(&zone("east"), MESH.name, "2", &[]);
        stream.requests.send(Ok(ack)).await.unwrap();
    }
    let silent = Instant::now();
    assert!(matches!(stream.end().await, StreamEnded::Silent));
    assert_eq!(silent.elapsed(), limit::BEACON);
}

#[tokio::test(start_paused = true)]
async fn who_did_not_announce_beacons_is_told_that_there_are_none() {
    let features = metadata::own_features();
    for (dialect, known) in [(Dialect::Plain, false), (Dialect::Ours(features), true)] {
        let mut stream = Stream::open(dialect, usize::MAX);
        let (key, spec) = (ResourceKey::global("beacon"), r#"{"number":1}"#.into());
        let row = BEACON.resource(key, Labels::default(), spec, "".into(), Side::Zone).unwrap();
        let id = kinds(Side::Zone).id_of(BEACON.name).unwrap();
        stream.writer.apply([(id, Edit::Put(Arc::new(row)))]);
        stream.ask(BEACON.name).await;
        let (_, names) = stream.next().await;
        assert_eq!(!names.is_empty(), known, "{dialect:?}: {names:?}");
    }
}

/// Where a peer was said to be: at the beginning, or later.
#[derive(Default)]
struct Places(parking_lot::Mutex<Vec<At>>);

type At = (&'static str, Option<u64>, Vec<String>);

impl Observer for Places {
    fn observe(&self, _stream: crate::observe::StreamId, _zone: &ZoneName, event: Event<'_>) {
        let (what, until, refused) = if let Event::Begins { until, refused, .. } = event {
            ("begins", until, refused)
        } else if let Event::Stands { until, refused, .. } = event {
            ("stands", until, refused)
        } else {
            return;
        };
        let refused = refused.keys().map(|name| name.to_string()).collect();
        self.0.lock().push((what, until.map(|until| until.0), refused));
    }
}

impl Places {
    fn take(&self) -> Vec<At> {
        std::mem::take(&mut self.0.lock())
    }
}

fn of_store(store: &Stream, report: &Report, start: Start) -> Offering {
    let kinds = Arc::new(kinds(Side::Zone));
    let dialect = Dialect::Ours(metadata::own_features());
    let reader = (store.reader.clone(), 1);
    let peer = (&zone("east"), dialect);
    let mut offering = Offering::new(reader, kinds, Hop::Down, peer, usize::MAX);
    let node = Introduction::default().node(&zone("east"));
    let request = crate::dialect::first_request(node, TIMEOUT.name, &start);
    assert!(matches!(offering.received(&request, report), Ok(Due::Kind(_))));
    offering
}

#[tokio::test(start_paused = true)]
async fn it_is_told_where_a_peer_is_also_when_nothing_is_sent() {
    let store = Stream::open(Dialect::Plain, usize::MAX);
    let places = Arc::<Places>::default();
    let observer: Arc<dyn Observer> = places.clone();
    let report = Report::new(observer, zone("east"));
    let answered = |offering: &mut Offering, nonce: &str, refused: &[&str]| {
        let refusal = |name: &&str| crate::refusal::Refusal {
            name: (*name).into(),
            reason: "spec.seconds: no".into(),
        };
        let refused: Vec<_> = refused.iter().map(refusal).collect();
        let answer = crate::dialect::answer(&zone("east"), TIMEOUT.name, nonce, &refused);
        offering.received(&answer, &report).unwrap();
    };
    let none = Vec::new;
    let mut offering = of_store(&store, &report, Start::Fresh);
    store.put("a", 1);
    assert_eq!(places.take(), [("begins", None, none())]);
    assert!(offering.next(store.kind, &report).unwrap().is_some());
    assert_eq!(places.take(), [], "sent is not taken");
    answered(&mut offering, "7", &[]);
    assert_eq!(places.take(), [], "an answer to something else");
    answered(&mut offering, "1", &[]);
    assert_eq!(places.take(), [("stands", Some(1), none())]);

    let key = ResourceKey::in_mesh(&"default".parse().unwrap(), "hers");
    let row = TIMEOUT
        .resource(key, Labels::default(), r#"{"seconds":1}"#.into(), "".into(), Side::Zone)
        .unwrap();
    let owner = Some(zone("east"));
    let row = row.shown_to(resource::Audience { owner, ..resource::Audience::default() });
    store.writer.apply([(store.kind, Edit::Put(Arc::new(row)))]);
    assert!(offering.next(store.kind, &report).unwrap().is_none());
    assert_eq!(places.take(), [("stands", Some(2), none())], "what is not for it is no debt");
    assert!(offering.next(store.kind, &report).unwrap().is_none());
    assert_eq!(places.take(), [], "told once");

    store.put("b", 1);
    assert!(offering.next(store.kind, &report).unwrap().is_some());
    answered(&mut offering, "2", &["b.default"]);
    assert_eq!(places.take(), [("stands", Some(3), vec!["b.default".into()])]);

    let cursor = offering.served[&store.kind].subscription.taken().unwrap();
    let refused = offering.refused(store.kind);
    of_store(&store, &report, Start::Resume { cursor, refused: refused.clone() });
    assert_eq!(places.take(), [("begins", Some(3), vec!["b.default".into()])]);
    let cursor = delta::Cursor { epoch: cursor.epoch + 1, ..cursor };
    of_store(&store, &report, Start::Resume { cursor, refused });
    assert_eq!(places.take(), [("begins", None, vec!["b.default".into()])], "of another history");
}

#[test]
fn what_is_judged_as_a_whole_comes_as_a_whole() {
    let kinds = Arc::new(kinds(Side::Zone));
    let (writer, reader) = view(kinds.list.iter().map(|_| Loaded::default()), 4);
    let report = Report::new(Arc::<Counts>::default(), zone("east"));
    for (kind, spec, parts) in [(MESH, "{}", 1), (TIMEOUT, r#"{"seconds":1}"#, 3)] {
        let id = kinds.id_of(kind.name).unwrap();
        for name in ["a", "b", "c"] {
            let mesh = (kind.name == TIMEOUT.name).then(|| "default".parse().unwrap());
            let key = ResourceKey { mesh, name: name.into() };
            let row = kind.resource(key, Labels::default(), spec.into(), "".into(), Side::Zone);
            writer.apply([(id, Edit::Put(Arc::new(row.unwrap())))]);
        }
        let peer = (&zone("east"), Dialect::Ours(metadata::own_features()));
        let offering =
            Offering::new((reader.clone(), 1), kinds.clone(), Hop::Down, peer, usize::MAX);
        let mut offering = offering.with_parts_of(1);
        let node = Introduction::default().node(&zone("east"));
        let request = crate::dialect::first_request(node, kind.name, &Start::Fresh);
        offering.received(&request, &report).unwrap();
        let frame = offering.next(id, &report).unwrap().unwrap();
        assert_eq!(frame.resources.len(), 3 / parts, "{}", kind.name);
    }
}
