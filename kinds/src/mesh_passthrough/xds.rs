use super::{Conf, Match, MatchType, MeshPassthrough, PassthroughMode, Protocol};
use crate::rule;
use ipnet::IpNet;
use std::{collections::BTreeMap, net::IpAddr};
use xds::{
    TargetRef,
    draft::{At, Passthrough, Place, ProxyDraft, Speaks},
    policy::{Phase, Policy},
};

impl Policy for MeshPassthrough {
    type Conf = Conf;
    const PHASE: Phase = Phase::Traffic;

    fn target_ref(&self) -> Option<&TargetRef> {
        self.target_ref.as_ref()
    }

    fn conf(&self) -> Option<&Conf> {
        Some(&self.default)
    }

    fn shape_proxy(conf: &Conf, draft: &mut ProxyDraft) {
        draft.passthrough = match conf.passthrough_mode.unwrap_or(PassthroughMode::Matched) {
            PassthroughMode::All => Passthrough::Everything,
            PassthroughMode::None => Passthrough::Places([].into()),
            PassthroughMode::Matched => {
                let listed = conf.append_match.iter().flatten().filter_map(place);
                // The last one counts of those that could not be told apart.
                let told: BTreeMap<_, _> = listed.map(|place| (signs(&place), place)).collect();
                Passthrough::Places(told.into_values().collect())
            }
        };
    }
}

/// By what a connection to a place is known.
fn signs(place: &Place) -> (Option<u16>, At, u8) {
    let transport = match place.speaks {
        Speaks::Bytes | Speaks::MySql => 0,
        Speaks::Tls => 1,
        Speaks::Requests(_) => 2,
    };
    (place.port, place.at.clone(), transport)
}

/// What a match says. `None` for what validation refuses: other control planes may let it through.
fn place(found: &Match) -> Option<Place> {
    let port = match found.port {
        Some(port) => Some(u16::try_from(port).ok().filter(|port| *port != 0)?),
        None => None,
    };
    let speaks = match found.protocol {
        Protocol::Tcp => Speaks::Bytes,
        Protocol::Mysql => Speaks::MySql,
        Protocol::Tls => Speaks::Tls,
        Protocol::Http => Speaks::Requests(xds::Protocol::Http),
        Protocol::Http2 => Speaks::Requests(xds::Protocol::Http2),
        Protocol::Grpc => Speaks::Requests(xds::Protocol::Grpc),
    };
    let at = match found.r#type {
        MatchType::Ip => At::Network(IpNet::from(found.value.parse::<IpAddr>().ok()?)),
        MatchType::Cidr => At::Network(found.value.parse::<IpNet>().ok()?.trunc()),
        MatchType::Domain => domain(&found.value)?,
    };
    let known = match (&at, speaks) {
        (At::Network(_), Speaks::MySql) => port.is_some(),
        (At::Network(_), _) | (At::Under(_) | At::Anywhere, Speaks::Tls) => true,
        // The proxy resolves the name by itself, and for that needs a port.
        (At::Host(_), Speaks::Tls) => port.is_some(),
        (At::Host(_) | At::Under(_) | At::Anywhere, Speaks::Requests(_)) => port.is_some(),
        (At::Host(_) | At::Under(_) | At::Anywhere, Speaks::Bytes | Speaks::MySql) => false,
    };
    known.then_some(Place { port, at, speaks })
}

fn domain(text: &str) -> Option<At> {
    if text == "*" {
        return Some(At::Anywhere);
    }
    let (under, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if !rule::is_dns_name(&name) {
        return None;
    }
    Some(if under { At::Under(name) } else { At::Host(name) })
}
