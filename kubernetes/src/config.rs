//! The section `kubernetes` of a zone's configuration.

use crate::{admission, controllers, injection, lease};
use daemon::config::Problems;
use serde::{Deserialize, Serialize};

/// How a zone lives in its cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// The namespace of the control plane and of what it keeps.
    pub system_namespace: String,
    /// A file that says where the API server is and who we are; empty: what a pod finds about its
    /// own cluster.
    pub kubeconfig: String,
    /// The pod of this process: what callers get to says so in a label of it, and it holds the Lease
    /// by this name. Empty: this is no pod.
    pub pod_name: String,
    /// How resources are made of what is in the cluster.
    pub controllers: controllers::Config,
    /// Which of several control planes works.
    pub lease: lease::Config,
    /// What the API server asks before it takes an object.
    pub admission: admission::Config,
    /// What is put into pods.
    pub injector: injection::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            system_namespace: "kuma-system".into(),
            kubeconfig: String::new(),
            pod_name: String::new(),
            controllers: controllers::Config::default(),
            lease: lease::Config::default(),
            admission: admission::Config::default(),
            injector: injection::Config::default(),
        }
    }
}

impl Config {
    /// Reports every mistake, with its path below `kubernetes`.
    pub fn check(&self, problems: &mut Problems) {
        if let Err(error) = resource::NameRule::Label.check(&self.system_namespace) {
            problems.add("systemNamespace", error);
        }
        if !self.pod_name.is_empty()
            && let Err(error) = resource::NameRule::Subdomain.check(&self.pod_name)
        {
            problems.add("podName", error);
        }
        problems.at("controllers", |problems| self.controllers.check(problems));
        problems.at("lease", |problems| self.lease.check(problems));
        problems.at("admission", |problems| self.admission.check(problems));
        problems.at("injector", |problems| self.injector.check(problems));
    }
}
