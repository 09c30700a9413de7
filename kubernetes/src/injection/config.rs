//! The section `kubernetes.injector` of a zone's configuration.

use super::interception::TransparentProxy;
use daemon::config::Problems;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// What is put into pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// The image of the program `sidecar`.
    pub sidecar_image: String,
    /// The image of the program `atoll`, which sets up the redirection of traffic.
    pub init_image: String,
    /// When a node fetches them; empty: as Kubernetes decides.
    pub image_pull_policy: String,
    /// Whether a sidecar is an init container that goes on running, for which Kubernetes waits before
    /// it starts the application, and which ends after it. A pod with such containers gets one anyway.
    pub native_sidecars: bool,
    /// Where sidecars find this control plane; empty: its service, which has the name of the chart.
    pub control_plane: String,
    /// Who a sidecar's token is for.
    pub token_audience: String,
    /// How long such a token is valid; the kubelet renews it in time.
    #[serde(with = "daemon::duration")]
    pub token_expiration: Duration,
    /// The user that sidecars run as.
    pub uid: u32,
    /// The port at which a sidecar says whether it is ready.
    pub readiness_port: u16,
    /// The port at which a sidecar asks its application what a kubelet wants to know; 0: kubelets ask
    /// the application themselves.
    pub application_probe_port: u16,
    /// What a sidecar has to lose its connections at the end.
    #[serde(with = "daemon::duration")]
    pub drain_time: Duration,
    /// How many threads serve; 0: as many as there are processors.
    pub concurrency: u32,
    /// More variables of sidecars.
    pub env: BTreeMap<String, String>,
    /// What a sidecar may use.
    pub resources: Resources,
    /// What the setting up may use.
    pub init_resources: Resources,
    /// What is redirected in pods.
    pub transparent_proxy: TransparentProxy,
    /// The names of the ContainerPatches for pods that name none.
    pub container_patches: Vec<String>,
    /// How sidecars reach the SPIRE agent of their node.
    pub spire: Spire,
}

/// How sidecars reach the SPIRE agent of their node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Spire {
    /// Whether those do whose pods say nothing about it.
    pub enabled: bool,
    /// The CSI driver that brings the agent's socket into a pod.
    pub driver: String,
    /// The folder of a node with the socket, where there is no such driver.
    pub host_path: String,
    /// Where the folder with the socket is in a container.
    pub mount_path: String,
    /// The socket in that folder.
    pub socket_file_name: String,
}

impl Default for Spire {
    fn default() -> Self {
        Self {
            enabled: false,
            driver: "csi.spiffe.io".into(),
            host_path: String::new(),
            mount_path: "/run/spire/sockets".into(),
            socket_file_name: "socket".into(),
        }
    }
}

impl Spire {
    /// The socket, as a sidecar sees it.
    pub(super) fn socket(&self) -> String {
        format!("{}/{}", self.mount_path.trim_end_matches('/'), self.socket_file_name)
    }

    fn check(&self, problems: &mut Problems) {
        if self.driver.is_empty() && self.host_path.is_empty() {
            problems.add("driver", "must be set, or hostPath");
        }
        if !(self.host_path.is_empty() || self.host_path.starts_with('/')) {
            problems.add("hostPath", "must be an absolute path");
        }
        if !self.mount_path.starts_with('/') {
            problems.add("mountPath", "must be an absolute path");
        }
        if self.socket_file_name.is_empty() || self.socket_file_name.contains('/') {
            problems.add("socketFileName", "must be the name of a file");
        }
    }
}

/// What a container asks for, and what it gets at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Resources {
    /// By name, such as `cpu`.
    pub requests: BTreeMap<String, String>,
    /// By name.
    pub limits: BTreeMap<String, String>,
}

impl Resources {
    /// Requested and at most, of each.
    fn of(cpu: [&str; 2], memory: [&str; 2]) -> Self {
        let ([cpu, most_cpu], [memory, most_memory]) = (cpu, memory);
        let both = |cpu: &str, memory: &str| {
            let pairs = [("cpu", cpu), ("memory", memory)];
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
        };
        Self { requests: both(cpu, memory), limits: both(most_cpu, most_memory) }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sidecar_image: "localhost/atoll/sidecar:latest".into(),
            init_image: "localhost/atoll/atoll:latest".into(),
            image_pull_policy: String::new(),
            native_sidecars: true,
            control_plane: String::new(),
            token_audience: "atoll".into(),
            token_expiration: Duration::from_secs(3600),
            uid: 5678,
            readiness_port: 9902,
            application_probe_port: 9001,
            drain_time: Duration::from_secs(10),
            concurrency: 2,
            env: BTreeMap::new(),
            resources: Resources::of(["50m", "1"], ["64Mi", "512Mi"]),
            init_resources: Resources::of(["20m", "100m"], ["20Mi", "50Mi"]),
            transparent_proxy: TransparentProxy::default(),
            container_patches: Vec::new(),
            spire: Spire::default(),
        }
    }
}

/// Kubernetes issues no token for a shorter time.
const SHORTEST_TOKEN: Duration = Duration::from_secs(600);

impl Config {
    /// Reports every mistake, with its path below `kubernetes.injector`.
    pub fn check(&self, problems: &mut Problems) {
        for (field, value) in [
            ("sidecarImage", &self.sidecar_image),
            ("initImage", &self.init_image),
            ("tokenAudience", &self.token_audience),
        ] {
            if value.is_empty() {
                problems.add(field, "must be set");
            }
        }
        let policies = ["", "Always", "IfNotPresent", "Never"];
        if !policies.contains(&self.image_pull_policy.as_str()) {
            problems.add("imagePullPolicy", "must be Always, IfNotPresent or Never");
        }
        if !self.control_plane.is_empty() && !self.control_plane.starts_with("https://") {
            problems.add("controlPlane", "must begin with https://");
        }
        if self.token_expiration < SHORTEST_TOKEN {
            problems.add("tokenExpiration", "must be at least 10m");
        }
        if self.uid == 0 {
            problems.add("uid", "must not be root, since what root opens would not be redirected");
        }
        if self.readiness_port == 0 {
            problems.add("readinessPort", "must be set");
        }
        if self.drain_time > Duration::from_secs(3600) {
            problems.add("drainTime", "must be at most 1h");
        }
        problems.at("transparentProxy", |problems| self.transparent_proxy.check(problems));
        problems.at("spire", |problems| self.spire.check(problems));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_named() {
        let config = Config {
            sidecar_image: String::new(),
            image_pull_policy: "Sometimes".into(),
            control_plane: "zone".into(),
            token_expiration: Duration::from_secs(1),
            uid: 0,
            readiness_port: 0,
            drain_time: Duration::from_secs(7200),
            spire: Spire {
                driver: String::new(),
                mount_path: "sockets".into(),
                socket_file_name: "a/b".into(),
                ..Spire::default()
            },
            ..Config::default()
        };
        let mut problems = Problems::default();
        Config::default().check(&mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        config.check(&mut problems);
        let found: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        let expected = [
            "sidecarImage",
            "imagePullPolicy",
            "controlPlane",
            "tokenExpiration",
            "uid",
            "readinessPort",
            "drainTime",
            "spire.driver",
            "spire.mountPath",
            "spire.socketFileName",
        ];
        assert_eq!(found, expected);
    }
}
