//! A pod as a proxy of the mesh, or why it is none.

use super::{
    cluster::{Map, Namespace, Node, Phase, Pod, Service, ServicePort, Target},
    complaint::{Complaint, Verdict},
    names::{self, MANAGER},
    settings::Settings,
    transparent,
};
use crate::injection::injects;
use kinds::{dataplane::Dataplane, labels};
use proto::kuma::mesh::v1alpha1::{
    Dataplane as Message,
    dataplane::{
        Networking,
        networking::{Gateway, Inbound, Listener, inbound::State, listener},
    },
};
use resource::{Labels, MeshName, ResourceKey, label};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What of a cluster decides about one pod.
#[derive(Clone, Debug)]
pub(super) struct Around<'a> {
    pub(super) settings: &'a Settings,
    pub(super) namespace: Option<&'a Namespace>,
    pub(super) node: Option<&'a Node>,
    /// The Services that select it, the oldest first.
    pub(super) services: Vec<&'a Service>,
}

/// A Dataplane that shall be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Made {
    pub(super) key: ResourceKey,
    pub(super) labels: Labels,
    pub(super) spec: Dataplane,
}

/// Decides what `pod` is in the mesh.
pub(super) fn dataplane(pod: &Pod, around: &Around<'_>) -> Verdict<Made> {
    if pod.phase == Phase::Ended {
        return Verdict::nothing();
    }
    let zone_proxy = pod.meta.labels.get(names::ZONE_PROXY);
    let injected = pod.sidecar.is_some() && pod.meta.says_yes(names::INJECTED);
    if !injected && zone_proxy.is_none() {
        return Verdict::nothing().but(not_injected(pod, around));
    }
    // Nobody can call it yet.
    let Some(address) = pod.ips.first() else { return Verdict::nothing() };
    match made(pod, *address, zone_proxy.map(String::as_str), around) {
        Ok(made) => {
            let missed = unselected(pod, &made.spec, around).or_else(|| unserved(pod, around));
            Verdict::of(vec![made]).but(missed)
        }
        Err(complaint) => Verdict::kept_because(complaint),
    }
}

/// The mesh of an object of `namespace`.
pub(super) fn mesh(
    meta: &super::cluster::Meta,
    namespace: Option<&Namespace>,
) -> Result<MeshName, Complaint> {
    let own = meta.said(label::MESH);
    let inherited = || namespace.and_then(|namespace| namespace.meta.said(label::MESH));
    let name = own.or_else(inherited).unwrap_or("default");
    MeshName::new(name).map_err(|error| {
        Complaint::warning("InvalidMesh", format_args!("{}: {error}", label::MESH))
    })
}

fn not_injected(pod: &Pod, around: &Around<'_>) -> Option<Complaint> {
    if pod.meta.leaving {
        return None;
    }
    let of_namespace = || around.namespace.and_then(|it| it.meta.labels.get(names::INJECTION));
    let said = match pod.meta.said(names::INJECTION) {
        Some(said) => Some(("", said)),
        None => of_namespace().map(|said| ("of its namespace ", said.as_str())),
    };
    let (whose, said) = said?;
    let Some(injects) = injects(said) else {
        let label = names::INJECTION;
        let note = format!(
            "the pod is not in the mesh: the label {whose}{label}: {said:?} is neither enabled nor disabled"
        );
        return Some(Complaint::warning("InvalidLabel", note));
    };
    if !injects {
        return None;
    }
    if pod.host_network {
        return Some(Complaint::normal(
            "HostNetwork",
            "the pod is not in the mesh: it uses the network of its node",
        ));
    }
    Some(Complaint::warning(
        "NotInjected",
        format_args!(
            "the pod is not in the mesh: it has no container {}. It was created before {} was set, \
             or while the control plane was away: delete it so that it is created anew",
            names::SIDECAR,
            names::INJECTION
        ),
    ))
}

/// Said once the pod works: before that its Service may only be late.
fn unselected(pod: &Pod, spec: &Dataplane, around: &Around<'_>) -> Option<Complaint> {
    let is_called = !spec.inbounds().is_empty() && around.services.is_empty();
    (is_called && pod.ready && !pod.meta.leaving).then(|| {
        Complaint::normal(
            "NoService",
            "no Service selects the pod: it calls the mesh, and nobody calls it",
        )
    })
}

/// A Service that sends to a name that no container of the pod gave a port.
fn unserved(pod: &Pod, around: &Around<'_>) -> Option<Complaint> {
    let each = |service| move |port: &'_ ServicePort| (service, port.clone());
    let mut all = around.services.iter().flat_map(|it| it.ports.iter().map(each(*it)));
    let (service, port) = all.find(|(_, port)| resolve(pod, &port.target).is_none())?;
    let (service, number) = (&service.meta.name, port.port);
    let Target::Name(name) = port.target else { return None };
    pod.ready.then(|| {
        let note = format!(
            "the Service {service} does not reach the pod at its port {number}: no container has a \
             port called {name}"
        );
        Complaint::warning("NoTargetPort", note)
    })
}

fn made(
    pod: &Pod,
    address: IpAddr,
    zone_proxy: Option<&str>,
    around: &Around<'_>,
) -> Result<Made, Complaint> {
    let settings = around.settings;
    let mesh = mesh(&pod.meta, around.namespace)?;
    let name = names::in_view(&settings.system_namespace, &pod.meta.namespace, &pod.meta.name);
    let key = ResourceKey::in_mesh(&mesh, &name);
    let mut networking = Networking {
        address: address.to_string(),
        transparent_proxying: transparent::section(&pod.meta.annotations)?,
        admin: transparent::admin(&pod.meta.annotations)?,
        ..Networking::default()
    };
    if let Some(sort) = zone_proxy {
        networking.listeners = listeners(pod, address, sort, &around.services)?;
    } else if pod.meta.says_yes(names::GATEWAY) {
        networking.gateway = Some(Gateway::default());
    } else {
        networking.inbound = inbounds(pod, &around.services);
    }
    let spec = Dataplane(Message { networking: Some(networking) });
    let labels = labels(pod, &key, &spec, around);
    Ok(Made { key, labels, spec })
}

/// A port that a pod serves.
#[derive(Debug, Default)]
struct Served {
    name: Option<String>,
    protocol: Option<&'static str>,
    /// Some Service wants to be sent there before the pod is ready.
    early: bool,
}

/// The port of a pod that `target` means.
fn resolve(pod: &Pod, target: &Target) -> Option<(u16, Option<String>)> {
    match target {
        Target::Number(number) => Some((*number, None)),
        Target::Name(name) => {
            let port = pod.ports.iter().find(|port| port.name.as_ref() == Some(name))?;
            Some((port.port, Some(name.clone())))
        }
    }
}

/// One for each port that a Service selects, and for each that a container declares.
fn inbounds(pod: &Pod, services: &[&Service]) -> Vec<Inbound> {
    let mut served = BTreeMap::<u16, Served>::new();
    let each = |service| move |port: &'_ ServicePort| (service, port.clone());
    for (service, port) in services.iter().flat_map(|it| it.ports.iter().map(each(*it))) {
        let Some((number, name)) = resolve(pod, &port.target) else { continue };
        let served = served.entry(number).or_default();
        served.name = served.name.take().or(name);
        // The oldest Service that knows says what is spoken.
        let protocol = Some(service.protocol(&port)).filter(|protocol| *protocol != "tcp");
        served.protocol = served.protocol.or(protocol);
        served.early |= service.publish_not_ready;
    }
    let selected: BTreeSet<u16> = served.keys().copied().collect();
    for port in &pod.ports {
        let served = served.entry(port.port).or_default();
        served.name = served.name.take().or_else(|| port.name.clone());
    }
    let mut named = BTreeSet::new();
    let inbound = |(port, served): (u16, Served)| Inbound {
        port: port.into(),
        // Two containers may use one name; a Service that uses it means the first.
        name: served.name.filter(|name| named.insert(name.clone())).unwrap_or_default(),
        protocol: served.protocol.unwrap_or("tcp").into(),
        state: match selected.contains(&port) {
            true => state(pod, served.early),
            false => State::Ignored,
        }
        .into(),
        ..Inbound::default()
    };
    served.into_iter().map(inbound).collect()
}

/// Whether traffic may be sent to what a Service selects.
fn state(pod: &Pod, early: bool) -> State {
    let early = early && pod.sidecar.is_some_and(|sidecar| sidecar.ready);
    if !pod.meta.leaving && (pod.ready || early) { State::Ready } else { State::NotReady }
}

/// Where the proxy of a zone listens: where its Service sends, or at the port that is named after what
/// it is.
fn listeners(
    pod: &Pod,
    address: IpAddr,
    sort: &str,
    services: &[&Service],
) -> Result<Vec<Listener>, Complaint> {
    let kind = match sort {
        names::INGRESS => listener::Type::ZoneIngress,
        names::EGRESS => listener::Type::ZoneEgress,
        other => {
            let note = format!("{}: {other:?} is neither ingress nor egress", names::ZONE_PROXY);
            return Err(Complaint::warning("InvalidZoneProxy", note));
        }
    };
    let own = services.iter().filter(|service| service.zone_proxy().is_some());
    let mut ports = BTreeMap::<u16, Option<String>>::new();
    for port in own.flat_map(|service| &service.ports) {
        if let Some((number, _)) = resolve(pod, &port.target) {
            // As the oldest Service calls it.
            ports.entry(number).or_insert_with(|| port.name.clone());
        }
    }
    if ports.is_empty() {
        let named = pod.ports.iter().filter(|port| port.name.as_deref() == Some(sort));
        ports.extend(named.map(|port| (port.port, port.name.clone())));
    }
    if ports.is_empty() {
        let note =
            format!("no Service for zone proxies selects the pod, and it has no port {sort}");
        return Err(Complaint::warning("NoPort", note));
    }
    let ready = pod.ready && !pod.meta.leaving;
    let state = if ready { listener::State::Ready } else { listener::State::NotReady };
    let listener = |(port, name): (u16, Option<String>)| Listener {
        r#type: kind.into(),
        address: address.to_string(),
        port: port.into(),
        name: name.unwrap_or_default(),
        state: state.into(),
    };
    Ok(ports.into_iter().map(listener).collect())
}

/// What of the labels of an object goes on to what is made of it: what a control plane says of a
/// resource, nobody else says.
pub(super) fn passed_on(labels: &Map) -> impl Iterator<Item = (&str, &str)> {
    let all = labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    all.filter(|(key, _)| !label::is_reserved(key) || *key == label::SYNC)
}

fn labels(pod: &Pod, key: &ResourceKey, spec: &Dataplane, around: &Around<'_>) -> Labels {
    let settings = around.settings;
    let own = labels::own(kinds::dataplane::KIND, key, &settings.place);
    let wanted = settings.config.workload_labels.iter();
    let named = wanted.filter_map(|key| pod.meta.labels.get(key)).find(|value| !value.is_empty());
    let account = match &*pod.service_account {
        "" => "default",
        account => account,
    };
    let mut all: BTreeMap<&str, &str> = passed_on(&pod.meta.labels).collect();
    if let Some(node) = around.node {
        all.extend(node.topology.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    }
    all.extend(own.iter());
    all.extend([
        (label::DISPLAY_NAME, &*pod.meta.name),
        (label::NAMESPACE, &*pod.meta.namespace),
        (label::SERVICE_ACCOUNT, account),
        (label::WORKLOAD, named.map_or(account, String::as_str)),
        (label::MANAGED_BY, MANAGER),
    ]);
    for (key, sort) in [
        (label::LISTENER_ZONE_INGRESS, listener::Type::ZoneIngress),
        (label::LISTENER_ZONE_EGRESS, listener::Type::ZoneEgress),
    ] {
        if spec.has_listener(sort) {
            all.insert(key, label::ENABLED);
        }
    }
    all.into_iter().collect()
}
