//! What a cluster is told by from all others.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, api::ListParams};
use std::time::Duration;
use tokio::time::timeout;

/// A namespace that every cluster has as long as it is there.
const NAMESPACE: &str = "kube-system";

/// How long the API server has for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name of the cluster that `client` asks: no other cluster has the same namespace.
pub async fn of(client: &Client) -> Result<String> {
    // Namespaces may be listed, and not read.
    let only = ListParams::default().fields(&format!("metadata.name={NAMESPACE}"));
    let namespaces = Api::<Namespace>::all(client.clone());
    let found = timeout(PATIENCE, namespaces.list_metadata(&only)).await;
    let found = found.context("the API server does not answer")??;
    let uid = found.items.into_iter().next().and_then(|it| it.metadata.uid);
    uid.with_context(|| format!("there is no namespace {NAMESPACE}"))
}
