//! What can be set: the section `kubernetes.controllers`.

use daemon::config::Problems;
use kinds::labels::{Env, Place};
use resource::ZoneName;
use serde::{Deserialize, Serialize};

/// How resources are made of what is in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// The labels of pods that name their workload, the first one that is there; otherwise it is the
    /// service account.
    pub workload_labels: Vec<String>,
    /// Below this the DNS of the cluster has its names.
    pub cluster_domain: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { workload_labels: Vec::new(), cluster_domain: "cluster.local".into() }
    }
}

impl Config {
    /// Adds every broken rule.
    pub fn check(&self, problems: &mut Problems) {
        if let Err(error) = resource::NameRule::Subdomain.check(&self.cluster_domain) {
            problems.add("clusterDomain", error);
        }
        if self.workload_labels.iter().any(String::is_empty) {
            problems.add("workloadLabels", "must not contain an empty label");
        }
    }
}

/// What controllers know of their zone.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where they write.
    pub place: Place,
    /// The namespace of the control plane.
    pub system_namespace: String,
    /// What is set.
    pub config: Config,
}

impl Settings {
    /// Of the zone `zone`.
    #[must_use]
    pub fn of(zone: ZoneName, config: &crate::Config) -> Self {
        Self {
            place: Place::Zone { name: zone, env: Env::Kubernetes },
            system_namespace: config.system_namespace.clone(),
            config: config.controllers.clone(),
        }
    }
}
