//! Whether the custom resource definitions are those of this version.

use super::{
    cluster::{Cluster, Refusal, holds, some, text},
    report::Group,
};
use kinds::crd::definition;
use serde_json::Value;
use std::collections::BTreeMap;

const INSTALL: &str =
    "Run: atoll install crds | kubectl apply --server-side --force-conflicts -f -";

/// How the definitions of a cluster differ from ours.
#[derive(Debug, Default)]
struct Difference {
    missing: Vec<String>,
    other: Vec<String>,
    not_served: Vec<String>,
}

/// Before something is installed: what is there already.
pub(super) async fn before(cluster: &Cluster) -> Group {
    let mut group = Group::new("What is there already");
    let check = "No definitions of kuma.io of another version";
    match found(cluster).await {
        Err(refusal) => group.unread(check, &refusal),
        Ok(found) => {
            let other = difference(&found).other;
            if other.is_empty() {
                group.fine(check);
            } else {
                let todo = "They are replaced when Atoll is installed. If Kuma runs here, remove it first.";
                group.warn(check, format!("there are: {}", some(&other)), todo);
            }
        }
    }
    let check = "No other control plane";
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    match cluster.list(path).await {
        Err(refusal) => group.unread(check, &refusal),
        Ok(webhooks) => {
            let names = webhooks.iter().map(|webhook| text(webhook, "/metadata/name"));
            let others: Vec<String> = names
                .filter(|name| name.starts_with("kuma-admission"))
                .map(ToOwned::to_owned)
                .collect();
            if others.is_empty() {
                group.fine(check);
            } else {
                let found = format!("Kuma is here: {}", some(&others));
                group.fail(check, found, "Remove it: two would inject the same pods.");
            }
        }
    }
    let check = format!("The namespace {} is free", cluster.namespace);
    match cluster.get(&format!("/api/v1/namespaces/{}", cluster.namespace)).await {
        Ok(namespace) if text(&namespace, "/status/phase") == "Terminating" => {
            group.fail(check, "it is being deleted", "Wait until it is gone.");
        }
        Ok(_) | Err(Refusal::Absent) => group.fine(check),
        Err(refusal) => group.unread(check, &refusal),
    }
    group
}

/// After that: whether all are there.
pub(super) async fn look(cluster: &Cluster) -> Group {
    let mut group = Group::new("Custom resource definitions");
    let found = match found(cluster).await {
        Ok(found) => found,
        Err(refusal) => {
            group.unread("All are there", &refusal);
            return group;
        }
    };
    let Difference { missing, other, not_served } = difference(&found);
    for (check, names, what) in [
        ("All are there", missing, "missing"),
        ("They are of this version", other, "other ones"),
        ("They are served", not_served, "not established"),
    ] {
        if names.is_empty() {
            group.fine(check);
        } else {
            group.fail(check, format!("{what}: {}", some(&names)), INSTALL);
        }
    }
    group
}

async fn found(cluster: &Cluster) -> Result<BTreeMap<String, Value>, Refusal> {
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let all = cluster.list(path).await?.into_iter();
    Ok(all.map(|made| (text(&made, "/metadata/name").to_owned(), made)).collect())
}

fn difference(found: &BTreeMap<String, Value>) -> Difference {
    let ours = kinds::all().filter_map(|kind| definition(&kind));
    let ours: BTreeMap<_, _> =
        ours.map(|made| (text(&made, "/metadata/name").to_owned(), made)).collect();
    let mut difference = Difference::default();
    for (name, ours) in ours {
        match found.get(&name) {
            None => difference.missing.push(name),
            Some(theirs) if schema(theirs) != schema(&ours) => difference.other.push(name),
            Some(theirs) if !holds(theirs, "Established") => difference.not_served.push(name),
            Some(_) => {}
        }
    }
    difference
}

/// What a definition says about objects of the version that we use.
fn schema(definition: &Value) -> Option<&Value> {
    let versions = definition.pointer("/spec/versions")?.as_array()?;
    versions.iter().find(|version| text(version, "/name") == "v1alpha1")?.get("schema")
}
