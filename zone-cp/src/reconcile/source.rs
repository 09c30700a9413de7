//! What one proxy gets: looked up in the tables when its stream asks, generated for the first that
//! does.

use super::{
    direct::Way,
    groups::{Call, Group},
    marks::ProxyId,
    mesh::Mesh,
    proxies::{Connected, Open},
    results::Results,
};
use crate::generate::{self, Outbound, Part};
use delta::{Item, Name};
use std::collections::BTreeSet;
use xds::{
    Type, item,
    names::{self, Sni},
};

impl Mesh {
    /// What the proxy gets under that name.
    pub(super) fn get(&mut self, id: ProxyId, kind: Type, name: &str) -> Option<Item> {
        let name = Name::from(name);
        self.called(id, kind, &name)
            .or_else(|| self.directed(id, kind, &name))
            .or_else(|| self.served(id, kind, &name))
            .or_else(|| self.exposed(id, kind, &name))
            .or_else(|| self.redirected(id, kind, &name))
            .or_else(|| self.own(id, kind, &name))
    }

    fn group(&self, proxy: &Connected) -> Option<&Group> {
        proxy.group.and_then(|group| self.groups.get(group))
    }

    /// What it calls others with.
    fn called(&mut self, id: ProxyId, kind: Type, name: &Name) -> Option<Item> {
        let proxy = self.proxies.get(&id)?;
        let group = self.groups.get(proxy.group?)?;
        let call = group.calls.get(name)?;
        let results = &mut self.results;
        match kind {
            Type::Cluster => {
                let credentials = &group.key.credentials;
                let inputs = (call.draft.cluster, credentials.clone());
                let (destination, draft) = (&call.entry.destination, &call.draft.draft.cluster);
                Some(results.clusters.get(name, inputs, || {
                    item(kind, name, &generate::cluster(destination, credentials, draft))
                }))
            }
            Type::Endpoint => self.assignment(name),
            Type::Listener => {
                let listener =
                    || generate::outbound_listener(&outbound(call), &call.draft.draft.listener);
                let inputs = (call.draft.listener, call.binds.clone(), call.redirected);
                proxy.listens(call).then(|| {
                    let make = || item(kind, name, &listener().expect("it is bound somewhere"));
                    results.listeners.get(name, inputs, make)
                })
            }
            Type::Route => {
                let route = || generate::outbound_route(&outbound(call), &call.draft.draft);
                call.has_route().then(|| {
                    let make = || item(kind, name, &route().expect("its requests are seen"));
                    results.routes.get(name, call.draft.route, make)
                })
            }
            Type::Secret | Type::Extension | Type::Runtime => None,
        }
    }

    /// What it calls replicas with that its application chose.
    fn directed(&mut self, id: ProxyId, kind: Type, name: &Name) -> Option<Item> {
        let directed = names::directed(name)?;
        let proxy = self.proxies.get(&id)?;
        let group = self.groups.get(proxy.group?)?;
        let results = &mut self.results;
        match kind {
            Type::Cluster => {
                let (destination, Way { entry, draft, .. }) = group.ways.get(directed)?;
                let credentials = &group.key.credentials;
                let inputs = (draft.cluster, credentials.clone());
                let (called, shape) = (&entry.destination, &draft.draft.cluster);
                let cluster = || generate::direct_cluster(called, credentials, shape);
                let make = || item(kind, name, &cluster());
                Some(results.direct_clusters.get(destination, inputs, make))
            }
            Type::Listener => {
                let at = directed.parse().ok()?;
                let (destination, Way { entry, draft, .. }) = group.ways.at(&at)?;
                let (called, shape) = (&entry.destination, &draft.draft.listener);
                let make = || item(kind, name, &generate::direct_listener(called, at, shape));
                let others = !self.marks.own(id).contains(&at.ip());
                let inputs = (at, draft.listener);
                others.then(|| results.direct_listeners.get(destination, inputs, make))
            }
            Type::Route => {
                let (destination, way) = group.ways.get(directed)?;
                let (called, draft) = (&way.entry.destination, &way.draft);
                let route = || generate::direct_route(called, &draft.draft);
                way.is_http().then(|| {
                    let make = || item(kind, name, &route().expect("its requests are seen"));
                    results.direct_routes.get(destination, draft.route, make)
                })
            }
            Type::Endpoint | Type::Secret | Type::Extension | Type::Runtime => None,
        }
    }

    /// Where a destination is, the same for everybody.
    fn assignment(&mut self, name: &Name) -> Option<Item> {
        let nowhere = BTreeSet::new();
        let endpoints = self.endpoints.get(name).unwrap_or(&nowhere);
        Some(self.results.assignments.get(name, (), || {
            item(Type::Endpoint, name, &generate::load_assignment(name, endpoints))
        }))
    }

    /// What it serves its application's callers with.
    fn served(&mut self, id: ProxyId, kind: Type, name: &Name) -> Option<Item> {
        let proxy = self.proxies.get(&id)?;
        let credentials = proxy.credentials()?;
        let Open { inbound, draft, tcp } =
            proxy.inbounds.get(name).filter(|open| open.is_ready())?;
        let made = match kind {
            Type::Cluster => item(kind, name, &generate::inbound_cluster(inbound, &draft.cluster)),
            Type::Listener => {
                let (shape, tcp) = (&draft.listener, tcp.as_ref());
                item(kind, name, &generate::inbound_listener(inbound, &credentials, shape, tcp))
            }
            Type::Route => item(kind, name, &generate::inbound_route(inbound, draft)?),
            Type::Secret => {
                let tcp = tcp.as_ref().filter(|_| proxy.takes_secrets())?;
                item(kind, name, &generate::inbound_secret(inbound, tcp, &self.trust)?)
            }
            Type::Extension => {
                item(kind, name, &generate::inbound_permissions(inbound, tcp.as_ref()?))
            }
            Type::Endpoint | Type::Runtime => return None,
        };
        self.results.made_for_one += 1;
        Some(made)
    }

    /// What it lets other zones in with.
    fn exposed(&mut self, id: ProxyId, kind: Type, name: &Name) -> Option<Item> {
        let proxy = self.proxies.get(&id)?;
        if !proxy.is_ingress() {
            return None;
        }
        match kind {
            Type::Cluster => {
                let (destination, entry) = self.services.exposed_as(name)?;
                let service = entry.exposed.as_ref()?;
                let make = || item(kind, name, &generate::ingress_cluster(service));
                Some(self.results.exposed.get(destination, (), make))
            }
            Type::Endpoint => {
                self.services.destination(name)?.exposed.as_ref()?;
                self.assignment(name)
            }
            Type::Listener => {
                let (listener, draft) = proxy.ingresses.get(name)?;
                self.results.made_for_one += 1;
                Some(item(kind, name, &generate::ingress_listener(listener, draft)))
            }
            Type::Route | Type::Secret | Type::Extension | Type::Runtime => None,
        }
    }

    /// What it handles the connections with that the kernel redirects.
    fn redirected(&mut self, id: ProxyId, kind: Type, name: &Name) -> Option<Item> {
        let part = self.proxies.get(&id)?.redirected.get(&(kind, name.clone()))?;
        let make = || match part {
            Part::Outbound(it) => item(kind, name, &generate::leaving_listener(name, it)),
            Part::Inbound(it) => item(kind, name, &generate::arriving_listener(name, it)),
            Part::Cluster(it) => item(kind, name, &generate::outside_cluster(name, it)),
            Part::Route(it) => item(kind, name, &generate::outside_route(name, it)),
        };
        Some(self.results.redirected.get(name, part.clone(), make))
    }

    /// What every proxy has.
    fn own(&mut self, id: ProxyId, kind: Type, name: &Name) -> Option<Item> {
        let proxy = self.proxies.get(&id)?;
        match (kind, &**name) {
            (Type::Secret, names::TRUST_BUNDLE) => {
                self.trust_secret.clone().filter(|_| proxy.takes_secrets())
            }
            (Type::Secret, _) => {
                let issued = proxy.issued.as_ref()?;
                let (identity, svid) = (&issued.identity, issued.svid()?);
                let secret = || generate::identity_secret(identity, &svid.chain_pem, &svid.key_pem);
                (identity.to_string() == **name).then(|| item(kind, name, &secret()))
            }
            (Type::Runtime, names::RUNTIME) => {
                Some(item(kind, name, &generate::runtime(&proxy.record.withdrawn())))
            }
            _ => None,
        }
    }

    /// Every name that the proxy gets something under.
    pub(super) fn names(&self, id: ProxyId, kind: Type) -> Vec<Name> {
        let Some(proxy) = self.proxies.get(&id) else { return Vec::new() };
        let ready = proxy.served();
        let calls = self.group(proxy).into_iter().flat_map(|group| &group.calls);
        let ways = self.group(proxy).into_iter().flat_map(|group| group.ways.iter());
        let (mut names, is_ingress) = (BTreeSet::new(), proxy.is_ingress());
        let redirected = proxy.redirected.keys().filter(|(it, _)| *it == kind);
        names.extend(redirected.map(|(_, name)| name));
        let exposed = || self.services.exposed().filter(|_| is_ingress);
        match kind {
            Type::Cluster => {
                names.extend(calls.map(|(name, _)| name));
                names.extend(ways.map(|(_, way)| &way.name));
                names.extend(ready.map(|(name, _)| name));
                names.extend(exposed());
            }
            Type::Endpoint => {
                names.extend(calls.map(|(name, _)| name));
                let of = exposed().filter_map(|sni| self.services.exposed_as(sni));
                names.extend(of.map(|(name, _)| name));
            }
            Type::Listener => {
                names.extend(calls.filter(|(_, it)| proxy.listens(it)).map(|(name, _)| name));
                let own = self.marks.own(id);
                let replicas = self.group(proxy).into_iter().flat_map(|it| it.ways.listeners());
                let others = replicas.filter(|(at, _)| !own.contains(&at.ip()));
                names.extend(others.map(|(_, name)| name));
                names.extend(ready.map(|(name, _)| name));
                names.extend(proxy.ingresses.keys());
            }
            Type::Route => {
                names.extend(calls.filter(|(_, it)| it.has_route()).map(|(name, _)| name));
                names.extend(ways.filter(|(_, it)| it.is_http()).map(|(_, way)| &way.name));
                names.extend(ready.filter(|(_, it)| it.is_http()).map(|(name, _)| name));
            }
            Type::Secret => {
                if !proxy.takes_secrets() {
                    return Vec::new();
                }
                let tcp = ready.filter(|(_, it)| !it.is_http()).map(|(name, _)| name.clone());
                let identity = proxy.issued.iter().map(|it| it.identity.to_string().into());
                let trust = self.trust_secret.iter().map(|_| names::TRUST_BUNDLE.into());
                return tcp.chain(identity).chain(trust).collect();
            }
            Type::Extension => {
                names.extend(ready.filter(|(_, it)| !it.is_http()).map(|(name, _)| name));
            }
            Type::Runtime => return vec![names::RUNTIME.into()],
        }
        names.into_iter().cloned().collect()
    }

    /// The name under which Envoy asks for the endpoints of a cluster.
    pub(super) fn endpoints_name(&self, cluster: &Name) -> Name {
        let exposed = cluster.starts_with(Sni::PREFIX).then(|| self.services.exposed_as(cluster));
        exposed.flatten().map_or_else(|| cluster.clone(), |(name, _)| name.clone())
    }

    /// How many results were made so far: what tests of cost look at.
    pub(super) const fn made(&self) -> usize {
        Results::made(&self.results)
    }
}

fn outbound(call: &Call) -> Outbound {
    let destination = &call.entry.destination;
    Outbound {
        kri: destination.kri.clone(),
        protocol: destination.protocol,
        binds: (*call.binds).clone(),
        redirected: call.redirected,
    }
}
