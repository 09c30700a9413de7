//! The listeners to which the kernel redirects connections.

use super::{
    common::seconds,
    http,
    listener::{HANDSHAKE, listener, listener_filter, tcp_proxy, tls_inspector, to},
    matcher,
    redirect::{Arriving, Leaving, chain_name},
};
use proto::{
    envoy::{
        config::{
            core::v3::TrafficDirection,
            listener::v3::{
                Filter, FilterChain, Listener, ListenerFilter,
                ListenerFilterChainMatchPredicate as Where,
                listener_filter_chain_match_predicate::{MatchSet, Rule},
            },
        },
        extensions::filters::{
            listener::{http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst},
            network::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
        },
        r#type::v3::Int32Range,
    },
    pack,
    xds::{
        core::v3::TypedExtensionConfig,
        r#type::matcher::v3::{Matcher, matcher::matcher_list::Predicate},
    },
};
use std::{
    cmp::Reverse,
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};
use xds::{
    draft::{At, ListenerDraft, OutboundDraft, Place, Speaks},
    names,
};

/// The chain of what goes where it was meant to.
const PASSTHROUGH: &str = "passthrough";
/// The chain of what goes nowhere.
const REFUSED: &str = "refused";

/// Where everything comes that leaves and no other listener is for. Without places it looks at
/// nothing, and whether there is a cluster of its name decides whether anything is let through.
#[must_use]
pub fn leaving_listener(name: &str, leaving: &Leaving) -> Listener {
    let draft = OutboundDraft::default().listener;
    let mut chains = vec![chain(PASSTHROUGH, bytes(name, name, &draft))];
    let places = &leaving.places;
    chains.extend(places.iter().map(|place| {
        let chosen = chain_name(place);
        let forward = match place.speaks {
            // What Envoy counts of all that is let through is in one place, as what it refuses.
            Speaks::Bytes | Speaks::MySql | Speaks::Tls => bytes(name, &chosen, &draft),
            Speaks::Requests(_) => http::outside(&chosen, &draft),
        };
        chain(&chosen, forward)
    }));
    let inspected = inspected(places);
    Listener {
        listener_filters: inspectors(&inspected),
        // Who does not speak first is not kept waiting for ever where others are looked at.
        listener_filters_timeout: (!inspected.is_empty()).then(|| seconds(HANDSHAKE)).flatten(),
        continue_on_listener_filters_timeout: !inspected.is_empty(),
        filter_chain_matcher: (!places.is_empty()).then(|| matcher(name, places)),
        filter_chains: chains,
        ..redirected(name, TrafficDirection::Outbound, leaving.family.unspecified(), leaving.port)
    }
}

/// Where everything comes that arrives and no other listener is for. It is passed on as it is, but
/// for what the mesh serves: else another address of the machine would be a way around permissions.
#[must_use]
pub fn arriving_listener(name: &str, arriving: &Arriving) -> Listener {
    let draft = ListenerDraft::default();
    let mut chains = vec![chain(PASSTHROUGH, bytes(name, name, &draft))];
    if !arriving.served.is_empty() {
        chains.push(chain(REFUSED, bytes(name, names::NO_DESTINATION, &draft)));
    }
    let cases =
        arriving.served.iter().map(|port| matcher::case(matcher::port_is(*port), action(REFUSED)));
    let cases: Vec<_> = cases.collect();
    let chosen = (!cases.is_empty()).then(|| matcher::first(cases, Some(action(PASSTHROUGH))));
    Listener {
        filter_chain_matcher: chosen,
        filter_chains: chains,
        ..redirected(name, TrafficDirection::Inbound, arriving.family.unspecified(), arriving.port)
    }
}

fn redirected(name: &str, direction: TrafficDirection, at: IpAddr, port: u16) -> Listener {
    Listener {
        use_original_dst: Some(true),
        listener_filters: vec![original_destination()],
        ..listener(name, direction, SocketAddr::new(at, port))
    }
}

fn chain(name: &str, forward: Filter) -> FilterChain {
    FilterChain { name: name.into(), filters: vec![forward], ..FilterChain::default() }
}

fn bytes(listener: &str, cluster: &str, draft: &ListenerDraft) -> Filter {
    tcp_proxy(TcpProxy {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
        ..to(listener, draft)
    })
}

fn action(chain: &str) -> TypedExtensionConfig {
    matcher::named(chain, pack(&chain.to_owned()))
}

/// The first place that a connection fits to. Unlike with the matches of filter chains, what fits by
/// its port or address alone is not lost for others.
fn matcher(listener: &str, places: &BTreeSet<Place>) -> Matcher {
    let mut ordered: Vec<&Place> = places.iter().collect();
    ordered.sort_by_key(|place| {
        let network = match &place.at {
            At::Network(network) => Some(network.prefix_len()),
            At::Host(_) | At::Under(_) | At::Anywhere => None,
        };
        let transport = match place.speaks {
            Speaks::Tls => 0,
            Speaks::Requests(_) => 1,
            Speaks::Bytes | Speaks::MySql => 2,
        };
        let name = match &place.at {
            At::Host(_) => usize::MAX,
            At::Under(name) => name.len(),
            At::Network(_) | At::Anywhere => 0,
        };
        (Reverse(network), Reverse(place.port.is_some()), transport, Reverse(name), *place)
    });
    let cases = ordered
        .into_iter()
        .map(|place| matcher::case(fits(listener, place), action(&chain_name(place))));
    matcher::first(cases.collect(), Some(action(PASSTHROUGH)))
}

/// Whether a connection is to a place.
fn fits(listener: &str, place: &Place) -> Predicate {
    let mut all = Vec::new();
    if let At::Network(network) = &place.at {
        all.push(matcher::address_is_in(*network, listener));
    }
    all.extend(place.port.map(matcher::port_is));
    match (&place.at, place.speaks) {
        (_, Speaks::Bytes | Speaks::MySql) => {}
        (_, Speaks::Requests(_)) => all.push(matcher::is_http()),
        (at, Speaks::Tls) => {
            all.push(matcher::is_tls());
            all.extend(match at {
                At::Host(name) => Some(matcher::server_name_is(name)),
                At::Under(name) => Some(matcher::server_name_ends_with(&format!(".{name}"))),
                At::Network(_) | At::Anywhere => None,
            });
        }
    }
    matcher::all(all)
}

/// The ports at which connections are looked at before they are handed on.
#[derive(Debug, PartialEq, Eq)]
enum Inspected {
    /// Only these.
    Only(BTreeSet<u16>),
    /// All but these.
    AllBut(BTreeSet<u16>),
}

impl Inspected {
    fn is_empty(&self) -> bool {
        *self == Self::Only(BTreeSet::new())
    }
}

/// Where TLS and HTTP have to be told apart from others. Who looks at a connection waits for the
/// first bytes of the client, also on its way to a service of the mesh.
fn inspected(places: &BTreeSet<Place>) -> Inspected {
    let of = |speaks: fn(Speaks) -> bool| places.iter().filter(move |it| speaks(it.speaks));
    let patient: BTreeSet<u16> =
        of(|it| it == Speaks::MySql).filter_map(|place| place.port).collect();
    let looked_at = || of(|it| matches!(it, Speaks::Tls | Speaks::Requests(_)));
    if looked_at().any(|place| place.port.is_none()) {
        return Inspected::AllBut(patient);
    }
    let ports = looked_at().filter_map(|place| place.port);
    Inspected::Only(ports.filter(|port| !patient.contains(port)).collect())
}

fn inspectors(inspected: &Inspected) -> Vec<ListenerFilter> {
    let original = original_destination();
    if inspected.is_empty() {
        return vec![original];
    }
    let disabled = match inspected {
        Inspected::Only(ports) => ports_in(ports).map(|it| rule(Rule::NotMatch(Box::new(it)))),
        Inspected::AllBut(ports) => ports_in(ports),
    };
    let http =
        listener_filter("envoy.filters.listener.http_inspector", pack(&HttpInspector::default()));
    let looking = [tls_inspector(), http];
    let looking = looking.map(|it| ListenerFilter { filter_disabled: disabled.clone(), ..it });
    [original].into_iter().chain(looking).collect()
}

fn original_destination() -> ListenerFilter {
    listener_filter("envoy.filters.listener.original_dst", pack(&OriginalDst::default()))
}

/// Whether a connection is to one of these ports. `None` if there are none.
fn ports_in(ports: &BTreeSet<u16>) -> Option<Where> {
    let one = |port: &u16| {
        let start = i32::from(*port);
        rule(Rule::DestinationPortRange(Int32Range { start, end: start + 1 }))
    };
    let mut rules: Vec<Where> = ports.iter().map(one).collect();
    if rules.len() < 2 {
        return rules.pop();
    }
    Some(rule(Rule::OrMatch(MatchSet { rules })))
}

fn rule(rule: Rule) -> Where {
    Where { rule: Some(rule) }
}
