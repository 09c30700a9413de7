//! Keeps the resources of a zone as objects of its Kubernetes cluster.
//!
//! Most kinds are custom resources, secrets and settings are what Kubernetes has for these, and a
//! few kinds of ours are in memory only. What is read is always what the watches brought; what is
//! written here is seen at once.

mod cluster;
mod metrics;
mod object;
mod place;
mod problems;
mod shelf;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

pub use self::problems::{ObjectRef, Problem, Problems};

use self::{cluster::Cluster, metrics::Metrics, writer::Writer};
use daemon::Clock;
use kube::Client;
use resource::{InvalidName, NameRule};
use store::{Contents, Kinds, Local, Writing, attach, view::Loaded, view::Revision};

/// How a zone keeps its resources in its cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace of the control plane and of what it keeps.
    pub system_namespace: String,
    /// What is wrong with objects is put there.
    pub problems: Problems,
    /// Where requests are counted.
    pub metrics: daemon::Metrics,
}

/// The resources of a cluster cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such namespace.
    #[error("systemNamespace: {0}")]
    Namespace(#[from] InvalidName),
    /// Nothing can be heard of the cluster any more.
    #[error("watching the cluster ended")]
    Ended,
}

/// Learns everything there is of `kinds`, and keeps them from then on. Waits for the API server as
/// long as that takes. The history of such a store begins anew whenever it is opened.
pub async fn open(
    client: Client,
    settings: Settings,
    kinds: Kinds,
    clock: Clock,
) -> Result<(Local, Writing), OpenError> {
    NameRule::Label.check(&settings.system_namespace)?;
    let loaded = kinds.iter().map(|_| Loaded::default()).collect();
    let contents = Contents { kinds: loaded, revision: Revision(0) };
    let attached = attach(contents, fastrand::u64(1..));
    let reader = attached.reader();
    let metrics = Metrics::new(&settings.metrics, settings.problems.clone());
    let view = (attached.view, reader);
    let mut cluster = Cluster::new(&client, &settings, &kinds, view, &metrics);
    while !cluster.incomplete.is_empty() {
        let turn = cluster.next().await.ok_or(OpenError::Ended)?;
        cluster.take(turn);
    }
    let writer = Writer::new(client, cluster, &kinds, clock, metrics, attached.asked);
    Ok((attached.store, Box::pin(writer.run())))
}
