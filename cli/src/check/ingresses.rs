//! Whether other zones get in.

use super::{
    cluster::{Cluster, items, label, text},
    control_plane::{hindered, is_ready},
    report::Group,
};
use serde_json::Value;

const ZONE_PROXY: &str = "k8s.kuma.io/zone-proxy-type%3Dingress";

pub(super) async fn look(cluster: &Cluster) -> Group {
    let mut group = Group::new("Ingresses");
    let check = "Other zones get in";
    let read = async {
        let services =
            cluster.list(&format!("/api/v1/services?labelSelector={ZONE_PROXY}")).await?;
        let pods = cluster.list(&format!("/api/v1/pods?labelSelector={ZONE_PROXY}")).await?;
        let addresses = cluster.list("/apis/kuma.io/v1alpha1/meshzoneaddresses").await?;
        Ok((services, pods, addresses))
    };
    let (services, pods, addresses) = match read.await {
        Ok(read) => read,
        Err(refusal) => {
            group.unread(check, &refusal);
            return group;
        }
    };
    if services.is_empty() {
        let found = "there is no Service with the label k8s.kuma.io/zone-proxy-type: ingress";
        group.warn(
            check,
            found,
            "If others shall call what is here, name the mesh in `meshes` of the chart.",
        );
    }
    for service in &services {
        one(service, &pods, &addresses, &mut group);
    }
    group
}

fn one(service: &Value, pods: &[Value], addresses: &[Value], group: &mut Group) {
    let mesh = match label(service, "kuma.io/mesh") {
        "" => "default",
        mesh => mesh,
    };
    let [namespace, name] =
        ["/metadata/namespace", "/metadata/name"].map(|path| text(service, path));
    let check = format!("Other zones get into the mesh {mesh} by {namespace}/{name}");
    let of_service: Vec<&Value> = pods.iter().filter(|pod| selects(service, pod)).collect();
    let advertised = addresses.iter().find(|address| {
        label(address, "kuma.io/mesh") == mesh && text(address, "/metadata/namespace") == namespace
    });
    if !of_service.iter().any(|pod| is_ready(pod)) {
        let reason = of_service.iter().find_map(|pod| hindered(pod));
        let found = match (of_service.first(), reason) {
            (None, _) => "it has no pod".to_owned(),
            (Some(pod), Some(reason)) => format!("{}: {reason}", text(pod, "/metadata/name")),
            (Some(pod), None) => format!("{} is not ready", text(pod, "/metadata/name")),
        };
        group.fail(check, found, format!("Look at `kubectl --namespace {namespace} logs POD`."));
    } else if advertised.is_some() {
        group.fine(check);
    } else if text(service, "/spec/type") == "LoadBalancer" && no_address(service) {
        let todo = "If nothing in this cluster gives addresses to load balancers, use type NodePort, or externalIPs.";
        group.fail(check, "its load balancer has no address yet", todo);
    } else {
        let todo = format!(
            "Look at `kubectl --namespace {namespace} describe service {name}`: events say why."
        );
        group.fail(check, "no MeshZoneAddress was made of it", todo);
    }
}

fn selects(service: &Value, pod: &Value) -> bool {
    let selector = service.pointer("/spec/selector").and_then(Value::as_object);
    let same_namespace = text(service, "/metadata/namespace") == text(pod, "/metadata/namespace");
    same_namespace
        && selector.is_some_and(|selector| {
            selector.iter().all(|(key, value)| value.as_str() == Some(label(pod, key)))
        })
}

fn no_address(service: &Value) -> bool {
    items(service, "/status/loadBalancer/ingress").is_empty()
        && items(service, "/spec/externalIPs").is_empty()
}
