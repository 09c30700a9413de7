use super::{
    common::{address, name_address},
    value::Endpoint,
};
use proto::envoy::config::{
    core::v3::Locality,
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint as Host, LbEndpoint, LocalityLbEndpoints,
        lb_endpoint::HostIdentifier,
    },
};
use std::{collections::BTreeSet, net::SocketAddr};

/// Where the destination `name` is.
#[must_use]
pub fn load_assignment(name: &str, endpoints: &BTreeSet<Endpoint>) -> ClusterLoadAssignment {
    let mut localities: Vec<LocalityLbEndpoints> = Vec::new();
    for endpoint in endpoints {
        let zone = |one: &LocalityLbEndpoints| one.locality.as_ref().map(|l| l.zone.clone());
        let same = |last: &&mut LocalityLbEndpoints| {
            last.priority == endpoint.priority && zone(last).as_ref() == Some(&endpoint.zone)
        };
        let host = host(endpoint.address);
        match localities.last_mut().filter(same) {
            Some(last) => last.lb_endpoints.push(host),
            None => localities.push(LocalityLbEndpoints {
                locality: Some(Locality { zone: endpoint.zone.clone(), ..Locality::default() }),
                lb_endpoints: vec![host],
                priority: endpoint.priority,
                ..LocalityLbEndpoints::default()
            }),
        }
    }
    ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: close_gaps(localities),
        ..ClusterLoadAssignment::default()
    }
}

/// Envoy wants priorities from 0 on, none left out. Localities come in the order of theirs.
fn close_gaps(mut localities: Vec<LocalityLbEndpoints>) -> Vec<LocalityLbEndpoints> {
    let mut known: Vec<u32> = localities.iter().map(|locality| locality.priority).collect();
    known.dedup();
    for locality in &mut localities {
        let place = known.iter().position(|priority| *priority == locality.priority);
        locality.priority = u32::try_from(place.unwrap_or_default()).unwrap_or_default();
    }
    localities
}

/// The one place where an inbound's application is.
pub(super) fn at(name: &str, application: SocketAddr) -> ClusterLoadAssignment {
    one(name, host(application))
}

fn one(name: &str, endpoint: LbEndpoint) -> ClusterLoadAssignment {
    let locality = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() };
    ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: vec![locality],
        ..ClusterLoadAssignment::default()
    }
}

/// The one place where a name leads to.
pub(super) fn named(name: &str, host: &str, port: u16) -> ClusterLoadAssignment {
    let host = Host { address: Some(name_address(host, port)), ..Host::default() };
    one(name, endpoint(host))
}

fn host(at: SocketAddr) -> LbEndpoint {
    endpoint(Host { address: Some(address(at)), ..Host::default() })
}

fn endpoint(host: Host) -> LbEndpoint {
    LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(host)), ..LbEndpoint::default() }
}
