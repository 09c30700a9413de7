//! The law: an Envoy that answers everything ends up with what there is, and never holds something
//! that leads nowhere, however changes, answers, refusals and reconnects interleave.

use super::{
    Event, Session,
    tests::{Truth, answer, request},
};
use crate::snapshot::{
    Changes, Source,
    Type::{self, Cluster, Endpoint, Extension, Listener, Route, Runtime, Secret},
};
use delta::{Name, Nonce, Update};
use proptest::prelude::*;
use proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const SERVICES: usize = 4;
const BAD: &str = "bad";

/// What is there: services, each with a cluster, endpoints, a listener, and a route that may lead
/// to another service.
#[derive(Debug)]
struct World {
    truth: Truth,
    routes: BTreeMap<usize, usize>,
    version: usize,
}

#[derive(Clone, Debug)]
enum Change {
    /// A service comes or goes.
    Toggle(usize),
    /// A service's cluster and endpoints change.
    Cluster(usize, bool),
    Endpoint(usize),
    Listener(usize),
    /// The route of one leads to another.
    Route(usize, usize),
    Secret,
}

#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    /// The server takes what is marked; something changes; it sends.
    Send(Option<Change>),
    /// The server reads a request.
    Read,
    /// Envoy reads a response.
    Receive,
    Reconnect,
}

fn name(service: usize) -> String {
    format!("service-{service}")
}

impl World {
    fn apply(&mut self, change: &Change) {
        self.version += 1;
        let version = self.version.to_string();
        let there = |world: &Self, service: &usize| world.routes.contains_key(service);
        match change {
            Change::Toggle(service) if there(self, service) => self.remove(*service),
            Change::Toggle(service) => self.add(*service, &version),
            Change::Cluster(service, bad) if there(self, service) => {
                let content = if *bad { format!("{BAD}{version}") } else { version };
                self.truth.put(Cluster, &name(*service), &content);
            }
            Change::Endpoint(service) if there(self, service) => {
                self.truth.put(Endpoint, &name(*service), &version);
            }
            Change::Listener(service) if there(self, service) => {
                self.truth.put(Listener, &name(*service), &version);
            }
            Change::Route(from, to) if there(self, from) && there(self, to) => {
                self.routes.insert(*from, *to);
                self.truth.put(Route, &name(*from), &name(*to));
            }
            Change::Secret => self.truth.put(Secret, "secret", &version),
            Change::Cluster(..) | Change::Endpoint(_) | Change::Listener(_) | Change::Route(..) => {
            }
        }
    }

    fn add(&mut self, service: usize, version: &str) {
        self.routes.insert(service, service);
        let name = name(service);
        self.truth.change([
            (Route, &*name, Some(&*name)),
            (Listener, &*name, Some(version)),
            (Endpoint, &*name, Some(version)),
            (Cluster, &*name, Some(version)),
        ]);
    }

    fn remove(&mut self, service: usize) {
        self.routes.remove(&service);
        let gone = name(service);
        let mut batch: Vec<_> =
            [Cluster, Endpoint, Listener, Route].map(|kind| (kind, gone.clone(), None)).into();
        for (from, to) in &mut self.routes {
            if *to == service {
                *to = *from;
                batch.push((Route, name(*from), Some(name(*from))));
            }
        }
        let batch = batch.iter().map(|(kind, name, content)| (*kind, &**name, content.as_deref()));
        self.truth.change(batch);
    }

    /// Makes everything acceptable.
    fn mend(&mut self) {
        for service in self.routes.keys().copied().collect::<Vec<_>>() {
            self.apply(&Change::Cluster(service, false));
        }
    }
}

/// What Envoy holds and waits for.
#[derive(Debug, Default)]
struct Envoy {
    held: BTreeMap<Type, BTreeMap<Name, String>>,
    /// Clusters that wait for their endpoints, and the answer that waits with them.
    warming: BTreeSet<Name>,
    held_back: Option<DeltaDiscoveryRequest>,
    /// What it never had because it refused it.
    refused: BTreeSet<String>,
    to_server: VecDeque<DeltaDiscoveryRequest>,
}

impl Envoy {
    fn of(&mut self, kind: Type) -> &mut BTreeMap<Name, String> {
        self.held.entry(kind).or_default()
    }

    fn connect(&mut self) {
        self.to_server.clear();
        self.warming.clear();
        self.held_back = None;
        for kind in [Cluster, Endpoint, Secret, Listener, Route] {
            let held = self.of(kind).clone();
            let versions = held.iter().map(|(name, content)| {
                (name.to_string(), resource::Version::of(content.as_bytes()).to_string())
            });
            let mut wanted: BTreeSet<Name> = match kind {
                Endpoint => self.of(Cluster).keys().cloned().collect(),
                Route => self.of(Listener).keys().cloned().collect(),
                Secret => ["secret".into()].into(),
                Cluster | Listener | Extension | Runtime => BTreeSet::new(),
            };
            wanted.extend(held.keys().filter(|_| !kind.is_wildcard()).cloned());
            if kind.is_wildcard() || !wanted.is_empty() {
                let names: Vec<&str> =
                    wanted.iter().filter(|_| !kind.is_wildcard()).map(|name| &**name).collect();
                self.to_server.push_back(DeltaDiscoveryRequest {
                    initial_resource_versions: versions.collect(),
                    ..request(kind, &names)
                });
            }
        }
    }

    fn receive(&mut self, kind: Type, update: &Update) {
        let mut refused = false;
        for item in &*update.upserts {
            // Sent before the server knew that nobody asks for it any more.
            let asked_by = match kind {
                Endpoint => Some(Cluster),
                Route => Some(Listener),
                Cluster | Listener | Secret | Extension | Runtime => None,
            };
            if asked_by.is_some_and(|kind| !self.of(kind).contains_key(&item.name)) {
                continue;
            }
            let content = String::from_utf8(item.bytes.to_vec()).unwrap();
            if content.starts_with(BAD) {
                refused = true;
                self.refused.insert(item.name.to_string());
                continue;
            }
            let new = self.of(kind).insert(item.name.clone(), content).is_none();
            match kind {
                Cluster => {
                    self.refused.remove(&*item.name);
                    self.warming.insert(item.name.clone());
                    self.ask_if(new, Endpoint, &item.name);
                }
                Listener => self.ask_if(new, Route, &item.name),
                Endpoint | Route | Secret | Extension | Runtime => {}
            }
        }
        for name in &*update.removals {
            let was_there = self.of(kind).remove(name).is_some();
            match kind {
                Cluster => self.drop_if(was_there, Endpoint, name),
                Listener => self.drop_if(was_there, Route, name),
                Endpoint | Route | Secret | Extension | Runtime => {}
            }
            self.warming.remove(name);
        }
        if kind == Endpoint {
            self.warming.retain(|name| update.upserts.iter().all(|item| item.name != *name));
        }
        let answer = answer(kind, update.nonce, refused.then_some("bad"));
        if kind == Cluster {
            self.held_back = Some(answer);
        } else {
            self.to_server.push_back(answer);
        }
        if self.warming.is_empty() {
            self.to_server.extend(self.held_back.take());
        }
        self.check();
    }

    fn ask_if(&mut self, new: bool, kind: Type, name: &Name) {
        if new {
            self.to_server.push_back(request(kind, &[&**name]));
        }
    }

    fn drop_if(&mut self, was_there: bool, kind: Type, name: &Name) {
        if !was_there {
            return;
        }
        self.of(kind).remove(name);
        self.to_server.push_back(DeltaDiscoveryRequest {
            resource_names_unsubscribe: vec![name.to_string()],
            ..request(kind, &[])
        });
    }

    /// Every route leads to a cluster, unless that was refused.
    fn check(&mut self) {
        for (route, target) in self.of(Route).clone() {
            let leads = self.of(Cluster).contains_key(&*target) || self.refused.contains(&target);
            assert!(leads, "route {route} leads to {target}, which is not there");
        }
    }
}

struct Run {
    world: World,
    changes: Changes,
    session: Session,
    envoy: Envoy,
    to_envoy: VecDeque<(Type, Update)>,
}

impl Run {
    fn new() -> Self {
        let (truth, changes) = Truth::new();
        let world = World { truth, routes: BTreeMap::new(), version: 0 };
        let mut envoy = Envoy::default();
        envoy.connect();
        let (session, to_envoy) = (Session::default(), VecDeque::new());
        Self { world, changes, session, envoy, to_envoy }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Change(change) => self.world.apply(change),
            Step::Send(change) => drop(self.send(change.as_ref())),
            Step::Read => drop(self.read()),
            Step::Receive => drop(self.receive()),
            Step::Reconnect => {
                self.changes = self.world.truth.reopened();
                self.session = Session::default();
                self.to_envoy.clear();
                self.envoy.connect();
            }
        }
    }

    fn send(&mut self, change: Option<&Change>) -> Option<()> {
        self.session.mark(self.changes.take());
        if let Some(change) = change {
            self.world.apply(change);
        }
        let (_, event) = self.session.next(&self.world.truth, &self.changes)?;
        let Event::Sent { kind, update } = event else { panic!("{event:?} is not about a frame") };
        let unanswered = self.to_envoy.iter().any(|(other, _)| *other == kind);
        assert!(!unanswered, "two responses of type {kind:?} in flight");
        self.to_envoy.push_back((kind, update));
        Some(())
    }

    fn read(&mut self) -> Option<()> {
        let request = self.envoy.to_server.pop_front()?;
        self.session.request(request, &self.world.truth).unwrap();
        Some(())
    }

    fn receive(&mut self) -> Option<()> {
        let (kind, update) = self.to_envoy.pop_front()?;
        assert_ne!(update.nonce, Nonce(0));
        self.envoy.receive(kind, &update);
        Some(())
    }

    /// Goes on until nobody has anything to say.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            let moved = [self.send(None), self.receive(), self.read()];
            if moved.iter().all(Option::is_none) {
                return;
            }
        }
        panic!("it never ends: {:?}", self.to_envoy);
    }

    fn check(&mut self) {
        for kind in [Cluster, Endpoint, Listener, Route, Secret] {
            let there = self.world.truth.all(kind).into_iter();
            let there: BTreeMap<Name, String> = there
                .map(|(name, item)| (name, String::from_utf8(item.bytes.to_vec()).unwrap()))
                .collect();
            assert_eq!(*self.envoy.of(kind), there, "{kind:?}");
            assert_eq!(self.world.truth.names(kind).len(), there.len());
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let service = || 0..SERVICES;
    prop_oneof![
        3 => service().prop_map(Change::Toggle),
        2 => (service(), prop::bool::weighted(0.3))
            .prop_map(|(service, bad)| Change::Cluster(service, bad)),
        1 => service().prop_map(Change::Endpoint),
        1 => service().prop_map(Change::Listener),
        2 => (service(), service()).prop_map(|(from, to)| Change::Route(from, to)),
        1 => Just(Change::Secret),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => change().prop_map(Step::Change),
        6 => prop::option::weighted(0.2, change()).prop_map(Step::Send),
        6 => Just(Step::Read),
        6 => Just(Step::Receive),
        1 => Just(Step::Reconnect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn an_envoy_that_answers_everything_ends_up_with_what_there_is(
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut run = Run::new();
        steps.iter().for_each(|step| run.step(step));
        run.settle();
        run.world.mend();
        run.settle();
        run.check();
    }
}
