//! Whether pods that shall be in the mesh are.

use super::{
    cluster::{Cluster, items, label, some, text},
    control_plane::hindered,
    report::Group,
};
use serde_json::Value;
use std::collections::BTreeSet;

const INJECTION: &str = "kuma.io/sidecar-injection";
const SIDECAR: &str = "kuma-sidecar";

pub(super) async fn look(cluster: &Cluster) -> Group {
    let mut group = Group::new("Workloads");
    let check = "Pods of namespaces in the mesh have a sidecar";
    let namespaces = match cluster.list("/api/v1/namespaces").await {
        Ok(namespaces) => namespaces,
        Err(refusal) => {
            group.unread(check, &refusal);
            return group;
        }
    };
    let in_mesh: BTreeSet<&str> = namespaces
        .iter()
        .filter(|namespace| says_yes(label(namespace, INJECTION)))
        .map(|namespace| text(namespace, "/metadata/name"))
        .collect();
    let pods = match cluster.list("/api/v1/pods").await {
        Ok(pods) => pods,
        Err(refusal) => {
            group.unread(check, &refusal);
            return group;
        }
    };
    let (with, without): (Vec<&Value>, Vec<&Value>) =
        pods.iter().filter(|pod| is_meant(pod, &in_mesh)).partition(|pod| sidecar(pod).is_some());
    if without.is_empty() {
        group.fine(check);
    } else {
        let found = format!("these have none: {}", some(&names(&without)));
        group.warn(
            check,
            found,
            "Start them anew, as by `kubectl rollout restart`. Events of the pods say more.",
        );
    }
    let check = "Sidecars are ready";
    let not_ready: Vec<&Value> = with.into_iter().filter(|pod| !serves(pod)).collect();
    if not_ready.is_empty() {
        group.fine(check);
    } else {
        let reasons =
            not_ready.iter().find_map(|pod| hindered(pod)).map(|reason| format!("\n{reason}"));
        let found = format!("not in {}{}", some(&names(&not_ready)), reasons.unwrap_or_default());
        group.warn(
            check,
            found,
            format!("Look at `kubectl logs POD --container {SIDECAR}`, and at events of the pods."),
        );
    }
    group
}

fn says_yes(value: &str) -> bool {
    matches!(value, "enabled" | "true")
}

/// Whether a pod shall be in the mesh, and runs or will.
fn is_meant(pod: &Value, in_mesh: &BTreeSet<&str>) -> bool {
    let meant = match label(pod, INJECTION) {
        "" => in_mesh.contains(text(pod, "/metadata/namespace")),
        said => says_yes(said),
    };
    let ends = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
        || pod.pointer("/metadata/deletionTimestamp").is_some();
    // Of a pod in the network of its node nothing can be intercepted.
    let on_node = pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true));
    meant && !ends && !on_node
}

fn sidecar(pod: &Value) -> Option<&Value> {
    let containers = ["/spec/initContainers", "/spec/containers"];
    containers.iter().flat_map(|path| items(pod, path)).find(|it| text(it, "/name") == SIDECAR)
}

fn serves(pod: &Value) -> bool {
    let containers = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let mut statuses = containers.iter().flat_map(|path| items(pod, path));
    statuses
        .any(|it| text(it, "/name") == SIDECAR && it.pointer("/ready") == Some(&Value::Bool(true)))
}

fn names(pods: &[&Value]) -> Vec<String> {
    let name = |pod: &&Value| {
        format!("{}/{}", text(pod, "/metadata/namespace"), text(pod, "/metadata/name"))
    };
    pods.iter().map(name).collect()
}
