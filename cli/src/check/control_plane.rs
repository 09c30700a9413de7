//! Whether the control plane runs, and may do what it does.

use super::{
    cluster::{Cluster, Refusal, holds, items, label, some, text},
    report::Group,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// The name of the Deployment, its account, its roles and its Service.
pub(super) const NAME: &str = "atoll-zone-cp";
/// The label of the pod that works.
const ACTIVE: &str = "atoll.io/active";
const LEASE: &str = "cp-leader-lease";
/// What it may; its roles are made of this.
const ACCESS: &str = include_str!("../../../deploy/helm/atoll/access.yaml");
const UPGRADE: &str =
    "Run `helm upgrade`, or `atoll install control-plane` with the values of before.";

pub(super) async fn look(cluster: &Cluster, now: Timestamp) -> Group {
    let mut group = Group::new("Control plane");
    let check = format!("The Deployment {NAME} is there");
    let deployment = match cluster.own("/apis/apps/v1", "deployments", NAME).await {
        Ok(deployment) => deployment,
        Err(Refusal::Absent) => {
            let found = format!("the namespace {} has none", cluster.namespace);
            group.fail(
                check,
                found,
                "Install it (docs/kubernetes.md), or say its namespace by --namespace.",
            );
            return group;
        }
        Err(refusal) => {
            group.unread(check, &refusal);
            return group;
        }
    };
    group.fine(check);
    let version = label(&deployment, "app.kubernetes.io/version");
    let ours = env!("CARGO_PKG_VERSION");
    if version == ours {
        group.fine("It is of the version of this program");
    } else {
        let found = format!("it is {version}, this is {ours}");
        group.warn("It is of the version of this program", found, UPGRADE);
    }
    ready(cluster, &mut group).await;
    credential(cluster, &deployment, &mut group).await;
    lease(cluster, now, &mut group).await;
    roles(cluster, &mut group).await;
    group
}

/// The pods of the control plane.
pub(super) async fn pods(cluster: &Cluster) -> Result<Vec<Value>, Refusal> {
    let selector =
        "labelSelector=app.kubernetes.io/name%3Datoll%2Capp.kubernetes.io/component%3Dzone-cp";
    cluster.list(&format!("/api/v1/namespaces/{}/pods?{selector}", cluster.namespace)).await
}

/// The pod that callers get to.
pub(super) fn active(pods: &[Value]) -> Option<&Value> {
    pods.iter().find(|pod| label(pod, ACTIVE) == "true" && is_ready(pod))
}

async fn ready(cluster: &Cluster, group: &mut Group) {
    let check = "It is ready";
    let pods = match pods(cluster).await {
        Ok(pods) => pods,
        Err(refusal) => return group.unread(check, &refusal),
    };
    let works = active(&pods).is_some();
    if works && pods.iter().all(is_ready) {
        return group.fine(check);
    }
    let mut reasons = Vec::new();
    for pod in pods.iter().filter(|pod| !works || !is_ready(pod)) {
        let name = text(pod, "/metadata/name");
        let reason = match hindered(pod) {
            Some(reason) => reason,
            // It runs, so it can be asked.
            None => match cluster.asked(name, "/ready").await {
                Ok(said) => said.trim_end().to_owned(),
                Err(refusal) => format!("it does not say why: {refusal}"),
            },
        };
        reasons.push(format!("{name}: {reason}"));
    }
    let todo = format!(
        "Look at `kubectl --namespace {0} describe pods` and `kubectl --namespace {0} logs deployment/{NAME}`. \
         `kds`: it has never had everything from global; look at its address, token and CA.",
        cluster.namespace
    );
    if reasons.is_empty() {
        reasons.push("there is no pod".into());
    }
    // One that stands by is missed when it is needed.
    if works {
        group.warn(check, reasons.join("\n"), todo);
    } else {
        group.fail(check, reasons.join("\n"), todo);
    }
}

/// Why a pod does not run, as Kubernetes says it.
pub(super) fn hindered(pod: &Value) -> Option<String> {
    let of_scheduling = items(pod, "/status/conditions").iter();
    let unscheduled = of_scheduling
        .filter(|it| text(it, "/type") == "PodScheduled" && text(it, "/status") == "False")
        .map(|it| ("it has no node", text(it, "/message")));
    let containers = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let waiting = containers.iter().flat_map(|path| items(pod, path)).filter_map(|status| {
        let state = status.pointer("/state/waiting")?;
        let reason = text(state, "/reason");
        // What follows others says nothing.
        (reason != "PodInitializing").then(|| (reason, text(state, "/message")))
    });
    let (reason, message) = unscheduled.chain(waiting).next()?;
    Some(if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") })
}

/// Whether the token for global is there.
async fn credential(cluster: &Cluster, deployment: &Value, group: &mut Group) {
    let volumes = items(deployment, "/spec/template/spec/volumes").iter();
    let mut secrets = volumes
        .filter(|volume| text(volume, "/name") == "global")
        .map(|volume| text(volume, "/secret/secretName"));
    // Without one it stands alone.
    let Some(name) = secrets.next() else { return };
    let check = format!("The Secret {name} has what it needs for global");
    let todo = "Make it on global: atoll token zone ZONE --secret NAME";
    match cluster.own("/api/v1", "secrets", name).await {
        Err(Refusal::Absent) => group.fail(check, "there is no such Secret", todo),
        Err(refusal) => group.unread(check, &refusal),
        Ok(secret) => {
            let has =
                |key: &&str| secret.pointer("/data").is_some_and(|data| data.get(key).is_some());
            let missing: Vec<_> = ["token", "ca.crt"]
                .into_iter()
                .filter(|key| !has(key))
                .map(ToOwned::to_owned)
                .collect();
            if missing.is_empty() {
                group.fine(check);
            } else {
                group.fail(check, format!("it has no {}", missing.join(" and no ")), todo);
            }
        }
    }
}

/// Whether one of the replicas is the active one.
async fn lease(cluster: &Cluster, now: Timestamp, group: &mut Group) {
    let check = "One is active";
    let todo = "Look at its log: it asks for the Lease every 2 s.";
    match cluster.own("/apis/coordination.k8s.io/v1", "leases", LEASE).await {
        Err(Refusal::Absent) => group.fail(check, format!("there is no Lease {LEASE}"), todo),
        Err(refusal) => group.unread(check, &refusal),
        Ok(lease) => {
            let seconds = lease.pointer("/spec/leaseDurationSeconds").and_then(Value::as_u64);
            let limit = Duration::from_secs(seconds.unwrap_or(15));
            let renewed = text(&lease, "/spec/renewTime").parse::<Timestamp>();
            let age = renewed.map(|renewed| now.duration_since(renewed).unsigned_abs());
            if text(&lease, "/spec/holderIdentity").is_empty() {
                group.fail(check, "nobody holds the Lease", todo);
            } else if age.is_ok_and(|age| age <= limit) {
                group.fine(check);
            } else {
                group.fail(check, "who holds the Lease does not renew it", todo);
            }
        }
    }
}

/// Whether it may do what this version does.
async fn roles(cluster: &Cluster, group: &mut Group) {
    let check = "It may do what it must";
    let access: Value = serde_saphyr::from_str(ACCESS).unwrap_or_default();
    let api = "/apis/rbac.authorization.k8s.io/v1";
    let account =
        json!([{ "kind": "ServiceAccount", "name": NAME, "namespace": cluster.namespace }]);
    let mut wrong = Vec::new();
    for (role, binding, needed) in [
        ("clusterroles", "clusterrolebindings", "/cluster"),
        ("roles", "rolebindings", "/namespace"),
    ] {
        for (plural, field, expected) in
            [(role, "/rules", access.pointer(needed)), (binding, "/subjects", Some(&account))]
        {
            let object = if needed == "/cluster" {
                cluster.get(&format!("{api}/{plural}/{NAME}")).await
            } else {
                cluster.own(api, plural, NAME).await
            };
            match object {
                Ok(object) if object.pointer(field) == expected => {}
                Ok(_) => wrong.push(format!("{plural}/{NAME} is another one")),
                Err(Refusal::Absent) => wrong.push(format!("{plural}/{NAME} is missing")),
                Err(refusal) => return group.unread(check, &refusal),
            }
        }
    }
    if wrong.is_empty() {
        group.fine(check);
    } else {
        group.fail(check, some(&wrong), UPGRADE);
    }
}

/// Whether a pod is ready.
pub(super) fn is_ready(pod: &Value) -> bool {
    holds(pod, "Ready")
}
