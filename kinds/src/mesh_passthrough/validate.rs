use super::{Match, MatchType, MeshPassthrough, Protocol};
use crate::rule;
use ipnet::IpNet;
use resource::Violations;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

pub(super) fn validate(policy: &MeshPassthrough, violations: &mut Violations) {
    if let Some(target) = &policy.target_ref {
        target.check(false, violations);
    }
    let (mut places, mut chains) = (BTreeSet::new(), BTreeMap::new());
    for (i, place) in policy.default.append_match.iter().flatten().enumerate() {
        let path = format!("spec.default.appendMatch[{i}]");
        check_place(place, &path, violations);
        if place.port.is_some() && !places.insert((place.port, place.protocol, &*place.value)) {
            let value = &place.value;
            let reason = format!("{value} is already defined for this port and protocol");
            violations.add(format_args!("{path}.value"), reason);
        }
        let Some(chain) = Chain::of(place) else { continue };
        let owner = *chains.entry(chain).or_insert(place);
        check_owner(place, owner, &path, violations);
    }
}

fn check_place(place: &Match, path: &str, violations: &mut Violations) {
    if let Some(port) = place.port {
        rule::port(format_args!("{path}.port"), port, violations);
    } else if place.protocol == Protocol::Mysql {
        violations.add(format_args!("{path}.port"), "port must be defined for Mysql protocol");
    }
    let is_valid = match place.r#type {
        MatchType::Domain => return check_domain(place, path, violations),
        MatchType::Ip => place.value.parse::<IpAddr>().is_ok(),
        MatchType::Cidr => place.value.parse::<IpNet>().is_ok(),
    };
    if !is_valid {
        let what = if place.r#type == MatchType::Ip { "IP address" } else { "CIDR" };
        violations.add(format_args!("{path}.value"), format_args!("must be a valid {what}"));
    }
}

fn check_domain(place: &Match, path: &str, violations: &mut Violations) {
    let Match { value, port, protocol, .. } = place;
    if matches!(protocol, Protocol::Tcp | Protocol::Mysql) {
        // Nothing in these says which name is meant.
        let reason = format_args!("protocol {} is not supported for a domain", name(*protocol));
        violations.add(format_args!("{path}.protocol"), reason);
    }
    let wildcard = value.starts_with('*');
    if port.is_none() && !wildcard {
        let reason = "port must be defined for a domain, which the proxy resolves";
        violations.add(format_args!("{path}.port"), reason);
    }
    if port.is_none() && wildcard && of_requests(*protocol) {
        let reason = format_args!("port must be defined for wildcards of {}", name(*protocol));
        violations.add(format_args!("{path}.port"), reason);
    }
    let rest = value.strip_prefix("*.").unwrap_or(value);
    if value != "*" && !rule::is_dns_name(rest) {
        let reason = "must be a domain name, or one after '*.', or '*'";
        violations.add(format_args!("{path}.value"), reason);
    }
}

fn check_owner(place: &Match, owner: &Match, path: &str, violations: &mut Violations) {
    if place.protocol != owner.protocol {
        let (mine, other) = (name(place.protocol), name(owner.protocol));
        let reason = format!("protocols {other} and {mine} cannot be told apart here");
        violations.add(format_args!("{path}.protocol"), reason);
    } else if place.value != owner.value && Chain::of_one(place) {
        let (mine, other) = (&place.value, &owner.value);
        let reason = format!("{other:?} and {mine:?} are the same");
        violations.add(format_args!("{path}.value"), reason);
    }
}

/// A filter chain of Envoy: no two of a listener may match the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Chain<'a> {
    transport: Transport,
    port: Option<u32>,
    network: Option<IpNet>,
    server_name: &'a str,
}

/// What Envoy can tell apart before it knows where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Transport {
    Bytes,
    Tls,
    Requests,
}

impl<'a> Chain<'a> {
    fn of(place: &'a Match) -> Option<Self> {
        let transport = match place.protocol {
            Protocol::Tcp | Protocol::Mysql => Transport::Bytes,
            Protocol::Tls => Transport::Tls,
            Protocol::Http | Protocol::Http2 | Protocol::Grpc => Transport::Requests,
        };
        let (network, server_name) = match (place.r#type, transport) {
            (MatchType::Ip, _) => (Some(IpNet::from(place.value.parse::<IpAddr>().ok()?)), ""),
            (MatchType::Cidr, _) => (Some(place.value.parse::<IpNet>().ok()?.trunc()), ""),
            (MatchType::Domain, Transport::Tls) => (None, &*place.value),
            (MatchType::Domain, Transport::Requests) => (None, ""),
            (MatchType::Domain, Transport::Bytes) => return None,
        };
        Some(Self { transport, port: place.port, network, server_name })
    }

    /// Whether the chain of a place has no room for another: domains of requests are routes of one.
    fn of_one(place: &Match) -> bool {
        place.r#type != MatchType::Domain || !of_requests(place.protocol)
    }
}

const fn of_requests(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http | Protocol::Http2 | Protocol::Grpc)
}

const fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Tls => "tls",
        Protocol::Grpc => "grpc",
        Protocol::Http => "http",
        Protocol::Http2 => "http2",
        Protocol::Mysql => "mysql",
    }
}
