//! Whether the API server asks the control plane, and trusts it.

use super::{
    cluster::{Cluster, Refusal, items, some, text},
    report::Group,
};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use std::time::Duration;

const NAME: &str = "atoll";
const SECRET: &str = "atoll-zone-cp-tls";
const SERVICE: &str = "atoll-admission";
/// The control plane renews what ends; so near to the end it should have.
const SOON: Duration = Duration::from_hours(24);

pub(super) async fn look(cluster: &Cluster, now: Timestamp) -> Group {
    let mut group = Group::new("Webhooks");
    let authority = authority(cluster, now, &mut group).await;
    for plural in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
        let check = format!("{plural}/{NAME} is there and trusts the control plane");
        let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}/{NAME}");
        match cluster.get(&path).await {
            Err(Refusal::Absent) => {
                group.fail(
                    check,
                    "it is missing",
                    "Run `helm upgrade`, or `atoll install control-plane`.",
                );
            }
            Err(refusal) => group.unread(check, &refusal),
            Ok(webhooks) => {
                let strangers = strangers(&webhooks, authority.as_deref());
                if strangers.is_empty() {
                    group.fine(check);
                } else {
                    let found =
                        format!("without the authority in Secret {SECRET}: {}", some(&strangers));
                    group.fail(
                        check,
                        found,
                        "Look at the log of the control plane: it puts the authority there.",
                    );
                }
            }
        }
    }
    reached(cluster, &mut group).await;
    answers(cluster, &mut group).await;
    group
}

/// The authority of the control plane's certificate, as PEM.
async fn authority(cluster: &Cluster, now: Timestamp, group: &mut Group) -> Option<String> {
    let check = "The certificate of the control plane is valid";
    let todo = "Look at the log of the control plane: it makes and renews it.";
    let secret = match cluster.own("/api/v1", "secrets", SECRET).await {
        Ok(secret) => secret,
        Err(Refusal::Absent) => {
            group.fail(check, format!("there is no Secret {SECRET}"), todo);
            return None;
        }
        Err(refusal) => {
            group.unread(check, &refusal);
            return None;
        }
    };
    let authority = decoded(secret.pointer("/data/ca.crt"));
    let own = decoded(secret.pointer("/data/tls.crt"));
    let ends = [&authority, &own].into_iter().map(|pem| {
        let certificates = identity::certificates(pem.as_deref()?)?;
        certificates.iter().map(identity::not_after).min().flatten()
    });
    let ends = ends.collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().min());
    match ends {
        None => group.fail(check, format!("Secret {SECRET} has no certificates"), todo),
        Some(ends) if ends <= now => group.fail(check, format!("it ended at {ends}"), todo),
        Some(ends) if now.duration_until(ends).unsigned_abs() < SOON => {
            group.warn(check, format!("it ends at {ends}"), todo);
        }
        Some(_) => group.fine(check),
    }
    authority
}

fn decoded(value: Option<&Value>) -> Option<String> {
    let ByteString(bytes) = serde_json::from_value(value?.clone()).ok()?;
    String::from_utf8(bytes).ok()
}

/// The webhooks that would not trust a certificate of `authority`. If that is not known, those that
/// trust nobody.
fn strangers(webhooks: &Value, authority: Option<&str>) -> Vec<String> {
    let known = authority.and_then(identity::certificates).unwrap_or_default();
    let trusts = |webhook: &&Value| {
        let bundle = decoded(webhook.pointer("/clientConfig/caBundle"));
        let bundle = bundle.as_deref().and_then(identity::certificates).unwrap_or_default();
        !bundle.is_empty() && known.iter().all(|certificate| bundle.contains(certificate))
    };
    let strangers = items(webhooks, "/webhooks").iter().filter(|webhook| !trusts(webhook));
    strangers.map(|webhook| text(webhook, "/name").to_owned()).collect()
}

async fn reached(cluster: &Cluster, group: &mut Group) {
    let check = format!("The Service {SERVICE} leads to it");
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector=kubernetes.io/service-name%3D{SERVICE}",
        cluster.namespace
    );
    match cluster.list(&path).await {
        Err(refusal) => group.unread(check, &refusal),
        Ok(slices) if slices.iter().all(|slice| items(slice, "/endpoints").is_empty()) => {
            group.fail(
                check,
                "it has no endpoints",
                "See that the Service is there, and pods of the control plane run.",
            );
        }
        Ok(_) => group.fine(check),
    }
}

/// Asks for something that is not done: only to see whether the webhooks answer.
async fn answers(cluster: &Cluster, group: &mut Group) {
    let check = "The API server reaches it";
    let object = json!({
        "apiVersion": "kuma.io/v1alpha1", "kind": "ContainerPatch",
        "metadata": { "generateName": "atoll-check-", "namespace": cluster.namespace },
        "spec": {},
    });
    let path = format!(
        "/apis/kuma.io/v1alpha1/namespaces/{}/containerpatches?dryRun=All",
        cluster.namespace
    );
    match cluster.post(&path, &object).await {
        Err(Refusal::Failed(reason)) if reason.contains("failed calling webhook") => {
            let todo = "Let the network of the API server reach the pods of the control plane at port 5443.";
            group.fail(check, reason, todo);
        }
        Err(Refusal::Forbidden(reason)) if !reason.contains("admission webhook") => {
            group.unread(check, &Refusal::Forbidden(reason));
        }
        // A refusal is an answer, too. What else fails is said elsewhere.
        Ok(_) | Err(Refusal::Failed(_) | Refusal::Forbidden(_)) => group.fine(check),
        Err(Refusal::Absent) => group.fail(
            check,
            "there is no kind ContainerPatch",
            "Run: atoll install crds | kubectl apply --server-side -f -",
        ),
    }
}
