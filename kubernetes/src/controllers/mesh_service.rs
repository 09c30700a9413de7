//! A Service as services of the mesh, or why it is none.

use super::{
    cluster::{Namespace, Phase, Pod, Reached, Service, ServicePort, Target},
    complaint::{Complaint, Verdict},
    dataplane::{mesh, passed_on},
    names::{self, MANAGER, ORDINAL, SERVICE_NAME},
    settings::Settings,
};
use kinds::{
    IntOrString, LabelSelector, labels,
    mesh_service::{Address, DataplaneRef, GENERATED, MeshService, Port, Selector, Status, Vip},
};
use resource::{Labels, MeshName, ResourceKey, label};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Who made the names that the DNS of the cluster answers.
const KUBERNETES: &str = "Kubernetes";

/// What of a cluster decides about one Service.
#[derive(Clone, Debug)]
pub(super) struct Around<'a> {
    pub(super) settings: &'a Settings,
    pub(super) namespace: Option<&'a Namespace>,
    /// The pods behind it, by name; not needed unless it is headless.
    pub(super) pods: Vec<&'a Pod>,
    /// Addresses of pods at which an older headless Service is called already.
    pub(super) taken: BTreeSet<IpAddr>,
}

/// A MeshService that shall be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Made {
    pub(super) key: ResourceKey,
    pub(super) labels: Labels,
    pub(super) selector: Selector,
    pub(super) ports: Vec<Port>,
    /// Its addresses in the cluster. None: it is given one.
    pub(super) vips: Vec<IpAddr>,
    /// Its name in the DNS of the cluster.
    pub(super) hostname: Option<String>,
}

/// Decides what `service` is in the mesh.
pub(super) fn mesh_services(service: &Service, around: &Around<'_>) -> Verdict<Made> {
    if !is_considered(service, around.namespace) {
        return Verdict::nothing();
    }
    let mesh = match mesh(&service.meta, around.namespace) {
        Ok(mesh) => mesh,
        Err(complaint) => return Verdict::kept_because(complaint),
    };
    if service.ports.is_empty() {
        let note = match service.all_ports {
            0 => "the Service is not in the mesh: it has no port",
            _ => "the Service is not in the mesh: it has no TCP port",
        };
        return Verdict::none_because(Complaint::warning("NoPort", note));
    }
    match &service.reached {
        Reached::Elsewhere => Verdict::nothing(),
        Reached::ClusterIps(ips) => Verdict::of(vec![of_cluster(service, ips, &mesh, around)]),
        Reached::Headless => {
            let pods = around.pods.iter().filter(|pod| is_behind(pod, &mesh, around));
            Verdict::of(pods.map(|pod| of_pod(service, pod, &mesh, around)).collect())
        }
    }
}

/// Whether anybody expects that it is in the mesh. One without a selector is served by who knows
/// whom.
fn is_considered(service: &Service, namespace: Option<&Namespace>) -> bool {
    let meta = &service.meta;
    let wanted = namespace.is_some_and(Namespace::injects) || meta.labels.contains_key(label::MESH);
    wanted
        && !meta.says_yes(names::IGNORE)
        && !meta.says_yes(names::GATEWAY)
        && service.zone_proxy().is_none()
        && !service.selector.is_empty()
}

/// Whether `pod` is a proxy of `mesh` that can be called.
fn is_behind(pod: &Pod, of: &MeshName, around: &Around<'_>) -> bool {
    pod.phase == Phase::Alive
        && pod.sidecar.is_some()
        && pod.meta.says_yes(names::INJECTED)
        && !pod.ips.is_empty()
        && mesh(&pod.meta, around.namespace).as_ref() == Ok(of)
}

fn of_cluster(service: &Service, ips: &[IpAddr], mesh: &MeshName, around: &Around<'_>) -> Made {
    let meta = &service.meta;
    let mut match_labels = service.selector.clone();
    match_labels.insert(label::NAMESPACE.into(), meta.namespace.clone());
    let domain = &around.settings.config.cluster_domain;
    let key = key(mesh, &meta.name, &meta.namespace, around.settings);
    Made {
        labels: labels(service, &meta.name, &key, None, around.settings),
        selector: Selector {
            dataplane_labels: Some(LabelSelector { match_labels }),
            dataplane_ref: None,
        },
        ports: ports(service),
        vips: ips.to_vec(),
        hostname: Some(format!("{}.{}.svc.{domain}", meta.name, meta.namespace)),
        key,
    }
}

fn of_pod(service: &Service, pod: &Pod, mesh: &MeshName, around: &Around<'_>) -> Made {
    let (meta, settings) = (&service.meta, around.settings);
    let name = names::of_pod(&meta.name, &pod.meta.name);
    let proxy = names::in_view(&settings.system_namespace, &pod.meta.namespace, &pod.meta.name);
    let key = key(mesh, &name, &meta.namespace, settings);
    let has_name = !pod.hostname.is_empty() && pod.subdomain == meta.name;
    let domain = &settings.config.cluster_domain;
    let hostname = format!("{}.{}.{}.svc.{domain}", pod.hostname, meta.name, meta.namespace);
    Made {
        labels: labels(service, &name, &key, Some(pod), settings),
        selector: Selector {
            dataplane_ref: Some(DataplaneRef { name: proxy }),
            dataplane_labels: None,
        },
        ports: ports(service),
        vips: pod.ips.iter().filter(|ip| !around.taken.contains(ip)).copied().collect(),
        hostname: has_name.then_some(hostname),
        key,
    }
}

fn key(mesh: &MeshName, name: &str, namespace: &str, settings: &Settings) -> ResourceKey {
    ResourceKey::in_mesh(mesh, &names::in_view(&settings.system_namespace, namespace, name))
}

fn ports(service: &Service) -> Vec<Port> {
    let port = |port: &ServicePort| Port {
        name: port.name.clone(),
        port: port.port.into(),
        target_port: Some(match &port.target {
            Target::Number(number) => IntOrString::Int((*number).into()),
            Target::Name(name) => IntOrString::String(name.clone()),
        }),
        app_protocol: service.protocol(port).into(),
    };
    service.ports.iter().map(port).collect()
}

fn labels(
    service: &Service,
    name: &str,
    key: &ResourceKey,
    pod: Option<&Pod>,
    settings: &Settings,
) -> Labels {
    let own = labels::own(kinds::mesh_service::KIND, key, &settings.place);
    let mut all: BTreeMap<&str, &str> = passed_on(&service.meta.labels).collect();
    let ordinal = |pod: &'_ Pod| ORDINAL.map(|key| Some((key, pod.meta.labels.get(key)?.clone())));
    let ordinal: Vec<_> = pod.map(ordinal).into_iter().flatten().flatten().collect();
    all.extend(ordinal.iter().map(|(key, value)| (*key, value.as_str())));
    all.extend(own.iter());
    all.extend([
        (label::DISPLAY_NAME, name),
        (label::NAMESPACE, &*service.meta.namespace),
        (label::MANAGED_BY, MANAGER),
        (SERVICE_NAME, &*service.meta.name),
        (label::HEADLESS, if pod.is_some() { "true" } else { "false" }),
    ]);
    all.into_iter().collect()
}

impl Made {
    /// What is written: the zone keeps the rest of what is there, and goes on from that.
    pub(super) fn on(&self, before: Option<(&MeshService, &Status)>) -> (MeshService, Status) {
        let (selector, ports) = (self.selector.clone(), self.ports.clone());
        let spec = MeshService { selector, ports, ..MeshService::default() };
        let (spec, mut status) = match before {
            Some((before, status)) => (spec.kept(before), status.clone()),
            None => (spec, Status::default()),
        };
        if !self.vips.is_empty() {
            status.vips = self.vips.iter().map(|ip| Vip { ip: ip.to_string() }).collect();
        }
        let named = self.hostname.iter().map(|hostname| Address {
            hostname: hostname.clone(),
            origin: KUBERNETES.into(),
            hostname_generator_ref: None,
        });
        let generated = std::mem::take(&mut status.addresses).into_iter();
        let generated = generated.filter(|address| address.origin == GENERATED);
        status.addresses = named.chain(generated).collect();
        (spec, status)
    }
}
