//! Replicas that proxies call at their own addresses, since applications learn these by themselves.
//!
//! For each port of a service one cluster leads to whichever replica was chosen, and for each replica
//! one listener takes the connections to its address. So a replica that comes or goes is a listener
//! more or less, and nothing else.

use super::{
    drafts::Draft,
    marks::{Marks, ProxyId},
    mesh::Mesh,
    replicas::{DIRECT, Replica},
    services::{Entry, Service},
};
use delta::Name;
use resource::Version;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use xds::{Type, names};

/// How proxies call the replicas of one destination.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// Of its cluster and route.
    pub(super) name: Name,
    pub(super) entry: Arc<Entry>,
    pub(super) draft: Arc<Draft>,
    /// Where the replicas are.
    pub(super) hosts: Arc<BTreeSet<SocketAddr>>,
}

/// What the listener of a replica follows from.
pub(super) type Aim = (Name, bool, Version);

/// How proxies call the replicas of all destinations that they call so.
#[derive(Clone, Debug, Default)]
pub(super) struct Ways {
    ways: BTreeMap<Name, Way>,
    at: BTreeMap<SocketAddr, Place>,
    /// Addresses at which calls have listeners: those of pods behind headless Services.
    taken: BTreeMap<SocketAddr, BTreeSet<Name>>,
}

/// An address of a replica.
#[derive(Clone, Debug)]
struct Place {
    /// Of its listener.
    name: Name,
    /// Of several destinations the first one counts.
    destinations: BTreeSet<Name>,
}

/// What became of the way to a destination.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// The types of what has the name of the way.
    pub(super) kinds: Vec<Type>,
    /// Addresses at which another listener is, or none any more.
    pub(super) listeners: BTreeSet<SocketAddr>,
}

impl Way {
    pub(super) fn new(
        destination: &Name,
        entry: &Arc<Entry>,
        draft: Arc<Draft>,
        hosts: Arc<BTreeSet<SocketAddr>>,
    ) -> Self {
        Self { name: names::direct(destination).into(), entry: entry.clone(), draft, hosts }
    }

    /// The same, to replicas that are somewhere else.
    pub(super) fn at(&self, hosts: &Arc<BTreeSet<SocketAddr>>) -> Self {
        Self { hosts: hosts.clone(), ..self.clone() }
    }

    pub(super) fn is_http(&self) -> bool {
        self.entry.destination.protocol.is_http()
    }

    /// What its listeners have in common.
    fn shape(&self) -> (bool, Version) {
        (self.is_http(), self.draft.listener)
    }

    /// The types of which a proxy gets something else under the name of the way.
    pub(super) fn difference(before: Option<&Self>, now: Option<&Self>) -> Vec<Type> {
        let (Some(one), Some(two)) = (before, now) else {
            let Some(way) = before.or(now) else { return Vec::new() };
            return [Type::Cluster]
                .into_iter()
                .chain(way.is_http().then_some(Type::Route))
                .collect();
        };
        let seen = one.is_http() != two.is_http();
        let answers = |way: &Self| way.entry.destination.identities.clone();
        let cluster =
            seen || answers(one) != answers(two) || one.draft.cluster != two.draft.cluster;
        let route = seen || one.is_http() && one.draft.route != two.draft.route;
        let changed = [cluster.then_some(Type::Cluster), route.then_some(Type::Route)];
        changed.into_iter().flatten().collect()
    }
}

impl Ways {
    pub(super) fn get(&self, destination: &str) -> Option<(&Name, &Way)> {
        self.ways.get_key_value(destination)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, &Way)> {
        self.ways.iter()
    }

    /// Where the listener of an address leads, if it has one.
    pub(super) fn at(&self, address: &SocketAddr) -> Option<(&Name, &Way)> {
        let place = self.at.get(address).filter(|_| !self.taken.contains_key(address))?;
        self.get(place.destinations.first()?)
    }

    /// Every listener, by its address.
    pub(super) fn listeners(&self) -> impl Iterator<Item = (&SocketAddr, &Name)> {
        let free = self.at.iter().filter(|(address, _)| !self.taken.contains_key(*address));
        free.map(|(address, place)| (address, &place.name))
    }

    fn aim(&self, address: &SocketAddr) -> Option<Aim> {
        let (name, way) = self.at(address)?;
        let (is_http, version) = way.shape();
        Some((name.clone(), is_http, version))
    }

    /// The listeners at `ip`.
    fn within(&self, ip: IpAddr) -> impl Iterator<Item = (SocketAddr, Aim)> {
        let ports = SocketAddr::new(ip, 0)..=SocketAddr::new(ip, u16::MAX);
        let places = self.at.range(ports).map(|(address, _)| *address);
        places.filter_map(|address| Some((address, self.aim(&address)?)))
    }

    /// Marks what changes for a proxy when these ways become others, and so perhaps its credentials.
    pub(super) fn mark_turn(
        &self,
        now: &Self,
        proxy: ProxyId,
        same_credentials: bool,
        marks: &mut Marks,
    ) {
        let names: BTreeSet<&Name> = self.ways.keys().chain(now.ways.keys()).collect();
        for name in names {
            let (one, two) = (self.ways.get(name), now.ways.get(name));
            let Some(way) = one.or(two) else { continue };
            let other = (!same_credentials).then_some(Type::Cluster);
            for kind in Way::difference(one, two).into_iter().chain(other) {
                marks.mark(proxy, kind, &way.name);
            }
        }
        let addresses: BTreeSet<&SocketAddr> = self.at.keys().chain(now.at.keys()).collect();
        for address in addresses.into_iter().filter(|it| self.aim(it) != now.aim(it)) {
            marks.mark_at(proxy, address, &names::direct_listener(*address).into());
        }
    }

    /// The way to a destination is this now, or there is none any more.
    pub(super) fn set(&mut self, destination: &Name, now: Option<Way>) -> Turn {
        let nowhere = Arc::default();
        let before = self.ways.get(destination).cloned();
        let hosts = |way: &Option<Way>| way.as_ref().map_or(&nowhere, |way| &way.hosts).clone();
        let (old, new) = (hosts(&before), hosts(&now));
        let same = before.as_ref().map(Way::shape) == now.as_ref().map(Way::shape);
        let concerned = if same { &*old ^ &*new } else { &*old | &*new };
        let kinds = Way::difference(before.as_ref(), now.as_ref());
        let listeners = self.around(concerned, |ways| {
            old.difference(&new).for_each(|address| ways.leave(destination, address));
            new.difference(&old).for_each(|address| ways.come(destination, address));
            match now {
                Some(now) => drop(ways.ways.insert(destination.clone(), now)),
                None => drop(ways.ways.remove(destination)),
            }
        });
        Turn { kinds, listeners }
    }

    /// Calls of a destination have listeners at other addresses. Returns where there is another one
    /// of a replica.
    pub(super) fn take(
        &mut self,
        destination: &Name,
        before: &BTreeSet<SocketAddr>,
        now: &BTreeSet<SocketAddr>,
    ) -> BTreeSet<SocketAddr> {
        self.around(before ^ now, |ways| {
            for address in before.difference(now) {
                if let Some(names) = ways.taken.get_mut(address) {
                    names.remove(destination);
                    if names.is_empty() {
                        ways.taken.remove(address);
                    }
                }
            }
            for address in now.difference(before) {
                ways.taken.entry(*address).or_default().insert(destination.clone());
            }
        })
    }

    /// Of `addresses` those at which another listener is after `change`.
    fn around(
        &mut self,
        addresses: BTreeSet<SocketAddr>,
        change: impl FnOnce(&mut Self),
    ) -> BTreeSet<SocketAddr> {
        let aims = addresses.into_iter().map(|address| (address, self.aim(&address)));
        let before: Vec<_> = aims.collect();
        change(self);
        let changed = before.into_iter().filter(|(address, aim)| self.aim(address) != *aim);
        changed.map(|(address, _)| address).collect()
    }

    fn come(&mut self, destination: &Name, address: &SocketAddr) {
        let place = || Place {
            name: names::direct_listener(*address).into(),
            destinations: BTreeSet::new(),
        };
        let place = self.at.entry(*address).or_insert_with(place);
        place.destinations.insert(destination.clone());
    }

    fn leave(&mut self, destination: &Name, address: &SocketAddr) {
        if let Some(place) = self.at.get_mut(address) {
            place.destinations.remove(destination);
            if place.destinations.is_empty() {
                self.at.remove(address);
            }
        }
    }
}

/// A proxy whose own addresses change.
pub(super) struct Moving {
    id: ProxyId,
    now: BTreeSet<IpAddr>,
    /// What it had before at those that it has now or had.
    had: BTreeMap<SocketAddr, Aim>,
}

impl Mesh {
    /// A proxy is called at the addresses `now` itself, and so has no listener for others there.
    /// Meanwhile nothing is marked about its addresses: [`moved`](Self::moved) does.
    pub(super) fn moving(&mut self, id: ProxyId, now: BTreeSet<IpAddr>) -> Moving {
        let all = self.marks.own(id) | &now;
        let had = self.listening(id, &all);
        self.marks.set_own(id, all);
        Moving { id, now, had }
    }

    /// Everything that follows from its Dataplane is done.
    pub(super) fn moved(&mut self, Moving { id, now, had }: Moving) {
        let all = self.marks.own(id).clone();
        self.marks.set_own(id, now);
        let has = self.listening(id, &all);
        let addresses: BTreeSet<&SocketAddr> = had.keys().chain(has.keys()).collect();
        for address in addresses.into_iter().filter(|it| had.get(*it) != has.get(*it)) {
            self.marks.mark(id, Type::Listener, &names::direct_listener(*address).into());
        }
    }

    /// The listeners of a proxy for replicas at some addresses.
    fn listening(&self, id: ProxyId, at: &BTreeSet<IpAddr>) -> BTreeMap<SocketAddr, Aim> {
        let group = self.proxies.get(&id).and_then(|proxy| self.groups.get(proxy.group?));
        let Some(group) = group else { return BTreeMap::new() };
        let others = at.difference(self.marks.own(id));
        others.flat_map(|ip| group.ways.within(*ip)).collect()
    }

    /// The replicas of a destination are here now.
    pub(super) fn place(&mut self, destination: &Name, hosts: BTreeSet<SocketAddr>) {
        let gone = &**self.services.hosts(destination) - &hosts;
        if self.services.place(destination, hosts) {
            self.results.left(destination, &gone);
            self.groups.placed(destination, &self.services, &mut self.marks);
        }
    }

    // Names that are nobody's.

    /// A Dataplane calls other services by their names now.
    pub(super) fn asks(&mut self, name: &Name, old: Option<&Replica>, new: Option<&Replica>) {
        let names = |replica: Option<&Replica>| replica.and_then(|it| it.direct.names().cloned());
        for asked in names(old).into_iter().flatten() {
            if let Some(dataplanes) = self.asking.get_mut(&asked) {
                dataplanes.remove(name);
                if dataplanes.is_empty() {
                    self.asking.remove(&asked);
                }
            }
        }
        for asked in names(new).into_iter().flatten() {
            self.asking.entry(asked).or_default().insert(name.clone());
        }
        self.doubted.insert(name.clone());
    }

    /// Services have other names now.
    pub(super) fn renamed(&mut self, old: Option<&Service>, new: Option<&Service>) {
        let none = BTreeSet::new();
        let called = |service: Option<&Service>| service.map_or(&none, |it| &it.called).clone();
        let names = &called(old) ^ &called(new);
        let asking = names.iter().filter_map(|name| self.asking.get(name));
        self.doubted.extend(asking.flatten().cloned());
    }

    /// Says which of the services that Dataplanes name are not there.
    pub(super) fn complain(&mut self) {
        for name in std::mem::take(&mut self.doubted) {
            let names = self.replicas.get(&name).and_then(|replica| replica.direct.names());
            let absent = names.into_iter().flatten().filter(|it| !self.services.is_called(it));
            let absent: Vec<String> = absent.map(|name| format!("{name:?}")).collect();
            let list = absent.join(" or ");
            let text = format!("{DIRECT}: no service of this zone is called {list}");
            self.problem(DIRECT, &name, (!absent.is_empty()).then_some(text));
        }
    }
}
