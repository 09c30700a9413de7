//! Before something is installed: whether we may install it.

use super::{
    cluster::{Cluster, some},
    report::Group,
};
use serde_json::{Value, json};

/// What the manifests create, as group and resource; those of the namespace, and those of the cluster.
const NAMESPACED: [(&str, &str); 9] = [
    ("", "configmaps"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("apps", "deployments"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
];
const OF_CLUSTER: [(&str, &str); 6] = [
    ("", "namespaces"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "clusterroles"),
];

pub(super) async fn look(cluster: &Cluster) -> Group {
    let mut group = Group::new("Your rights");
    let check = "You may create all that is installed";
    let namespaced = NAMESPACED.map(|what| (Some(cluster.namespace.as_str()), what));
    let mut denied = Vec::new();
    for (namespace, (api, resource)) in
        namespaced.into_iter().chain(OF_CLUSTER.map(|what| (None, what)))
    {
        let asked = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": {
                "group": api, "resource": resource, "verb": "create", "namespace": namespace,
            }},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        match cluster.post(path, &asked).await {
            Ok(answer) if answer.pointer("/status/allowed") == Some(&Value::Bool(true)) => {}
            Ok(_) => denied.push(resource.to_owned()),
            Err(refusal) => {
                group.unread(check, &refusal);
                return group;
            }
        }
    }
    if denied.is_empty() {
        group.fine(check);
    } else {
        let found = format!("you may not create {}", some(&denied));
        group.fail(check, found, "Install as somebody with the ClusterRole cluster-admin.");
    }
    group
}
