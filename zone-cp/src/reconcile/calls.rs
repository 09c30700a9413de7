//! What a proxy says about whom it calls, before it is known whom that is.

use super::{
    replicas::Replica,
    services::{Entry, Service},
};
use proto::kuma::mesh::v1alpha1::dataplane::networking::{
    Outbound, TransparentProxying, outbound::BackendRef, transparent_proxying::ReachableBackendRef,
};
use resource::label;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// Whom a proxy calls, and where it listens for that. Proxies that say the same get the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Calls {
    /// Each of these at an address of its own.
    pub(super) explicit: Vec<(Reference, SocketAddr)>,
    /// Services at their virtual addresses.
    pub(super) reach: Reach,
    /// Services at the addresses of their replicas.
    pub(super) direct: Direct,
    /// The kernel hands these connections over, so nothing is bound.
    pub(super) redirected: bool,
}

/// Which services a proxy reaches at their virtual addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    #[default]
    Nothing,
    Everything,
    Only(Vec<Reference>),
}

/// Whose replicas a proxy calls at their own addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direct {
    Everybodys,
    /// Of services that are called so.
    Only(BTreeSet<String>),
}

impl Default for Direct {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

/// Names services, and a port of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    which: Which,
    /// Every port, if it is not said.
    port: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    /// The service of that name in this zone's store.
    Name(String),
    /// Those with all these labels.
    Labels(BTreeMap<String, String>),
    /// Nothing is said, or of a kind that is not known here.
    None,
}

/// Where an explicit outbound listens unless it says so.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Calls {
    /// What a Dataplane says; whether its proxy binds virtual addresses, it says itself. Where the
    /// kernel redirects connections, it need not, and nothing is named one by one.
    pub(super) fn of(replica: &Replica, binds_vips: bool) -> Self {
        let redirected = replica.redirection.outbound.is_some();
        let networking = replica.spec.0.networking.as_ref();
        let outbounds = networking.map_or(&[][..], |networking| &networking.outbound);
        let reachable = networking
            .and_then(|networking| networking.transparent_proxying.as_ref())
            .and_then(|proxying| proxying.reachable_backends.as_ref());
        let reach = match reachable {
            _ if !binds_vips && !redirected => Reach::Nothing,
            None => Reach::Everything,
            Some(only) => Reach::Only(only.refs.iter().map(Reference::reachable).collect()),
        };
        let named = outbounds.iter().filter(|_| !redirected);
        let mut explicit: Vec<_> = named.filter_map(explicit).collect();
        explicit.sort();
        explicit.dedup();
        Self { explicit, reach, direct: replica.direct.clone(), redirected }
    }

    /// Whether `entry` is reached at its virtual addresses.
    pub(super) fn reaches(&self, entry: &Entry) -> bool {
        match &self.reach {
            Reach::Nothing => false,
            Reach::Everything => true,
            Reach::Only(references) => references.iter().any(|reference| {
                reference.selects(&entry.service) && reference.is_port(entry.number)
            }),
        }
    }
}

impl Direct {
    /// All services.
    const EVERYBODY: &str = "*";

    /// What a Dataplane says.
    pub(super) fn of(proxying: &TransparentProxying) -> Self {
        let names: BTreeSet<String> = proxying.direct_access_services.iter().cloned().collect();
        if names.contains(Self::EVERYBODY) { Self::Everybodys } else { Self::Only(names) }
    }

    /// Whether it is nobody.
    pub(super) fn is_empty(&self) -> bool {
        self.names().is_some_and(BTreeSet::is_empty)
    }

    /// The names that it says; `None` if it says none.
    pub(super) const fn names(&self) -> Option<&BTreeSet<String>> {
        match self {
            Self::Everybodys => None,
            Self::Only(names) => Some(names),
        }
    }

    /// Whether it names the service. Nobody comes to replicas of another zone but through its ingress.
    pub(super) fn is_to(&self, service: &Service) -> bool {
        match self {
            Self::Everybodys => service.remote.is_none(),
            Self::Only(names) => service.called.iter().any(|name| names.contains(name)),
        }
    }
}

fn explicit(outbound: &Outbound) -> Option<(Reference, SocketAddr)> {
    let port = u16::try_from(outbound.port).ok()?;
    let address = match &*outbound.address {
        "" => LOOPBACK,
        address => address.parse().ok()?,
    };
    let reference = Reference::explicit(outbound.backend_ref.as_ref()?);
    Some((reference, SocketAddr::new(address, port)))
}

impl Reference {
    fn explicit(backend: &BackendRef) -> Self {
        let BackendRef { kind, name, port, labels } = backend;
        Self { which: Which::of(kind, name, labels.clone()), port: Some(*port) }
    }

    fn reachable(backend: &ReachableBackendRef) -> Self {
        let ReachableBackendRef { kind, name, namespace, port, labels } = backend;
        let mut labels = labels.clone();
        let which = if namespace.is_empty() {
            Which::of(kind, name, labels)
        } else {
            // In a namespace several resources of the store may have had this name.
            labels.insert(label::DISPLAY_NAME.into(), name.clone());
            labels.insert(label::NAMESPACE.into(), namespace.clone());
            Which::of(kind, "", labels)
        };
        Self { which, port: *port }
    }

    /// Whether it names the service, whatever the port.
    pub(super) fn selects(&self, service: &Service) -> bool {
        match &self.which {
            Which::Name(name) => **name == *service.name,
            Which::Labels(labels) => {
                service.labels.contain(labels.iter().map(|(key, value)| (&**key, &**value)))
            }
            Which::None => false,
        }
    }

    /// Whether it names at most the service of that name.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.which {
            Which::Name(name) => Some(name),
            Which::Labels(_) | Which::None => None,
        }
    }

    pub(super) fn is_port(&self, number: u16) -> bool {
        self.port.is_none_or(|port| port == u32::from(number))
    }
}

impl Which {
    fn of(kind: &str, name: &str, labels: BTreeMap<String, String>) -> Self {
        match (kind, name) {
            ("MeshService", "") if !labels.is_empty() => Self::Labels(labels),
            ("MeshService", name) if !name.is_empty() => Self::Name(name.into()),
            _ => Self::None,
        }
    }
}
