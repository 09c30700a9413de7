//! What a service says about itself: who its proxies are, how they are, how it can be reached.

use super::{
    hostnames::Name,
    mesh::{Mesh, Service},
    plan::Base,
    proxy::{Proxy, count},
    state::Settings,
};
use kinds::{
    Condition,
    mesh_service::{
        Address, DataplaneProxies, GENERATED, GeneratorConditions, GeneratorRef, Identity,
        IdentityType, MeshService, State, Status, Tls, TlsStatus, Vip,
    },
};
use resource::ResourceKey;
use std::{collections::BTreeSet, net::IpAddr};

/// Spec and status of a service, and whether its state is kept only for the moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Built {
    pub(super) spec: MeshService,
    pub(super) status: Status,
    pub(super) waiting: bool,
}

/// Whether proxies may still be missing because this control plane was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// It started a moment ago.
    Recent,
    /// It runs for long enough.
    Over,
}

/// What the service `key` says about itself.
pub(super) fn build(
    key: &ResourceKey,
    base: &Base,
    vips: &[IpAddr],
    mesh: &Mesh,
    settings: &Settings,
    start: Start,
) -> Built {
    let stored = mesh.services.get(&key.name);
    let mut status = stored.map(|stored| stored.status.clone()).unwrap_or_default();
    status.vips = vips.iter().map(|ip| Vip { ip: ip.to_string() }).collect();
    name(&mut status, key, base, mesh, settings);
    if base.copy {
        let spec = stored.map(|stored| (*stored.spec).clone()).unwrap_or_default();
        return Built { spec, status, waiting: false };
    }
    let mut spec = MeshService {
        state: State::Unavailable,
        selector: base.selector.clone(),
        ports: base.ports.clone(),
        identities: Vec::new(),
    };
    let proxies: Vec<&Proxy> = mesh.selected(&base.selector).collect();
    spec.identities = identities(&proxies, stored);
    let counts = count(proxies.iter().copied(), &mesh.online, |proxy| proxy.serves(&spec));
    status.dataplane_proxies = counts;
    status.tls = tls(&proxies, mesh, stored);
    let (state, waiting) = state(&proxies, &spec, mesh, counts, stored, start);
    spec.state = state;
    Built { spec, status, waiting }
}

/// Who its proxies are. While there are none, who they were: what callers expect does not change
/// because nobody is there.
fn identities(proxies: &[&Proxy], stored: Option<&Service>) -> Vec<Identity> {
    if proxies.is_empty() {
        return stored.map(|stored| stored.spec.identities.clone()).unwrap_or_default();
    }
    let ids: BTreeSet<&String> = proxies.iter().flat_map(|proxy| &proxy.who.ids).collect();
    let identity = |id: &String| Identity { kind: IdentityType::SpiffeId, value: id.clone() };
    ids.into_iter().map(identity).collect()
}

/// Ready once all proxies can prove who they are, and from then on: a caller that was told to speak
/// TLS is not told otherwise because a new proxy is not there yet.
fn tls(proxies: &[&Proxy], mesh: &Mesh, stored: Option<&Service>) -> Tls {
    let was = stored.is_some_and(|stored| stored.status.tls.status == Some(TlsStatus::Ready));
    let all = !proxies.is_empty() && proxies.iter().all(|proxy| proxy.who.proven);
    let ready = !mesh.identities.is_empty() && (was || all);
    Tls { status: Some(if ready { TlsStatus::Ready } else { TlsStatus::NotReady }) }
}

/// Available if a proxy that is there can serve. While this control plane has just started, proxies
/// that are not back yet keep a service available that was.
fn state(
    proxies: &[&Proxy],
    spec: &MeshService,
    mesh: &Mesh,
    counts: DataplaneProxies,
    stored: Option<&Service>,
    start: Start,
) -> (State, bool) {
    let present = |proxy: &&&Proxy| mesh.online.contains(&proxy.head.key.name);
    if proxies.iter().filter(present).any(|proxy| proxy.serves(spec)) {
        return (State::Available, false);
    }
    let was = stored.is_some_and(|stored| stored.spec.state == State::Available);
    if was && counts.healthy > 0 && start == Start::Recent {
        return (State::Available, true);
    }
    (State::Unavailable, false)
}

/// Says under which names it can be reached, and why not under others.
fn name(status: &mut Status, key: &ResourceKey, base: &Base, mesh: &Mesh, settings: &Settings) {
    status.addresses.retain(|address| address.origin != GENERATED);
    status.hostname_generators.clear();
    for (generator, hostname) in &base.names {
        let generator_ref = GeneratorRef { core_name: generator.to_string() };
        let conditions = match hostname {
            Ok(hostname) => match winner(hostname, generator, key, mesh) {
                None => {
                    status.addresses.push(Address {
                        hostname: hostname.clone(),
                        origin: GENERATED.into(),
                        hostname_generator_ref: Some(generator_ref.clone()),
                    });
                    generated(hostname, settings)
                }
                Some(winner) => vec![Condition::fails("Generated", "Collision", winner)],
            },
            Err(error) => {
                vec![Condition::fails("Generated", "TemplateError", error.to_string())]
            }
        };
        let hostname_generator_ref = generator_ref;
        let conditions = GeneratorConditions { hostname_generator_ref, conditions };
        status.hostname_generators.push(conditions);
    }
}

/// Who else has the name; `None` if it is this service's by this generator.
fn winner(hostname: &str, generator: &Name, key: &ResourceKey, mesh: &Mesh) -> Option<String> {
    let owner = mesh.hostnames.owner(hostname)?;
    if owner.service == key.name && owner.generator == *generator {
        return None;
    }
    let (service, by) = (&owner.service, &owner.generator);
    Some(format!("{hostname:?} belongs to MeshService {service:?} by HostnameGenerator {by:?}"))
}

fn generated(hostname: &str, settings: &Settings) -> Vec<Condition> {
    let mut conditions = vec![Condition::holds("Generated", "Generated", "")];
    if !settings.apexes.iter().any(|apex| is_below(hostname, apex)) {
        let apexes = settings.apexes.join(", ");
        let message = format!(
            "{hostname:?} is not below {apexes}: DNS servers of this zone do not answer it"
        );
        conditions.push(Condition::fails("Served", "OutsideApexes", message));
    }
    conditions
}

fn is_below(hostname: &str, apex: &str) -> bool {
    let rest = hostname.strip_suffix(apex.trim_matches('.'));
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
