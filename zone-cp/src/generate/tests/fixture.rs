//! Short builders of values.

use crate::generate::{
    Credentials, Destination, Endpoint, Inbound, IngressService, Outbound, Trust,
};
use resource::Kri;
use std::net::SocketAddr;
use xds::{
    Match, Protocol,
    draft::Grant,
    names::Sni,
    target::{SniMatch, SniMatchType, SpiffeIdMatch, SpiffeIdMatchType},
};

pub(super) fn kri(text: &str) -> Kri {
    text.parse().unwrap()
}

pub(super) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn identity() -> Kri {
    kri("kri_mid_shop___identity_")
}

pub(super) fn credentials() -> Credentials {
    Credentials::Zone(identity().into())
}

pub(super) fn trust() -> Trust {
    let domain = |zone: &str| {
        let name = format!("shop.{zone}.mesh.local").parse().unwrap();
        (name, [format!("CA of {zone}\n")].into())
    };
    Trust(["east", "west"].map(domain).into())
}

pub(super) fn destination(name: &str, protocol: Protocol, ids: &[&str]) -> Destination {
    let kri = kri(name);
    let sni = Sni::of(&kri).unwrap();
    let identities = ids.iter().map(|id| id.parse().unwrap()).collect();
    Destination { kri, sni, protocol, identities }
}

pub(super) fn outbound(name: &str, protocol: Protocol, binds: &[&str]) -> Outbound {
    let binds = binds.iter().map(|bind| at(bind)).collect();
    Outbound { kri: kri(name), protocol, binds, redirected: false }
}

pub(super) fn endpoint(priority: u32, zone: &str, address: &str) -> Endpoint {
    Endpoint { priority, zone: zone.into(), address: at(address) }
}

pub(super) fn http_inbound() -> Inbound {
    Inbound {
        section: "http".into(),
        protocol: Protocol::Http,
        bind: at("127.2.0.7:28080"),
        application: at("127.2.0.7:29080"),
        redirected: false,
    }
}

pub(super) fn tcp_inbound() -> Inbound {
    Inbound {
        section: "redis".into(),
        protocol: Protocol::Tcp,
        bind: at("127.2.0.9:26379"),
        application: at("127.2.0.9:29379"),
        redirected: false,
    }
}

pub(super) fn ingress_service(kri: Kri, endpoints: &Kri) -> IngressService {
    IngressService { sni: Sni::of(&kri).unwrap(), kri, endpoints: endpoints.clone() }
}

pub(super) fn grant(policy: &str, callers: &[Match]) -> Grant {
    Grant { policy: kri(policy), callers: callers.to_vec() }
}

pub(super) fn exact(id: &str) -> Match {
    caller(SpiffeIdMatchType::Exact, id)
}

pub(super) fn prefix(id: &str) -> Match {
    caller(SpiffeIdMatchType::Prefix, id)
}

fn caller(r#type: SpiffeIdMatchType, id: &str) -> Match {
    Match { spiffe_id: Some(SpiffeIdMatch { r#type, value: id.into() }), sni: None }
}

pub(super) fn sni(name: &str) -> Match {
    let sni = SniMatch { r#type: SniMatchType::Exact, value: name.into() };
    Match { spiffe_id: None, sni: Some(sni) }
}

pub(super) fn both(id: &str, name: &str) -> Match {
    Match { sni: sni(name).sni, ..exact(id) }
}
