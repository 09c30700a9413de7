//! Where other zones come in: the Service of an ingress as a MeshZoneAddress.

use super::{
    cluster::{Namespace, Node, Outside, Pod, Service},
    complaint::{Complaint, Verdict},
    dataplane::mesh,
    names::{self, MANAGER, SERVICE_NAME},
    settings::Settings,
};
use kinds::{labels, mesh_zone_address::MeshZoneAddress};
use resource::{Labels, ResourceKey, label};

/// What of a cluster decides about the Service of an ingress.
#[derive(Clone, Debug)]
pub(super) struct Around<'a> {
    pub(super) settings: &'a Settings,
    pub(super) namespace: Option<&'a Namespace>,
    /// The pods behind it, each with its node, by name.
    pub(super) pods: Vec<(&'a Pod, Option<&'a Node>)>,
}

/// A MeshZoneAddress that shall be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Made {
    pub(super) key: ResourceKey,
    pub(super) labels: Labels,
    pub(super) spec: MeshZoneAddress,
}

/// Decides where other zones reach the ingress behind `service`, which is there as long as one of its
/// pods is ready.
pub(super) fn zone_address(service: &Service, around: &Around<'_>) -> Verdict<Made> {
    match service.zone_proxy() {
        Some(names::INGRESS) => {}
        // Nobody comes in there.
        Some(_) | None => return Verdict::nothing(),
    }
    let mesh = match mesh(&service.meta, around.namespace) {
        Ok(mesh) => mesh,
        Err(complaint) => return Verdict::kept_because(complaint),
    };
    let is_ready = |pod: &Pod| {
        let is_ingress = pod.meta.labels.get(names::ZONE_PROXY).map(String::as_str);
        is_ingress == Some(names::INGRESS) && pod.ready && !pod.meta.leaving
    };
    let mut ready = around.pods.iter().filter(|(pod, _)| is_ready(pod)).peekable();
    if ready.peek().is_none() {
        return Verdict::nothing();
    }
    let node = ready.find_map(|(_, node)| node.and_then(|node| node.address.as_deref()));
    match address(service, node) {
        Ok(spec) => {
            let meta = &service.meta;
            let settings = around.settings;
            let name = names::in_view(&settings.system_namespace, &meta.namespace, &meta.name);
            let key = ResourceKey::in_mesh(&mesh, &name);
            let labels = labels(service, &key, settings);
            Verdict::of(vec![Made { key, labels, spec }])
        }
        Err(complaint) => Verdict::none_because(complaint),
    }
}

fn address(service: &Service, node: Option<&str>) -> Result<MeshZoneAddress, Complaint> {
    let Some(port) = service.ports.first() else {
        return Err(Complaint::warning("NoPort", "the Service of the ingress has no TCP port"));
    };
    let at = |address: &str, port: u16| {
        Ok(MeshZoneAddress { address: address.to_owned(), port: port.into() })
    };
    if let Some(Outside::LoadBalancer(points)) = &service.outside
        && let Some(point) = points.first()
    {
        return at(point, port.port);
    }
    if let Some(address) = service.external_ips.first() {
        return at(address, port.port);
    }
    match (&service.outside, node, port.node_port) {
        (Some(Outside::NodePort), Some(node), Some(port)) => at(node, port),
        (Some(Outside::NodePort), ..) => {
            Err(Complaint::warning("NoAddress", "the node of the ingress has no address"))
        }
        (Some(Outside::LoadBalancer(_)), ..) => {
            Err(Complaint::normal("NoAddress", "the load balancer has no address yet"))
        }
        (None, ..) => Err(Complaint::warning(
            "NoAddress",
            "other zones cannot reach the ingress: the Service must be a LoadBalancer or a \
             NodePort, or have externalIPs",
        )),
    }
}

fn labels(service: &Service, key: &ResourceKey, settings: &Settings) -> Labels {
    let own = labels::own(kinds::mesh_zone_address::KIND, key, &settings.place);
    let ours = [
        (label::DISPLAY_NAME, &*service.meta.name),
        (label::NAMESPACE, &*service.meta.namespace),
        (label::MANAGED_BY, MANAGER),
        (SERVICE_NAME, &*service.meta.name),
    ];
    own.iter().chain(ours).collect()
}
