//! What proxies get to call their destinations with.
//!
//! Proxies that say the same about whom they call, under the same policies and by the same credentials,
//! form a group and are treated as one. A mesh without restrictions is one group, so ten thousand
//! proxies that may call a thousand services are a thousand calls, not ten million.

use super::{
    calls::Calls,
    direct::{Turn, Way, Ways},
    drafts::{Draft, facts},
    marks::{Marks, ProxyId},
    services::{Changed, Entry, Services},
};
use crate::generate::Credentials;
use delta::Name;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};
use xds::{
    Type, names,
    policy::{self, Applied},
};

/// Kind and name of a policy.
pub(super) type PolicyId = (&'static str, Name);

/// What proxies have in common that get the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// By which they call.
    pub(super) credentials: Credentials,
    pub(super) calls: Arc<Calls>,
    /// Those that select them and say something about outgoing traffic.
    pub(super) policies: BTreeSet<PolicyId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupId(u32);

/// A destination, as a group calls it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) entry: Arc<Entry>,
    /// Where applications reach it.
    pub(super) binds: Arc<BTreeSet<SocketAddr>>,
    /// The kernel hands connections to there over.
    pub(super) redirected: bool,
    pub(super) draft: Arc<Draft>,
}

#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) key: Key,
    policies: Vec<Arc<Applied>>,
    members: BTreeSet<ProxyId>,
    /// Where the members listen for what they name.
    explicit: BTreeMap<Name, BTreeSet<SocketAddr>>,
    pub(super) calls: BTreeMap<Name, Call>,
    /// What the members call at the addresses of replicas.
    pub(super) ways: Ways,
}

/// All groups of a mesh.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<GroupId, Group>,
    by_key: BTreeMap<Key, GroupId>,
    callers: BTreeMap<Name, BTreeSet<GroupId>>,
    /// Those that have a way to a destination.
    direct: BTreeMap<Name, BTreeSet<GroupId>>,
    last: u32,
}

impl Call {
    fn is_http(&self) -> bool {
        self.entry.destination.protocol.is_http()
    }

    pub(super) fn has_listener(&self) -> bool {
        !self.binds.is_empty()
    }

    pub(super) fn has_route(&self) -> bool {
        self.is_http()
    }

    /// The types of which a proxy gets something else when one call becomes the other.
    fn difference(before: Option<&Self>, now: Option<&Self>) -> Vec<Type> {
        let (Some(one), Some(two)) = (before, now) else {
            let Some(call) = before.or(now) else { return Vec::new() };
            let listener = call.has_listener().then_some(Type::Listener);
            let route = call.has_route().then_some(Type::Route);
            let always = [Type::Cluster, Type::Endpoint];
            return always.into_iter().chain(listener).chain(route).collect();
        };
        // What is spoken decides only whether requests are seen: proxies speak HTTP/2 to each other.
        let seen = one.is_http() != two.is_http();
        let answers = |call: &Self| call.entry.destination.identities.clone();
        let cluster =
            seen || answers(one) != answers(two) || one.draft.cluster != two.draft.cluster;
        let at = |call: &Self| (call.binds.clone(), call.redirected);
        let listener = seen || at(one) != at(two) || one.draft.listener != two.draft.listener;
        let route = seen || one.has_route() && one.draft.route != two.draft.route;
        let changed = [
            cluster.then_some(Type::Cluster),
            (listener && (one.has_listener() || two.has_listener())).then_some(Type::Listener),
            route.then_some(Type::Route),
        ];
        changed.into_iter().flatten().collect()
    }
}

impl Group {
    fn draft(&self, entry: &Entry) -> Arc<Draft> {
        Arc::new(Draft::of(&self.policies, entry))
    }

    /// How the members call a destination, if they do.
    fn call(&self, name: &Name, entry: Option<&Arc<Entry>>) -> Option<Call> {
        let entry = entry.filter(|entry| entry.is_callable())?;
        let reached = self.key.calls.reaches(entry);
        let binds = match self.explicit.get(name) {
            None if !reached => return None,
            None => entry.vips.clone(),
            Some(binds) if !reached => Arc::new(binds.clone()),
            Some(binds) => Arc::new(binds.union(&entry.vips).copied().collect()),
        };
        let redirected = self.key.calls.redirected;
        Some(Call { entry: entry.clone(), binds, redirected, draft: self.draft(entry) })
    }

    /// How the members call the replicas of a destination, if they do.
    fn way(&self, name: &Name, services: &Services) -> Option<Way> {
        let entry = services.destination(name).filter(|entry| entry.is_callable())?;
        let meant = self.key.calls.direct.is_to(&entry.service);
        meant.then(|| Way::new(name, entry, self.draft(entry), services.hosts(name).clone()))
    }

    /// Puts a call in place of another one, or of none.
    fn set_call(&mut self, name: &Name, now: Option<Call>, marks: &mut Marks) {
        let nowhere = Arc::default();
        let binds = |call: Option<&Call>| call.map_or(&nowhere, |call| &call.binds).clone();
        let (before, after) = (binds(self.calls.get(name)), binds(now.as_ref()));
        match now {
            Some(call) => drop(self.calls.insert(name.clone(), call)),
            None => drop(self.calls.remove(name)),
        }
        // Only who has ways cares.
        if before != after && !self.key.calls.direct.is_empty() {
            let listeners = self.ways.take(name, &before, &after);
            self.mark_listeners(&listeners, marks);
        }
    }

    /// Puts a way in place of another one, or of none. Returns whether somebody gets something else.
    fn set_way(&mut self, name: &Name, now: Option<Way>, marks: &mut Marks) -> bool {
        let before = self.ways.get(name).map(|(_, way)| way);
        let Some(way) = now.as_ref().or(before).map(|way| way.name.clone()) else { return false };
        let Turn { kinds, listeners } = self.ways.set(name, now);
        kinds.iter().for_each(|kind| self.mark_all(*kind, &way, marks));
        self.mark_listeners(&listeners, marks);
        !kinds.is_empty() || !listeners.is_empty()
    }

    fn mark_listeners(&self, addresses: &BTreeSet<SocketAddr>, marks: &mut Marks) {
        for address in addresses {
            let name = names::direct_listener(*address).into();
            self.members.iter().for_each(|proxy| marks.mark_at(*proxy, address, &name));
        }
    }

    fn mark_all(&self, kind: Type, name: &Name, marks: &mut Marks) {
        self.members.iter().for_each(|proxy| marks.mark(*proxy, kind, name));
    }
}

impl Groups {
    /// The group of proxies with that in common, with a new member.
    pub(super) fn join(
        &mut self,
        proxy: ProxyId,
        key: Key,
        policies: impl FnOnce() -> Vec<Arc<Applied>>,
        services: &Services,
    ) -> GroupId {
        let id = match self.by_key.get(&key) {
            Some(id) => *id,
            None => {
                let explicit = services.resolve(&key.calls.explicit);
                let (members, calls) = (BTreeSet::new(), BTreeMap::new());
                let ways = Ways::default();
                let group = Group { key, policies: policies(), members, explicit, calls, ways };
                self.found(group, services)
            }
        };
        if let Some(group) = self.groups.get_mut(&id) {
            group.members.insert(proxy);
        }
        id
    }

    fn found(&mut self, mut group: Group, services: &Services) -> GroupId {
        let all = services.destinations();
        let calls =
            all.filter_map(|(name, entry)| Some((name.clone(), group.call(name, Some(entry))?)));
        group.calls = calls.collect();
        if !group.key.calls.direct.is_empty() {
            for (name, call) in &group.calls {
                group.ways.take(name, &BTreeSet::new(), &call.binds);
            }
            for (name, _) in services.destinations() {
                let way = group.way(name, services);
                group.ways.set(name, way);
            }
        }
        let key = group.key.clone();
        let id = self.add(group);
        self.by_key.insert(key, id);
        id
    }

    fn add(&mut self, group: Group) -> GroupId {
        self.last += 1;
        let id = GroupId(self.last);
        for name in group.calls.keys() {
            self.callers.entry(name.clone()).or_default().insert(id);
        }
        for (name, _) in group.ways.iter() {
            self.direct.entry(name.clone()).or_default().insert(id);
        }
        self.groups.insert(id, group);
        id
    }

    /// A proxy is not of that group any more. One without members is forgotten.
    pub(super) fn leave(&mut self, proxy: ProxyId, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.members.remove(&proxy);
        if group.members.is_empty() {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: GroupId) {
        let Some(group) = self.groups.remove(&id) else { return };
        if self.by_key.get(&group.key) == Some(&id) {
            self.by_key.remove(&group.key);
        }
        for name in group.calls.keys() {
            forget(&mut self.callers, name, id);
        }
        for (name, _) in group.ways.iter() {
            forget(&mut self.direct, name, id);
        }
    }

    pub(super) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    /// Marks what changes for a proxy that comes from one group into another.
    pub(super) fn mark_move(
        &self,
        proxy: ProxyId,
        from: Option<GroupId>,
        to: Option<GroupId>,
        marks: &mut Marks,
    ) {
        if from == to {
            return;
        }
        let group = |id: Option<GroupId>| id.and_then(|id| self.groups.get(&id));
        let (nothing, no_ways) = (BTreeMap::new(), Ways::default());
        let credentials = |id| group(id).map(|group| &group.key.credentials);
        let same_credentials = credentials(from) == credentials(to);
        let ways = |id| group(id).map_or(&no_ways, |group| &group.ways);
        ways(from).mark_turn(ways(to), proxy, same_credentials, marks);
        let calls = |id| group(id).map_or(&nothing, |group| &group.calls);
        let (from, to) = (calls(from), calls(to));
        let names: BTreeSet<&Name> = from.keys().chain(to.keys()).collect();
        for name in names {
            for kind in Call::difference(from.get(name), to.get(name)) {
                marks.mark(proxy, kind, name);
            }
            if !same_credentials {
                marks.mark(proxy, Type::Cluster, name);
            }
        }
    }

    /// The members of the groups that call a destination.
    pub(super) fn callers(&self, name: &str) -> impl Iterator<Item = ProxyId> {
        let groups = self.callers.get(name).into_iter().flatten();
        groups.filter_map(|id| self.groups.get(id)).flat_map(|group| group.members.iter().copied())
    }

    /// A service changed, and its destinations as in `changed`.
    pub(super) fn service_changed(
        &mut self,
        services: &Services,
        touches: impl Fn(&Calls) -> bool,
        changed: &[Changed],
        marks: &mut Marks,
    ) {
        for (id, group) in &mut self.groups {
            let mut names: BTreeSet<Name> = changed.iter().map(|it| it.name.clone()).collect();
            if touches(&group.key.calls) {
                let explicit = services.resolve(&group.key.calls.explicit);
                let all = explicit.keys().chain(group.explicit.keys());
                names.extend(
                    all.filter(|name| explicit.get(*name) != group.explicit.get(*name)).cloned(),
                );
                group.explicit = explicit;
            }
            for name in names {
                let now = group.call(&name, services.destination(&name));
                for kind in Call::difference(group.calls.get(&name), now.as_ref()) {
                    group.mark_all(kind, &name, marks);
                }
                index(&mut self.callers, &name, *id, now.is_some());
                group.set_call(&name, now, marks);
            }
            for Changed { name, .. } in changed {
                let way = group.way(name, services);
                index(&mut self.direct, name, *id, way.is_some());
                group.set_way(name, way, marks);
            }
        }
    }

    /// The replicas of a destination are somewhere else.
    pub(super) fn placed(&mut self, name: &Name, services: &Services, marks: &mut Marks) {
        for id in self.direct.get(name).into_iter().flatten() {
            let Some(group) = self.groups.get_mut(id) else { continue };
            let way = group.ways.get(name).map(|(_, way)| way.at(services.hosts(name)));
            group.set_way(name, way, marks);
        }
    }

    /// A policy says something else, appeared or is gone. Returns where its proxies are now, and the
    /// destinations whose drafts changed.
    pub(super) fn policy_changed(
        &mut self,
        policy: &Replaced<'_>,
        selects: impl Fn(&Applied, ProxyId) -> bool,
        marks: &mut Marks,
    ) -> PolicyEffect {
        let mut effect = PolicyEffect::default();
        let new = policy.new.filter(|new| new.is_outbound());
        let policy = Replaced { old: policy.old.filter(|old| old.is_outbound()), new, ..*policy };
        if policy.old.is_none() && new.is_none() {
            return effect;
        }
        let nobody = Replaced { new: None, ..policy };
        let mut revised = Vec::new();
        for id in self.groups.keys().copied().collect::<Vec<_>>() {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let members = group.members.iter().copied();
            let selected: BTreeSet<ProxyId> =
                members.filter(|proxy| new.is_some_and(|new| selects(new, *proxy))).collect();
            if selected.is_empty() && !group.key.policies.contains(policy.id) {
                continue;
            }
            revised.push((id, group.key.clone()));
            if selected.is_empty() {
                self.revise(id, &nobody, &mut effect, marks);
            } else if selected.len() == group.members.len() {
                self.revise(id, &policy, &mut effect, marks);
            } else {
                // From now on they are two groups.
                group.members = group.members.difference(&selected).copied().collect();
                let (key, other) =
                    (group.key.clone(), Group { members: selected, ..group.clone() });
                let other = self.add(other);
                revised.push((other, key));
                self.revise(id, &nobody, &mut effect, marks);
                self.revise(other, &policy, &mut effect, marks);
            }
        }
        self.unite(&revised, &mut effect);
        effect
    }

    /// Replaces one policy of a whole group.
    fn revise(
        &mut self,
        group_id: GroupId,
        Replaced { id, old, new }: &Replaced<'_>,
        effect: &mut PolicyEffect,
        marks: &mut Marks,
    ) {
        let Some(group) = self.groups.get_mut(&group_id) else { return };
        let had = group.key.policies.contains(id);
        group.policies.retain(|policy| old.is_none_or(|old| !Arc::ptr_eq(policy, old)));
        group.policies.extend(new.cloned());
        policy::sort(&mut group.policies);
        match new {
            Some(_) => drop(group.key.policies.insert((*id).clone())),
            None => drop(group.key.policies.remove(id)),
        }
        let old = old.filter(|_| had);
        let concerned =
            |entry: &Entry| [old, *new].into_iter().flatten().any(|it| it.concerns(&facts(entry)));
        let ways = group.ways.iter().filter(|(_, way)| concerned(&way.entry));
        for (name, way) in ways.map(|(name, way)| (name.clone(), way.clone())).collect::<Vec<_>>() {
            let now = Way { draft: group.draft(&way.entry), ..way };
            if group.set_way(&name, Some(now), marks) {
                effect.reshaped.insert(name);
            }
        }
        let names = group.calls.iter().filter(|(_, call)| concerned(&call.entry));
        for name in names.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            let Some(call) = group.calls.get(&name) else { continue };
            let now = Call { draft: group.draft(&call.entry), ..call.clone() };
            let kinds = Call::difference(Some(call), Some(&now));
            if !kinds.is_empty() {
                kinds.into_iter().for_each(|kind| group.mark_all(kind, &name, marks));
                effect.reshaped.insert(name.clone());
                group.calls.insert(name, now);
            }
        }
    }

    /// Groups that have everything in common now, and so get the same, become one. All of them were
    /// revised before: `revised` are they, and what they had in common.
    fn unite(&mut self, revised: &[(GroupId, Key)], effect: &mut PolicyEffect) {
        for (id, before) in revised {
            if self.by_key.get(before) == Some(id) {
                self.by_key.remove(before);
            }
        }
        for (id, _) in revised {
            let Some(group) = self.groups.get(id) else { continue };
            let members = group.members.clone();
            let home = *self.by_key.entry(group.key.clone()).or_insert(*id);
            if home != *id {
                self.remove(*id);
                if let Some(group) = self.groups.get_mut(&home) {
                    group.members.extend(members.iter().copied());
                }
            }
            effect.moved.extend(members.into_iter().map(|proxy| (proxy, home)));
        }
    }
}

/// A policy, as it was and as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replaced<'a> {
    pub(super) id: &'a PolicyId,
    pub(super) old: Option<&'a Arc<Applied>>,
    pub(super) new: Option<&'a Arc<Applied>>,
}

/// What a change of a policy did to groups.
#[derive(Debug, Default)]
pub(super) struct PolicyEffect {
    /// Where proxies are now.
    pub(super) moved: Vec<(ProxyId, GroupId)>,
    /// Destinations whose drafts changed.
    pub(super) reshaped: BTreeSet<Name>,
}

/// Whether a group is among those of a destination.
fn index(groups: &mut BTreeMap<Name, BTreeSet<GroupId>>, name: &Name, id: GroupId, is: bool) {
    if is {
        groups.entry(name.clone()).or_default().insert(id);
    } else {
        forget(groups, name, id);
    }
}

fn forget(callers: &mut BTreeMap<Name, BTreeSet<GroupId>>, name: &str, id: GroupId) {
    if let Some(groups) = callers.get_mut(name) {
        groups.remove(&id);
        if groups.is_empty() {
            callers.remove(name);
        }
    }
}
