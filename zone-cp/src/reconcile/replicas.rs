//! The proxies of a zone as their Dataplanes describe them.

use super::calls::Direct;
use crate::generate::{Family, Inbound, IngressListener, Redirection};
use delta::Name;
use kinds::dataplane::{self, Dataplane};
use proto::kuma::mesh::v1alpha1::dataplane::{
    Networking,
    networking::{
        Inbound as Message, Listener, TransparentProxying, listener::Type,
        transparent_proxying::IpFamilyMode,
    },
};
use resource::{Labels, RejectedSpec, Resource};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// A Dataplane.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub(super) labels: Labels,
    pub(super) spec: Arc<Dataplane>,
    /// Its own, if it says one.
    pub(super) address: Option<IpAddr>,
    /// What it serves to the mesh.
    pub(super) inbounds: Vec<Served>,
    /// Where other zones come in.
    pub(super) ingresses: Vec<IngressListener>,
    /// What the kernel hands to it.
    pub(super) redirection: Redirection,
    /// Whose replicas it calls at their own addresses.
    pub(super) direct: Direct,
    /// What of it cannot be served.
    pub(super) problem: Option<String>,
}

/// An inbound of a Dataplane.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) message: Message,
    pub(super) inbound: Inbound,
}

impl Replica {
    pub(super) fn read(resource: &Resource) -> Result<Self, RejectedSpec> {
        let spec = kinds::read::<Dataplane>(resource)?;
        let networking = spec.0.networking.as_ref();
        let address = networking.map_or("", |networking| &networking.address);
        let mut problem = None;
        let mut inbounds = Vec::new();
        let proxying = networking.and_then(|networking| networking.transparent_proxying.as_ref());
        let mut redirection = proxying.map(redirection).unwrap_or_default();
        for message in spec.inbounds() {
            match inbound(message, address, &redirection) {
                Ok(inbound) => inbounds.push(Served { message: message.clone(), inbound }),
                Err(text) => problem = Some(text),
            }
        }
        let mut ingresses = Vec::new();
        for listener in spec.listeners().iter().filter(|it| it.r#type() == Type::ZoneIngress) {
            match ingress(listener) {
                Ok(listener) => ingresses.push(listener),
                Err(text) => problem = Some(text),
            }
        }
        if redirection.inbound.is_some() {
            let ports = |served: &Served| [served.inbound.bind, served.inbound.application];
            let served = inbounds.iter().flat_map(ports).map(|address| address.port());
            redirection.served = served.collect();
        }
        let is_redirected = redirection.outbound.is_some();
        problem = problem.or_else(|| unused(networking?, is_redirected));
        // What is not redirected comes by no listener.
        let direct = proxying.filter(|_| is_redirected).map(Direct::of).unwrap_or_default();
        let labels = resource.head.labels.clone();
        let address = address.parse().ok();
        Ok(Self { labels, spec, address, inbounds, ingresses, redirection, direct, problem })
    }

    /// The addresses at which it is called itself.
    pub(super) fn own(&self) -> BTreeSet<IpAddr> {
        let inbounds = self.inbounds.iter().map(|served| served.inbound.bind.ip());
        let ingresses = self.ingresses.iter().map(|listener| listener.bind.ip());
        self.address.into_iter().chain(inbounds).chain(ingresses).collect()
    }
}

/// Where a Dataplane says whose replicas it calls.
pub(super) const DIRECT: &str = "networking.transparentProxying.directAccessServices";

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What the rules of redirection hand over. Without ports there are none.
fn redirection(proxying: &TransparentProxying) -> Redirection {
    let port = |port| u16::try_from(port).ok().filter(|port| *port != 0);
    let families = match proxying.ip_family_mode() {
        IpFamilyMode::UnSpecified | IpFamilyMode::DualStack => &[Family::V4, Family::V6][..],
        IpFamilyMode::IPv4 => &[Family::V4],
        IpFamilyMode::IPv6 => &[Family::V6],
    };
    Redirection {
        families: families.iter().copied().collect(),
        outbound: port(proxying.redirect_port_outbound),
        inbound: port(proxying.redirect_port_inbound),
        ..Redirection::default()
    }
}

/// What a Dataplane says that its proxy does not do, since connections are redirected or are not.
fn unused(networking: &Networking, is_redirected: bool) -> Option<String> {
    let proxying = networking.transparent_proxying.as_ref()?;
    if is_redirected {
        let text = "networking.outbound: not used, since connections are redirected";
        return (!networking.outbound.is_empty()).then(|| text.to_owned());
    }
    let text = "not used, since connections are not redirected";
    (!proxying.direct_access_services.is_empty()).then(|| format!("{DIRECT}: {text}"))
}

fn inbound(message: &Message, address: &str, redirection: &Redirection) -> Result<Inbound, String> {
    let bind = if message.address.is_empty() { address } else { &message.address };
    let application = match &*message.service_address {
        "" => LOOPBACK,
        address => ip("networking.inbound.serviceAddress", address)?,
    };
    let service_port = if message.service_port == 0 { message.port } else { message.service_port };
    let bind = SocketAddr::new(ip("networking.address", bind)?, port(message.port)?);
    Ok(Inbound {
        redirected: redirection.takes(bind.ip()),
        section: dataplane::section(message).into_owned(),
        protocol: dataplane::protocol(message),
        bind,
        application: SocketAddr::new(application, port(service_port)?),
    })
}

fn ingress(listener: &Listener) -> Result<IngressListener, String> {
    let section = match &*listener.name {
        "" => listener.port.to_string(),
        name => name.to_owned(),
    };
    let address = ip("networking.listeners.address", &listener.address)?;
    Ok(IngressListener { section, bind: SocketAddr::new(address, port(listener.port)?) })
}

fn ip(field: &str, address: &str) -> Result<IpAddr, String> {
    address.parse().map_err(|_| format!("{field}: {address:?} is not an IP address"))
}

fn port(port: u32) -> Result<u16, String> {
    u16::try_from(port).map_err(|_| format!("{port} is not a port"))
}

/// Where the replicas `replicas` of a service take calls to one of its ports.
pub(super) fn addresses<'a>(
    replicas: impl Iterator<Item = &'a Replica>,
    port: &kinds::mesh_service::Port,
) -> impl Iterator<Item = SocketAddr> {
    replicas
        .flat_map(|replica| &replica.inbounds)
        .filter(|served| port.is_served_by(&served.message))
        .filter(|served| dataplane::is_healthy(&served.message))
        .map(|served| served.inbound.bind)
}

/// Where the replicas `replicas` of a service are for one of its ports, also those that take no calls
/// now: nobody talks to them without the mesh meanwhile.
pub(super) fn hosts<'a>(
    replicas: impl Iterator<Item = &'a Replica>,
    port: &kinds::mesh_service::Port,
) -> BTreeSet<SocketAddr> {
    let inbounds = replicas.flat_map(|replica| &replica.inbounds);
    let served = inbounds.filter(|served| port.is_served_by(&served.message));
    served.map(|served| served.inbound.bind).collect()
}

/// By name, as everything of a mesh.
pub(super) type Replicas = std::collections::BTreeMap<Name, Arc<Replica>>;
