//! What a proxy gets to whom the kernel redirects connections.
//!
//! In each direction and family one listener binds the port of redirection and hands every
//! connection to the listener of its original destination; these bind nothing. So a new service
//! changes nothing here. What no listener has for its destination is what this is about.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use xds::{
    Protocol, Type,
    draft::{At, Passthrough, Place, Speaks},
    names,
};

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How the kernel hands the connections of a machine to a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirection {
    /// The families that are redirected.
    pub families: BTreeSet<Family>,
    /// Where the proxy takes what leaves, if it does.
    pub outbound: Option<u16>,
    /// Where the proxy takes what arrives, if it does.
    pub inbound: Option<u16>,
    /// The ports of inbounds and of their applications: nobody reaches these but through an inbound.
    pub served: BTreeSet<u16>,
}

/// Something that a proxy gets because of a redirection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The listener of everything that leaves.
    Outbound(Leaving),
    /// The listener of everything that arrives.
    Inbound(Arriving),
    /// Who is called without being in the mesh.
    Cluster(Outside),
    /// Where requests go by the host that they name.
    Route(Hosts),
}

/// The listener of everything that leaves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaving {
    /// Its addresses.
    pub family: Family,
    /// What it binds.
    pub port: u16,
    /// The places that are told apart, one for all hosts of requests to a port; for all else there is
    /// one cluster, or none.
    pub places: BTreeSet<Place>,
}

/// The listener of everything that arrives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arriving {
    /// Its addresses.
    pub family: Family,
    /// What it binds.
    pub port: u16,
    /// The ports to which nothing is passed on.
    pub served: BTreeSet<u16>,
}

/// Who is called without being in the mesh.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outside {
    /// Whoever the connection was meant for.
    Original {
        /// The address that is called from; any, if it does not matter.
        from: Option<IpAddr>,
        /// What is spoken.
        speaks: Speaks,
    },
    /// Where a name leads to: what the application looked up itself does not count.
    Named {
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// What is spoken.
        speaks: Speaks,
    },
}

/// Clusters by the host that requests name; `*` is any other one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hosts {
    /// The port that may follow a host.
    pub port: Option<u16>,
    /// The clusters.
    pub clusters: BTreeMap<String, String>,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    const fn version(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }

    /// All addresses of a machine.
    pub(super) const fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// From where a proxy calls its own application. The rules of redirection know it, and let it
    /// through.
    pub(super) const fn source(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6)),
        }
    }

    fn has(self, place: &Place) -> bool {
        match &place.at {
            At::Network(network) => Self::of(network.addr()) == self,
            At::Host(_) | At::Under(_) | At::Anywhere => true,
        }
    }
}

impl Redirection {
    /// Whether inbounds at an address are redirected.
    #[must_use]
    pub fn takes(&self, address: IpAddr) -> bool {
        self.inbound.is_some() && self.families.contains(&Family::of(address))
    }

    /// Everything that the proxy gets because of it, by type and name.
    #[must_use]
    pub fn parts(&self, passthrough: &Passthrough) -> BTreeMap<(Type, String), Part> {
        let nowhere = BTreeSet::new();
        let places = match passthrough {
            Passthrough::Everything => &nowhere,
            Passthrough::Places(places) => places,
        };
        let mut parts = BTreeMap::new();
        for family in &self.families {
            let original = |from| Outside::Original { from, speaks: Speaks::Bytes };
            if let Some(port) = self.outbound {
                let name = names::passthrough_outbound(family.version());
                let places = places.iter().filter(|place| family.has(place)).map(told_apart);
                if *passthrough == Passthrough::Everything {
                    parts.insert((Type::Cluster, name.clone()), Part::Cluster(original(None)));
                }
                let leaving = Leaving { family: *family, port, places: places.collect() };
                parts.insert((Type::Listener, name), Part::Outbound(leaving));
            }
            if let Some(port) = self.inbound {
                let name = names::passthrough_inbound(family.version());
                let from = Some(family.source());
                parts.insert((Type::Cluster, name.clone()), Part::Cluster(original(from)));
                let arriving = Arriving { family: *family, port, served: self.served.clone() };
                parts.insert((Type::Listener, name), Part::Inbound(arriving));
            }
        }
        if self.outbound.is_some() {
            let families = &self.families;
            let reached = |place: &&Place| families.iter().any(|family| family.has(place));
            places.iter().filter(reached).for_each(|place| add(place, &mut parts));
        }
        parts
    }
}

/// A place as the listener knows it. Hosts of requests it cannot tell apart: their routes do, which
/// change without it.
fn told_apart(place: &Place) -> Place {
    match (&place.at, place.speaks) {
        (At::Host(_) | At::Under(_) | At::Anywhere, Speaks::Requests(_)) => {
            let speaks = Speaks::Requests(Protocol::Http);
            Place { port: place.port, at: At::Anywhere, speaks }
        }
        (At::Network(_), _) | (_, Speaks::Bytes | Speaks::MySql | Speaks::Tls) => place.clone(),
    }
}

/// What leads to a place.
fn add(place: &Place, parts: &mut BTreeMap<(Type, String), Part>) {
    let name = cluster_name(place);
    let speaks = place.speaks;
    let outside = match (&place.at, place.port) {
        (At::Host(host), Some(port)) => Outside::Named { host: host.clone(), port, speaks },
        _ => Outside::Original { from: None, speaks },
    };
    if let Speaks::Requests(_) = speaks {
        let hosts = || Part::Route(Hosts { port: place.port, clusters: BTreeMap::new() });
        let route = parts.entry((Type::Route, chain_name(place))).or_insert_with(hosts);
        if let Part::Route(hosts) = route {
            hosts.clusters.insert(host(&place.at), name.clone());
        }
    }
    parts.insert((Type::Cluster, name), Part::Cluster(outside));
}

/// The hosts that requests to a place name.
fn host(at: &At) -> String {
    match at {
        At::Host(name) => name.clone(),
        At::Under(name) => format!("*.{name}"),
        At::Network(_) | At::Anywhere => "*".to_owned(),
    }
}

/// The cluster by which a place is reached.
fn cluster_name(place: &Place) -> String {
    let at = match &place.at {
        At::Network(network) if network.prefix_len() == network.max_prefix_len() => {
            network.addr().to_string()
        }
        At::Network(network) => network.to_string(),
        name @ (At::Host(_) | At::Under(_) | At::Anywhere) => host(name),
    };
    format!("meshpassthrough_{}_{at}_{}", spoken(place.speaks), port(place))
}

/// The filter chain that takes connections to a place. All names of requests to a port have one:
/// only the requests tell them apart.
pub(super) fn chain_name(place: &Place) -> String {
    match (&place.at, place.speaks) {
        (At::Host(_) | At::Under(_) | At::Anywhere, Speaks::Requests(_)) => {
            format!("meshpassthrough_http_{}", port(place))
        }
        (At::Network(_), _) | (_, Speaks::Bytes | Speaks::MySql | Speaks::Tls) => {
            cluster_name(place)
        }
    }
}

fn port(place: &Place) -> String {
    place.port.map_or_else(|| "*".to_owned(), |port| port.to_string())
}

const fn spoken(speaks: Speaks) -> &'static str {
    match speaks {
        Speaks::Bytes => Protocol::Tcp.as_str(),
        Speaks::MySql => "mysql",
        Speaks::Tls => "tls",
        Speaks::Requests(protocol) => protocol.as_str(),
    }
}
