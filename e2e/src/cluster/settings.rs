//! The settings of what runs on a node.

use super::{DNS, NODE, PODS};
use anyhow::Result;
use apiserver::Setup;
use serde_json::{Value, json};
use std::{fs, path::Path};

/// What holds the namespaces of a pod.
const PAUSE: &str = "registry.test/atoll/pause:test";

/// Flags of an API server that has a node.
pub(super) fn server() -> Vec<String> {
    let flags = [
        "--enable-admission-plugins=NodeRestriction",
        "--kubelet-preferred-address-types=InternalIP",
    ];
    flags.map(str::to_owned).into()
}

/// Writes the settings of everything that reads some.
pub(super) fn write(setup: &Setup, cgroup: &str) -> Result<()> {
    let network = setup.file("network");
    fs::create_dir_all(&network)?;
    fs::write(network.join("pods.conflist"), pods().to_string())?;
    fs::write(setup.file("containerd.toml"), containerd(setup, &network)?)?;
    fs::write(setup.file("kubelet.json"), kubelet(cgroup).to_string())?;
    fs::write(setup.file("kube-proxy.json"), proxy(setup).to_string())?;
    Ok(())
}

/// The network of pods: a bridge on the node.
fn pods() -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "pods",
            "isGateway": true,
            // A Service may send a pod to itself.
            "hairpinMode": true,
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": PODS }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    })
}

fn containerd(setup: &Setup, network: &Path) -> Result<String> {
    let (runc, network) = (setup.programs.of("runc")?, network.display());
    let (runc, plugins) = (runc.display(), setup.programs.debian().join("usr/lib/cni"));
    let plugins = plugins.display();
    // Where the machine lacks CAP_SYS_RESOURCE, runc cannot lower oom_score_adj, which pods want.
    Ok(format!(
        r#"
version = 2
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt",
]
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{runc}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{network}"
"#
    ))
}

fn kubelet(cgroup: &str) -> Value {
    let never = json!({
        "memory.available": "0%", "nodefs.available": "0%",
        "nodefs.inodesFree": "0%", "imagefs.available": "0%",
    });
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "readOnlyPort": 0,
        "resolvConf": "",
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        // The machine's disk and memory are not the node's alone.
        "evictionHard": never,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "5s",
    })
}

fn proxy(setup: &Setup) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        // By default a new Service, such as that of DNS, is there a second late.
        "nftables": { "minSyncPeriod": "50ms" },
        "oomScoreAdj": 0,
        "clusterCIDR": PODS,
        "hostnameOverride": NODE,
        "clientConnection": { "kubeconfig": setup.file("system:kube-proxy") },
        "conntrack": { "maxPerCore": 0 },
    })
}
