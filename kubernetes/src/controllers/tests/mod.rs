//! Controllers as a whole: from objects of a cluster to resources.

mod golden;
mod marks;
mod running;

use super::{
    cluster::{Id, Namespace, Node, Pod, Service},
    settings::{Config, Settings},
    tables::Tables,
    watch::{Change, Step},
};
use k8s_openapi::api::core::v1 as api;
use kinds::labels::{Env, Place};
use kube::ResourceExt as _;
use resource::ZoneName;
use serde_json::{Value, json};

fn settings() -> Settings {
    Settings {
        place: Place::Zone { name: ZoneName::new("east").unwrap(), env: Env::Kubernetes },
        system_namespace: "kuma-system".into(),
        config: Config::default(),
    }
}

fn parse<K: serde::de::DeserializeOwned + kube::Resource<DynamicType = ()>>(
    object: Value,
) -> (Id, K) {
    let object: K = serde_json::from_value(object).unwrap();
    let id = Id { namespace: object.namespace().unwrap_or_default(), name: object.name_any() };
    (id, object)
}

/// What is heard when `object` is there.
fn put(object: Value) -> Change {
    match object.get("kind").and_then(Value::as_str).unwrap_or_default() {
        "Pod" => {
            let (id, pod) = parse::<api::Pod>(object);
            Change::Pod(Step::Put(id, Pod::from(pod)))
        }
        "Service" => {
            let (id, service) = parse::<api::Service>(object);
            Change::Service(Step::Put(id, Service::from(service)))
        }
        "Namespace" => {
            let (id, namespace) = parse::<api::Namespace>(object);
            Change::Namespace(Step::Put(id, Namespace::from(namespace)))
        }
        "Node" => {
            let (id, node) = parse::<api::Node>(object);
            Change::Node(Step::Put(id, Node::from(node)))
        }
        other => panic!("no object of a cluster: {other:?}"),
    }
}

/// Tables that know of `objects`, and that there is nothing else.
fn tables(objects: impl IntoIterator<Item = Value>) -> Tables {
    let mut tables = Tables::new(settings());
    let begin =
        [Change::Pod(Step::Begin), Change::Service(Step::Begin), Change::Namespace(Step::Begin)];
    begin.into_iter().chain([Change::Node(Step::Begin)]).for_each(|change| tables.apply(change));
    objects.into_iter().map(put).for_each(|change| tables.apply(change));
    let complete = [
        Change::Pod(Step::Complete),
        Change::Service(Step::Complete),
        Change::Namespace(Step::Complete),
        Change::Node(Step::Complete),
    ];
    complete.into_iter().for_each(|change| tables.apply(change));
    tables
}

/// A pod in the mesh, which is ready.
fn pod(name: &str, app: &str, ip: &str) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": format!("uid-{name}"),
            "labels": { "app": app },
            "annotations": { "kuma.io/sidecar-injected": "true" },
        },
        "spec": {
            "serviceAccountName": app,
            "containers": [{ "name": "app", "ports": [{ "name": "http", "containerPort": 8080 }] }],
            "initContainers": [{ "name": "kuma-sidecar", "restartPolicy": "Always" }],
        },
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

/// A Service for the pods of `name`.
fn service(name: &str, ip: &str) -> Value {
    json!({
        "kind": "Service",
        "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}") },
        "spec": {
            "selector": { "app": name },
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ports": [{ "name": "web", "port": 80, "targetPort": "http", "appProtocol": "http" }],
        },
    })
}

fn namespace(name: &str) -> Value {
    let labels = json!({ "kuma.io/sidecar-injection": "enabled" });
    json!({ "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

/// `object` with other values at some pointers.
fn with<const N: usize>(mut object: Value, changes: [(&str, Value); N]) -> Value {
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key.replace("~1", "/")] = value;
    }
    object
}
