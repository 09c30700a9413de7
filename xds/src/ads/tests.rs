//! Single rules; the law as a whole is in `law`.

use super::*;
use crate::{
    Marker,
    snapshot::{Type, changes},
};
use delta::{Item, Name, Nonce, Update, Version};
use parking_lot::Mutex;
use proto::{envoy::service::discovery::v3::DeltaDiscoveryResponse, google::rpc};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

const PATIENCE: Duration = Duration::from_secs(60);

/// What there is, and the mailbox of the one who gets it.
#[derive(Debug)]
pub(super) struct Truth {
    items: Mutex<BTreeMap<(Type, Name), Item>>,
    marker: Option<Marker>,
}

impl Truth {
    pub(super) fn new() -> (Self, Changes) {
        let (marker, changes) = changes();
        (Self { items: Mutex::default(), marker: Some(marker) }, changes)
    }

    /// A new mailbox, as for a new stream.
    pub(super) fn reopened(&mut self) -> Changes {
        let (marker, changes) = changes();
        self.marker = Some(marker);
        changes
    }

    /// Changes several resources at once; `None` removes.
    pub(super) fn change<'a>(
        &self,
        batch: impl IntoIterator<Item = (Type, &'a str, Option<&'a str>)>,
    ) {
        let mut items = self.items.lock();
        let mut marks = Vec::new();
        for (kind, name, content) in batch {
            let name: Name = name.into();
            match content {
                Some(content) => items.insert((kind, name.clone()), item(&name, content)),
                None => items.remove(&(kind, name.clone())),
            };
            marks.push((kind, name));
        }
        self.marker.as_ref().unwrap().mark_all(marks);
    }

    pub(super) fn put(&self, kind: Type, name: &str, content: &str) {
        self.change([(kind, name, Some(content))]);
    }

    pub(super) fn all(&self, kind: Type) -> BTreeMap<Name, Item> {
        let items = self.items.lock();
        let of_kind = items.iter().filter(|((of, _), _)| *of == kind);
        of_kind.map(|((_, name), item)| (name.clone(), item.clone())).collect()
    }
}

impl Source for Truth {
    fn get(&self, kind: Type, name: &str) -> Option<Item> {
        self.items.lock().get(&(kind, name.into())).cloned()
    }

    fn names(&self, kind: Type) -> Vec<Name> {
        self.all(kind).into_keys().collect()
    }

    fn endpoints_of(&self, cluster: &Name) -> Name {
        cluster.trim_start_matches("sni.").into()
    }
}

/// The bytes are the content itself: what they say is up to the test.
fn item(name: &Name, content: &str) -> Item {
    let version = Version(resource::Version::of(content.as_bytes()).to_be_bytes());
    Item { name: name.clone(), version, bytes: content.to_owned().into() }
}

pub(super) fn request(kind: Type, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.url().into(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

pub(super) fn answer(kind: Type, nonce: Nonce, refusal: Option<&str>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        response_nonce: nonce.0.to_string(),
        error_detail: refusal
            .map(|text| rpc::Status { message: text.into(), ..rpc::Status::default() }),
        ..request(kind, &[])
    }
}

/// A session, what it serves, and what is in flight.
struct Stream {
    truth: Truth,
    changes: Changes,
    session: Session,
    in_flight: BTreeMap<Type, Update>,
}

/// A type, what is new or changed, what is gone.
type Sent = (Type, Vec<String>, Vec<String>);

impl Stream {
    fn of(items: &[(Type, &str)]) -> Self {
        let (truth, mut changes) = Truth::new();
        truth.change(items.iter().map(|(kind, name)| (*kind, *name, Some("1"))));
        drop(changes.take());
        Self { truth, changes, session: Session::default(), in_flight: BTreeMap::new() }
    }

    fn asks(&mut self, kind: Type, names: &[&str]) {
        self.requests(request(kind, names));
    }

    fn requests(&mut self, request: DeltaDiscoveryRequest) -> Option<Event> {
        self.session.request(request, &self.truth).unwrap()
    }

    fn next(&mut self) -> Option<Sent> {
        self.session.mark(self.changes.take());
        self.next_of_what_is_marked()
    }

    fn next_of_what_is_marked(&mut self) -> Option<Sent> {
        let (frame, event) = self.session.next(&self.truth, &self.changes)?;
        let Event::Sent { kind, update } = event else { panic!("{event:?} is not about a frame") };
        let strings = |names: Vec<&Name>| names.into_iter().map(|name| name.to_string()).collect();
        let names = strings(update.upserts.iter().map(|item| &item.name).collect());
        let removed: Vec<String> = strings(update.removals.iter().collect());
        let head = DeltaDiscoveryResponse {
            type_url: kind.url().into(),
            nonce: update.nonce.0.to_string(),
            removed_resources: removed.clone(),
            ..DeltaDiscoveryResponse::default()
        };
        let bytes = update.upserts.iter().map(|item| item.bytes.clone()).collect();
        assert_eq!(frame.to_bytes(), Frame::new(&head, bytes).to_bytes());
        assert_eq!(self.in_flight.insert(kind, update), None, "two responses in flight");
        Some((kind, names, removed))
    }

    fn acks(&mut self, kind: Type) {
        let update = self.in_flight.remove(&kind).unwrap();
        let event = self.requests(answer(kind, update.nonce, None));
        assert_eq!(event, Some(Event::Acked { kind, update }));
    }

    /// Everything that is sent to a peer that acknowledges at once.
    fn settle(&mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        while let Some(sent) = self.next() {
            self.acks(sent.0);
            all.push(sent);
        }
        all
    }
}

fn sent(kind: Type, names: &[&str]) -> Sent {
    (kind, names.iter().map(|name| (*name).to_owned()).collect(), vec![])
}

fn gone(kind: Type, names: &[&str]) -> Sent {
    (kind, vec![], names.iter().map(|name| (*name).to_owned()).collect())
}

use Type::{Cluster, Endpoint, Extension, Listener, Route, Runtime, Secret};

/// A stream of a proxy that calls one service and has everything.
fn settled() -> Stream {
    let mut stream = Stream::of(&[(Cluster, "a"), (Endpoint, "a"), (Listener, "a"), (Route, "a")]);
    stream.asks(Cluster, &[]);
    stream.asks(Endpoint, &["a"]);
    stream.asks(Listener, &[]);
    stream.asks(Route, &["a"]);
    stream.settle();
    stream
}

#[test]
fn the_first_answer_is_complete_even_if_empty_and_later_ones_are_deltas() {
    let mut stream = Stream::of(&[(Cluster, "a"), (Cluster, "b")]);
    stream.asks(Cluster, &[]);
    stream.asks(Listener, &["*"]);
    assert_eq!(stream.settle(), [sent(Cluster, &["a", "b"]), sent(Listener, &[])]);
    stream.truth.put(Cluster, "c", "1");
    assert_eq!(stream.settle(), [sent(Cluster, &["c"])]);
}

#[test]
fn a_beacon_goes_with_listeners_or_alone_and_any_answer_to_that_counts() {
    let mut stream = Stream::of(&[(Listener, "a")]);
    stream.session.beacon(1);
    assert_eq!((stream.next(), stream.session.passed()), (None, None), "nobody is there to answer");
    stream.asks(Cluster, &[]);
    assert_eq!(stream.next(), Some(sent(Cluster, &[])));
    assert_eq!(stream.session.passed(), None, "it goes with listeners only");
    stream.acks(Cluster);
    stream.asks(Listener, &[]);
    assert_eq!(stream.next(), Some(sent(Listener, &["a"])));
    assert_eq!(stream.session.passed(), Some(Event::Beacon(1)));
    stream.session.beacon(2);
    assert_eq!((stream.next(), stream.session.passed()), (None, None), "one at a time");
    stream.acks(Listener);
    assert_eq!(stream.session.passed(), Some(Event::Answered(1)));

    assert_eq!(stream.next(), Some(sent(Listener, &[])));
    assert_eq!(stream.session.passed(), Some(Event::Beacon(2)));
    let update = stream.in_flight.remove(&Listener).unwrap();
    let stale = answer(Listener, Nonce(update.nonce.0 + 100), None);
    stream.requests(stale);
    assert_eq!(stream.session.passed(), None, "that is no answer to it");
    stream.requests(answer(Listener, update.nonce, Some("no")));
    assert_eq!(stream.session.passed(), Some(Event::Answered(2)));
    assert_eq!((stream.next(), stream.session.passed()), (None, None));
}

#[test]
fn listeners_and_routes_wait_for_the_answer_to_clusters_but_endpoints_and_secrets_do_not() {
    let mut stream = settled();
    stream.asks(Secret, &["s"]);
    stream.settle();
    stream.truth.change(
        [(Route, "a"), (Listener, "b"), (Cluster, "b"), (Endpoint, "b"), (Secret, "s")]
            .map(|(kind, name)| (kind, name, Some("2"))),
    );
    assert_eq!(stream.next(), Some(sent(Cluster, &["b"])));
    stream.asks(Endpoint, &["b"]);
    assert_eq!(stream.next(), Some(sent(Endpoint, &["b"])));
    assert_eq!(stream.next(), Some(sent(Secret, &["s"])));
    assert_eq!(stream.next(), None, "Envoy has not said that the cluster is warm");
    stream.acks(Cluster);
    assert_eq!(stream.next(), Some(sent(Listener, &["b"])));
    assert_eq!(stream.next(), Some(sent(Route, &["a"])));
}

#[test]
fn what_goes_is_taken_away_from_the_listener_on() {
    let mut stream = settled();
    let all = [(Cluster, "a"), (Endpoint, "a"), (Listener, "a"), (Route, "a")];
    stream.truth.change(all.map(|(kind, name)| (kind, name, None)));
    assert_eq!(stream.next(), Some(gone(Listener, &["a"])));
    assert_eq!(stream.next(), None, "the listener may still be there");
    stream.acks(Listener);
    let rest = [gone(Route, &["a"]), gone(Cluster, &["a"]), gone(Endpoint, &["a"])];
    assert_eq!(stream.settle(), rest);
}

#[test]
fn a_cluster_goes_when_no_route_leads_to_it_any_more() {
    let mut stream = settled();
    stream.truth.change([(Cluster, "a", None), (Cluster, "b", Some("1")), (Route, "a", Some("b"))]);
    assert_eq!(stream.next(), Some(sent(Cluster, &["b"])));
    stream.acks(Cluster);
    assert_eq!(stream.next(), Some(sent(Route, &["a"])));
    assert_eq!(stream.next(), None, "the route may still lead to the cluster");
    stream.acks(Route);
    assert_eq!(stream.settle(), [gone(Cluster, &["a"])]);
}

#[test]
fn endpoints_are_sent_with_each_change_of_a_cluster_that_uses_them() {
    let mut stream = settled();
    stream.truth.put(Cluster, "a", "2");
    assert_eq!(stream.settle(), [sent(Cluster, &["a"]), sent(Endpoint, &["a"])]);
    stream.truth.put(Cluster, "sni.a", "1");
    assert_eq!(stream.settle(), [sent(Cluster, &["sni.a"]), sent(Endpoint, &["a"])]);
}

#[test]
fn a_filter_is_sent_with_its_listener() {
    let mut stream = settled();
    stream.truth.change([(Listener, "tcp", Some("1")), (Extension, "tcp", Some("1"))]);
    assert_eq!(stream.settle(), [sent(Listener, &["tcp"])]);
    stream.asks(Extension, &["tcp"]);
    assert_eq!(stream.settle(), [sent(Extension, &["tcp"])]);
    stream.truth.put(Listener, "tcp", "2");
    assert_eq!(stream.settle(), [sent(Listener, &["tcp"]), sent(Extension, &["tcp"])]);
}

#[test]
fn open_connections_are_cut_after_nobody_new_is_let_in() {
    let items = [(Secret, "tcp"), (Extension, "tcp"), (Runtime, "r")];
    let mut stream = Stream::of(&items);
    items.iter().for_each(|(kind, name)| stream.asks(*kind, &[*name]));
    stream.settle();
    stream.truth.put(Extension, "tcp", "2");
    assert_eq!(stream.next(), Some(sent(Extension, &["tcp"])));

    stream.truth.change(items.map(|(kind, name)| (kind, name, Some("3"))));
    assert_eq!(stream.next(), Some(sent(Secret, &["tcp"])));
    assert_eq!(stream.next(), None, "the filter's change waits behind the one in flight");
    stream.acks(Extension);
    assert_eq!(stream.next(), Some(sent(Extension, &["tcp"])));
    assert_eq!(stream.next(), Some(sent(Runtime, &["r"])), "in order suffices");
}

#[test]
fn the_runtime_is_answered_at_once_when_it_is_asked_for() {
    let mut stream = Stream::of(&[(Runtime, "r"), (Secret, "s")]);
    stream.asks(Secret, &["s"]);
    assert_eq!(stream.next(), Some(sent(Secret, &["s"])));
    stream.truth.put(Secret, "s", "2");
    stream.asks(Runtime, &["r"]);
    assert_eq!(stream.next(), Some(sent(Runtime, &["r"])));
}

#[test]
fn a_name_that_does_not_exist_is_answered_and_sent_when_it_does() {
    let mut stream = Stream::of(&[]);
    stream.asks(Secret, &["s"]);
    assert_eq!(stream.settle(), [gone(Secret, &["s"])]);
    stream.truth.put(Secret, "s", "1");
    assert_eq!(stream.settle(), [sent(Secret, &["s"])]);
    stream.requests(DeltaDiscoveryRequest {
        resource_names_unsubscribe: vec!["s".into()],
        ..request(Secret, &[])
    });
    stream.truth.put(Secret, "s", "2");
    assert_eq!(stream.settle(), []);
}

#[test]
fn a_refusal_says_what_and_why_and_nothing_is_sent_before_it_changes() {
    let mut stream = settled();
    stream.truth.change([(Cluster, "a", Some("bad")), (Listener, "a", Some("2"))]);
    assert_eq!(stream.next(), Some(sent(Cluster, &["a"])));
    let update = stream.in_flight.remove(&Cluster).unwrap();
    let stale = answer(Cluster, Nonce(update.nonce.0 - 1), None);
    assert_eq!(stream.requests(stale), None);
    assert_eq!(stream.next(), Some(sent(Endpoint, &["a"])));
    assert_eq!(stream.next(), None, "the stale answer counts for nothing");

    let event = stream.requests(answer(Cluster, update.nonce, Some("no such thing")));
    let text = "no such thing".to_owned();
    let reasons = [("a".into(), text.clone())].into();
    let refusal = Refusal { text, reasons, ..Refusal::default() };
    assert_eq!(event, Some(Event::Refused { kind: Cluster, update, refusal }));
    stream.acks(Endpoint);
    assert_eq!(stream.settle(), [sent(Listener, &["a"])], "others are not held up");
    stream.truth.put(Cluster, "a", "bad");
    assert_eq!(stream.settle(), []);
    stream.truth.put(Cluster, "a", "good");
    assert_eq!(stream.settle(), [sent(Cluster, &["a"]), sent(Endpoint, &["a"])]);
}

#[test]
fn what_envoy_had_no_room_to_speak_of_is_asked_again() {
    let mut stream = Stream::of(&[(Listener, "a"), (Listener, "b"), (Listener, "c")]);
    stream.asks(Listener, &[]);
    assert_eq!(stream.next(), Some(sent(Listener, &["a", "b", "c"])));
    let update = stream.in_flight.remove(&Listener).unwrap();
    let text = "Error adding/updating listener(s) a: bad...(truncated)";
    stream.requests(answer(Listener, update.nonce, Some(text)));
    assert_eq!(stream.next(), Some(sent(Listener, &["b", "c"])));
    let update = stream.in_flight.remove(&Listener).unwrap();
    let text = "Error adding/updating listener(s) c: bad\n";
    stream.requests(answer(Listener, update.nonce, Some(text)));
    stream.truth.change(["a", "b", "c"].map(|name| (Listener, name, Some("1"))));
    assert_eq!(stream.settle(), [sent(Listener, &["b"])], "the others did not change");
}

#[test]
fn a_refusal_holds_up_no_later_version_of_anything() {
    let mut stream = settled();
    stream.truth.change([(Listener, "bad", Some("bad")), (Listener, "good", Some("1"))]);
    assert_eq!(stream.next(), Some(sent(Listener, &["bad", "good"])));
    let update = stream.in_flight.remove(&Listener).unwrap();
    stream.requests(answer(Listener, update.nonce, Some("bad: cannot be bound")));
    assert_eq!(stream.settle(), [], "neither is sent again as it was");
    stream.truth.put(Listener, "good", "2");
    assert_eq!(stream.settle(), [sent(Listener, &["good"])]);
    stream.truth.put(Listener, "bad", "mended");
    assert_eq!(stream.settle(), [sent(Listener, &["bad"])]);
    // Back to what was refused once: it may be good by now.
    stream.truth.put(Listener, "bad", "bad");
    assert_eq!(stream.settle(), [sent(Listener, &["bad"])]);
}

#[test]
fn who_comes_back_gets_the_difference_and_clusters_go_after_their_listeners() {
    let mut stream =
        Stream::of(&[(Cluster, "a"), (Endpoint, "a"), (Listener, "a"), (Listener, "new")]);
    let held = |kind, names: &[&str], held: &[&str]| {
        let version = resource::Version::of(b"1").to_string();
        let versions = held.iter().map(|name| ((*name).to_owned(), version.clone()));
        DeltaDiscoveryRequest {
            initial_resource_versions: versions.collect(),
            ..request(kind, names)
        }
    };
    stream.requests(held(Cluster, &[], &["a", "gone"]));
    assert_eq!(stream.next(), Some(sent(Cluster, &[])), "nothing may go yet");
    stream.acks(Cluster);
    assert_eq!(stream.next(), None);
    stream.requests(held(Endpoint, &["a"], &["a"]));
    stream.requests(held(Listener, &[], &["a", "gone"]));
    let listeners = (Listener, vec!["new".into()], vec!["gone".into()]);
    assert_eq!(stream.settle(), [listeners, gone(Cluster, &["gone"])]);
}

#[test]
fn endpoints_that_are_asked_for_after_their_cluster_was_sent_are_sent_even_if_they_are_held() {
    let mut stream = Stream::of(&[(Cluster, "a"), (Endpoint, "a"), (Endpoint, "b")]);
    stream.asks(Cluster, &[]);
    assert_eq!(stream.next(), Some(sent(Cluster, &["a"])));
    let version = resource::Version::of(b"1").to_string();
    let held = ["a", "b"].map(|name| (name.to_owned(), version.clone()));
    stream.requests(DeltaDiscoveryRequest {
        initial_resource_versions: held.into(),
        ..request(Endpoint, &["a", "b"])
    });
    assert_eq!(stream.next(), Some(sent(Endpoint, &["a"])));
}

#[test]
fn a_version_that_is_not_ours_is_not_what_we_have() {
    let mut stream = Stream::of(&[(Cluster, "a")]);
    stream.requests(DeltaDiscoveryRequest {
        initial_resource_versions: [("a".into(), "17".into())].into(),
        ..request(Cluster, &[])
    });
    assert_eq!(stream.settle(), [sent(Cluster, &["a"])]);
}

#[test]
fn what_is_not_taken_from_the_mailbox_yet_is_not_overtaken() {
    let mut stream = settled();
    stream.truth.put(Route, "a", "2");
    stream.session.mark(stream.changes.take());
    stream.truth.change([(Cluster, "b", Some("1")), (Route, "a", Some("to b"))]);
    assert_eq!(stream.next_of_what_is_marked(), None, "the route leads to a cluster not sent");
    assert_eq!(stream.settle(), [sent(Cluster, &["b"]), sent(Route, &["a"])]);

    stream.truth.put(Cluster, "a", "2");
    stream.session.mark(stream.changes.take());
    stream.truth.change([(Cluster, "a", None), (Listener, "a", None)]);
    assert_eq!(stream.next_of_what_is_marked(), None, "a listener leads to the cluster");
    assert_eq!(stream.settle(), [gone(Listener, &["a"]), gone(Cluster, &["a"])]);

    let items = [(Secret, "s"), (Runtime, "r")];
    let mut stream = Stream::of(&items);
    items.iter().for_each(|(kind, name)| stream.asks(*kind, &[*name]));
    stream.settle();
    stream.truth.put(Runtime, "r", "2");
    stream.session.mark(stream.changes.take());
    stream.truth.change(items.map(|(kind, name)| (kind, name, Some("3"))));
    assert_eq!(stream.next_of_what_is_marked(), None, "the secret comes before the runtime");
    assert_eq!(stream.settle(), [sent(Secret, &["s"]), sent(Runtime, &["r"])]);
}

type Batch = Vec<(Type, &'static str, Option<&'static str>)>;

/// Changes while it is looked at, once.
struct Changing<'a> {
    truth: &'a Truth,
    change: Mutex<Option<Batch>>,
}

impl Source for Changing<'_> {
    fn get(&self, kind: Type, name: &str) -> Option<Item> {
        if let Some(change) = self.change.lock().take() {
            self.truth.change(change);
        }
        self.truth.get(kind, name)
    }

    fn names(&self, kind: Type) -> Vec<Name> {
        self.truth.names(kind)
    }
}

#[test]
fn what_changes_while_it_is_looked_at_is_not_overtaken() {
    let next = |stream: &mut Stream, change: Batch| {
        stream.session.mark(stream.changes.take());
        let source = Changing { truth: &stream.truth, change: Mutex::new(Some(change)) };
        stream.session.next(&source, &stream.changes)
    };
    let mut stream = settled();
    stream.truth.put(Route, "a", "2");
    let change = vec![(Cluster, "b", Some("1")), (Route, "a", Some("to b"))];
    assert_eq!(next(&mut stream, change).map(|(_, event)| event), None);
    assert_eq!(stream.settle(), [sent(Cluster, &["b"]), sent(Route, &["a"])]);

    stream.truth.put(Cluster, "b", "2");
    let change = vec![(Cluster, "b", None), (Route, "a", Some("to a"))];
    assert_eq!(next(&mut stream, change).map(|(_, event)| event), None);
    assert_eq!(stream.settle(), [sent(Route, &["a"]), gone(Cluster, &["b"])]);
}

#[test]
fn malformed_requests_are_rejected_with_their_field() {
    let rejected = |request| {
        let mut session = Session::default();
        let rejected = session.request(request, &Truth::new().0).unwrap_err();
        (Status::from(Ended::from(rejected.clone())).code(), rejected.to_string())
    };
    let invalid = tonic::Code::InvalidArgument;
    let url = DeltaDiscoveryRequest { type_url: "x.Y".into(), ..request(Cluster, &[]) };
    assert_eq!(rejected(url), (invalid, r#"type_url: "x.Y" is not served"#.into()));
    let all = "resource_names_subscribe: Secret is served by name, not as a whole";
    assert_eq!(rejected(request(Secret, &["*"])), (invalid, all.into()));
    let nonce = DeltaDiscoveryRequest { response_nonce: "x".into(), ..request(Cluster, &[]) };
    let text = r#"response_nonce: "x" is not a nonce of this server"#;
    assert_eq!(rejected(nonce), (invalid, text.into()));

    let exhausted = tonic::Code::ResourceExhausted;
    let names: Vec<String> = (0..=100_000).map(|n| n.to_string()).collect();
    let many =
        DeltaDiscoveryRequest { resource_names_subscribe: names.clone(), ..request(Endpoint, &[]) };
    let text = "resource_names_subscribe: more than 100000 names";
    assert_eq!(rejected(many), (exhausted, text.into()));
    let many = DeltaDiscoveryRequest {
        initial_resource_versions: names.into_iter().map(|name| (name, String::new())).collect(),
        ..request(Cluster, &[])
    };
    let text = "initial_resource_versions: more than 100000 names";
    assert_eq!(rejected(many), (exhausted, text.into()));
}

#[tokio::test(start_paused = true)]
async fn a_stream_sends_what_changes_until_its_proxy_is_gone() {
    let (mut truth, changes) = Truth::new();
    truth.put(Cluster, "a", "1");
    let marker = truth.marker.take().unwrap();
    let truth = Arc::new(truth);
    let (requests, stream) = mpsc::channel(8);
    let (responses, mut sent) = mpsc::channel(CAPACITY);
    let (events, mut reported) = mpsc::channel(8);
    let served = truth.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let report = |event| events.try_send(event).unwrap();
        serve(&*served, changes, ReceiverStream::new(stream), responses, report).await
    });
    requests.send(Ok(request(Cluster, &[]))).await.unwrap();
    let first = tokio::time::timeout(PATIENCE, sent.recv()).await.unwrap().unwrap();
    assert_eq!(first.resources, ["1"]);
    truth.items.lock().insert((Cluster, "a".into()), item(&"a".into(), "2"));
    marker.mark(Cluster, "a".into());
    let early = tokio::time::timeout(PATIENCE, sent.recv()).await;
    assert!(early.is_err(), "{early:?} was sent while a response was in flight");

    requests.send(Ok(answer(Cluster, Nonce(1), None))).await.unwrap();
    let second = tokio::time::timeout(PATIENCE, sent.recv()).await.unwrap().unwrap();
    assert_eq!(second.resources, ["2"]);
    let update = |nonce, content| Update {
        nonce: Nonce(nonce),
        upserts: [item(&"a".into(), content)].into(),
        removals: [].into(),
    };
    let events: Vec<Event> = std::iter::from_fn(|| reported.try_recv().ok()).collect();
    let expected = [
        Event::Sent { kind: Cluster, update: update(1, "1") },
        Event::Acked { kind: Cluster, update: update(1, "1") },
        Event::Sent { kind: Cluster, update: update(2, "2") },
    ];
    assert_eq!(events, expected);
    drop(marker);
    let ended = tokio::time::timeout(PATIENCE, tasks.join_next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(ended, Err(Ended::Gone(Gone))), "{ended:?}");
}

/// The other end of a stream that is served.
struct Served {
    requests: mpsc::Sender<Result<DeltaDiscoveryRequest, Status>>,
    sent: mpsc::Receiver<Frame>,
    tasks: JoinSet<Result<(), Ended>>,
}

impl Served {
    fn of(truth: Arc<Truth>, changes: Changes) -> Self {
        let (requests, stream) = mpsc::channel(8);
        let (responses, sent) = mpsc::channel(CAPACITY);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            serve(&*truth, changes, ReceiverStream::new(stream), responses, drop).await
        });
        Self { requests, sent, tasks }
    }

    /// What is sent next, and after how long.
    async fn next(&mut self) -> (Vec<bytes::Bytes>, Duration) {
        let began = Instant::now();
        let frame = tokio::time::timeout(PATIENCE, self.sent.recv()).await.unwrap().unwrap();
        (frame.resources, began.elapsed())
    }

    async fn answers(&self, nonce: u64, refusal: Option<&str>) {
        self.requests.send(Ok(answer(Listener, Nonce(nonce), refusal))).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_cannot_be_bound_is_tried_again_until_it_can_and_no_other() {
    let (truth, changes) = Truth::new();
    truth.change(["a", "b", "c"].map(|name| (Listener, name, Some(name))));
    let truth = Arc::new(truth);
    let mut stream = Served::of(truth.clone(), changes);
    stream.requests.send(Ok(request(Listener, &[]))).await.unwrap();
    assert_eq!(stream.next().await.0, ["a", "b", "c"]);
    let in_use = "a: cannot bind '127.0.0.1:80': Address already in use\n";
    let both = format!("Error adding/updating listener(s) {in_use}b: no such filter\n");
    stream.answers(1, Some(&both)).await;
    for nonce in 2..12 {
        let (again, after) = stream.next().await;
        assert_eq!(again, ["a"], "b is as bad as before, and c was taken");
        assert!((1_000..=10_001).contains(&after.as_millis()), "{after:?}");
        stream.answers(nonce, Some(in_use)).await;
    }

    // A change does not wait for it, and takes its place.
    truth.change([(Listener, "a", Some("other")), (Listener, "c", Some("new"))]);
    let (changed, after) = stream.next().await;
    assert_eq!((changed, after), (vec!["other".into(), "new".into()], Duration::ZERO));
    stream.answers(12, Some(in_use)).await;
    let (again, _) = stream.next().await;
    assert_eq!(again, ["other"]);
    stream.answers(13, None).await;
    let quiet = tokio::time::timeout(PATIENCE, stream.sent.recv()).await;
    assert!(quiet.is_err(), "{quiet:?} was sent though Envoy has everything");

    truth.change([(Listener, "a", Some("yet another"))]);
    stream.next().await;
    stream.answers(14, Some(in_use)).await;
    truth.change([(Listener, "a", None)]);
    assert_eq!(stream.next().await.0, [""; 0], "it is removed");
    stream.answers(15, None).await;
    let quiet = tokio::time::timeout(PATIENCE, stream.sent.recv()).await;
    assert!(quiet.is_err(), "{quiet:?} was sent though it is gone");
    assert!(stream.tasks.try_join_next().is_none(), "it is still served");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_peer_or_by_a_malformed_request() {
    let serve_all = |requests: Vec<Result<DeltaDiscoveryRequest, Status>>| async {
        let (truth, changes) = Truth::new();
        let (responses, _sent) = mpsc::channel(CAPACITY);
        let stream = serve(&truth, changes, tokio_stream::iter(requests), responses, drop);
        tokio::time::timeout(PATIENCE, stream).await.unwrap()
    };
    assert!(matches!(serve_all(vec![Ok(request(Cluster, &[]))]).await, Ok(())));
    let broken = serve_all(vec![Err(Status::aborted("reset"))]).await;
    assert!(matches!(broken, Err(Ended::Broken(status)) if status.message() == "reset"));
    let rejected = serve_all(vec![Ok(request(Secret, &["*"]))]).await;
    assert!(matches!(rejected, Err(Ended::Rejected(Rejected::Wildcard(Secret)))));
}
