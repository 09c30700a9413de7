//! What controllers keep of the objects of a cluster: nothing else of them matters here, and an
//! object of which nothing else changed has not changed.

use super::names::{self, PROTOCOL, SIDECAR, is_yes};
use crate::injection::injects;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{self as api, Container, ContainerStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    apimachinery::pkg::util::intstr::IntOrString,
};
use std::{collections::BTreeMap, net::IpAddr};

/// Labels or annotations.
pub(super) type Map = BTreeMap<String, String>;

/// Names an object of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// What all objects have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) labels: Map,
    /// Those that are about the mesh.
    pub(super) annotations: Map,
    /// It is being deleted.
    pub(super) leaving: bool,
    pub(super) created: Option<Timestamp>,
}

/// A port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerPort {
    pub(super) name: Option<String>,
    pub(super) port: u16,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// It runs, or will.
    #[default]
    Alive,
    /// It has done its work, or failed to.
    Ended,
}

/// The sidecar of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sidecar {
    pub(super) ready: bool,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pod {
    pub(super) meta: Meta,
    pub(super) service_account: String,
    pub(super) node: String,
    pub(super) hostname: String,
    pub(super) subdomain: String,
    pub(super) host_network: bool,
    pub(super) ips: Vec<IpAddr>,
    /// TCP ports of its application, in the order of its containers.
    pub(super) ports: Vec<ContainerPort>,
    pub(super) sidecar: Option<Sidecar>,
    pub(super) ready: bool,
    pub(super) phase: Phase,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServicePort {
    pub(super) name: Option<String>,
    pub(super) port: u16,
    pub(super) target: Target,
    pub(super) node_port: Option<u16>,
    pub(super) app_protocol: Option<String>,
}

/// Which port of a pod serves one of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The one with this number.
    Number(u16),
    /// The one with this name.
    Name(String),
}

/// How a Service gets its traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Reached {
    /// It is a name for something else.
    #[default]
    Elsewhere,
    /// At these addresses.
    ClusterIps(Vec<IpAddr>),
    /// At its pods.
    Headless,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Service {
    pub(super) meta: Meta,
    pub(super) selector: Map,
    /// Those for TCP.
    pub(super) ports: Vec<ServicePort>,
    /// How many ports it has in all.
    pub(super) all_ports: usize,
    pub(super) reached: Reached,
    /// `NodePort` or `LoadBalancer`, if it is one of these.
    pub(super) outside: Option<Outside>,
    pub(super) external_ips: Vec<String>,
    pub(super) publish_not_ready: bool,
}

/// How a Service is reached from outside of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outside {
    /// At a port of every node.
    NodePort,
    /// At these IPs or host names, once there are any.
    LoadBalancer(Vec<String>),
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Namespace {
    pub(super) meta: Meta,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Node {
    pub(super) name: String,
    /// Where it is.
    pub(super) topology: Map,
    /// How it is reached: from outside if it is said, else from within.
    pub(super) address: Option<String>,
}

impl Meta {
    fn of(meta: ObjectMeta) -> Self {
        let labels = meta.labels.unwrap_or_default();
        let mut annotations = meta.annotations.unwrap_or_default();
        let is_ours = |key: &str| key.starts_with("kuma.io/") || key.starts_with("k8s.kuma.io/");
        annotations.retain(|key, _| is_ours(key) || key.ends_with(PROTOCOL));
        Self {
            name: meta.name.unwrap_or_default(),
            namespace: meta.namespace.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            labels,
            annotations,
            leaving: meta.deletion_timestamp.is_some(),
            created: meta.creation_timestamp.map(|time| time.0),
        }
    }

    pub(super) fn id(&self) -> Id {
        Id { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// What a label or an annotation says, wherever it stands.
    pub(super) fn said(&self, key: &str) -> Option<&str> {
        self.labels.get(key).or_else(|| self.annotations.get(key)).map(String::as_str)
    }

    pub(super) fn says_yes(&self, key: &str) -> bool {
        self.said(key).is_some_and(is_yes)
    }
}

impl From<api::Pod> for Pod {
    fn from(pod: api::Pod) -> Self {
        let (spec, status) = (pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
        let restartable = |it: &&Container| it.restart_policy.as_deref() == Some("Always");
        let init = spec.init_containers.iter().flatten().filter(restartable);
        let containers: Vec<&Container> = spec.containers.iter().chain(init).collect();
        let has_sidecar = containers.iter().any(|container| container.name == SIDECAR);
        let statuses = [&status.container_statuses, &status.init_container_statuses];
        let statuses = statuses.into_iter().flatten().flatten();
        let ready = |it: &ContainerStatus| it.name == SIDECAR && it.ready;
        let sidecar = has_sidecar.then(|| Sidecar { ready: statuses.clone().any(ready) });
        let conditions = status.conditions.unwrap_or_default();
        let listed = status.pod_ips.unwrap_or_default().into_iter().map(|ip| ip.ip);
        let first = status.pod_ip.into_iter();
        let mut ips: Vec<IpAddr> = Vec::new();
        for ip in first.chain(listed).filter_map(|ip| ip.parse().ok()) {
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        let meta = Meta::of(pod.metadata);
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        Self {
            ports: container_ports(&containers, meta.labels.contains_key(names::ZONE_PROXY)),
            meta,
            service_account: spec.service_account_name.unwrap_or_default(),
            node: spec.node_name.unwrap_or_default(),
            hostname: spec.hostname.unwrap_or_default(),
            subdomain: spec.subdomain.unwrap_or_default(),
            host_network: spec.host_network.unwrap_or_default(),
            ips,
            sidecar,
            ready: conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True"),
            phase: if ended { Phase::Ended } else { Phase::Alive },
        }
    }
}

/// Those of the application. The proxy of a zone has no application but itself.
fn container_ports(containers: &[&Container], is_zone_proxy: bool) -> Vec<ContainerPort> {
    let app = containers.iter().filter(|container| is_zone_proxy || container.name != SIDECAR);
    let ports = app.flat_map(|container| container.ports.iter().flatten());
    let tcp = ports.filter(|port| is_tcp(port.protocol.as_deref()));
    let port = |port: &api::ContainerPort| {
        let name = port.name.clone().filter(|name| !name.is_empty());
        Some(ContainerPort { name, port: number(port.container_port)? })
    };
    tcp.filter_map(port).collect()
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

impl From<api::Service> for Service {
    fn from(service: api::Service) -> Self {
        let (spec, status) = (service.spec.unwrap_or_default(), service.status.unwrap_or_default());
        let all = spec.ports.unwrap_or_default();
        let all_ports = all.len();
        let tcp = all.into_iter().filter(|port| is_tcp(port.protocol.as_deref()));
        let points = status.load_balancer.unwrap_or_default().ingress.unwrap_or_default();
        let points = points.into_iter().filter_map(|it| it.ip.or(it.hostname)).collect();
        Self {
            meta: Meta::of(service.metadata),
            selector: spec.selector.unwrap_or_default(),
            ports: tcp.filter_map(service_port).collect(),
            all_ports,
            reached: reached(
                spec.type_.as_deref(),
                spec.cluster_ip,
                spec.cluster_ips.unwrap_or_default(),
            ),
            outside: match spec.type_.as_deref() {
                Some("NodePort") => Some(Outside::NodePort),
                Some("LoadBalancer") => Some(Outside::LoadBalancer(points)),
                _ => None,
            },
            external_ips: spec.external_ips.unwrap_or_default(),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
        }
    }
}

fn reached(sort: Option<&str>, first: Option<String>, all: Vec<String>) -> Reached {
    if sort == Some("ExternalName") {
        return Reached::Elsewhere;
    }
    let all = if all.is_empty() { first.into_iter().collect() } else { all };
    if all.iter().any(|ip| ip == "None") {
        return Reached::Headless;
    }
    let ips: Vec<IpAddr> = all.iter().filter_map(|ip| ip.parse().ok()).collect();
    if ips.is_empty() { Reached::Elsewhere } else { Reached::ClusterIps(ips) }
}

fn service_port(port: api::ServicePort) -> Option<ServicePort> {
    let own = number(port.port)?;
    let target = match port.target_port {
        None => Target::Number(own),
        Some(IntOrString::Int(0)) => Target::Number(own),
        Some(IntOrString::Int(target)) => Target::Number(number(target)?),
        // A number may be written as a text.
        Some(IntOrString::String(name)) => match name.parse().ok().and_then(number) {
            Some(target) => Target::Number(target),
            None => Target::Name(name),
        },
    };
    Some(ServicePort {
        name: port.name.filter(|name| !name.is_empty()),
        port: own,
        target,
        node_port: port.node_port.and_then(number),
        app_protocol: port.app_protocol,
    })
}

impl From<api::Namespace> for Namespace {
    fn from(namespace: api::Namespace) -> Self {
        let status = namespace.status.unwrap_or_default();
        let mut meta = Meta::of(namespace.metadata);
        meta.leaving |= status.phase.as_deref() == Some("Terminating");
        meta.labels.retain(|key, _| resource::label::is_reserved(key));
        Self { meta }
    }
}

impl From<api::Node> for Node {
    fn from(node: api::Node) -> Self {
        let mut topology = node.metadata.labels.unwrap_or_default();
        topology.retain(|key, _| names::TOPOLOGY.contains(&&**key));
        let addresses = node.status.unwrap_or_default().addresses.unwrap_or_default();
        let of = |sort: &str| addresses.iter().find(|it| it.type_ == sort);
        let address = of("ExternalIP").or_else(|| of("InternalIP"));
        let address = address.map(|it| it.address.clone());
        Self { name: node.metadata.name.unwrap_or_default(), topology, address }
    }
}

impl Namespace {
    /// Whether its pods get sidecars.
    pub(super) fn injects(&self) -> bool {
        self.meta.labels.get(names::INJECTION).is_some_and(|it| injects(it) == Some(true))
    }
}

impl Service {
    /// Whether it selects a pod with `labels`. One without a selector selects none.
    pub(super) fn selects(&self, labels: &Map) -> bool {
        let has = |(key, value)| labels.get(key) == Some(value);
        !self.selector.is_empty() && self.selector.iter().all(has)
    }

    /// Whether it is about the proxy of a zone, and of which sort.
    pub(super) fn zone_proxy(&self) -> Option<&str> {
        self.meta.said(names::ZONE_PROXY)
    }

    /// What is spoken on one of its ports, as far as that is known here.
    pub(super) fn protocol(&self, port: &ServicePort) -> &'static str {
        let said = port.app_protocol.as_deref().and_then(protocol);
        let annotated = || self.meta.annotations.get(&format!("{}{PROTOCOL}", port.port));
        said.or_else(|| annotated().and_then(|text| protocol(text))).unwrap_or("tcp")
    }
}

fn protocol(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "http" | "kubernetes.io/ws" => Some("http"),
        "http2" | "h2c" | "kubernetes.io/h2c" => Some("http2"),
        "grpc" => Some("grpc"),
        "tcp" | "https" | "kubernetes.io/wss" => Some("tcp"),
        _ => None,
    }
}
