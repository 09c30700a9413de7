//! What the clusters of the tests can do, without anything of ours in them.

use super::{Scenario, note};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    cluster::{Cluster, Images},
    namespace::Network,
    wait,
};
use serde_json::Value;
use std::{path::Path, thread};

pub(crate) const ALL: &[Scenario] = &[(
    "pods_of_two_clusters_run_and_call_each_other",
    pods_of_two_clusters_run_and_call_each_other,
)];

/// The word that makes this program hold a cluster until it is killed.
pub(crate) const HOLD: &str = "hold";

pub(crate) fn hold() -> Result<()> {
    bail!("not yet")
}

/// One after the other would take longer.
fn two(network: &Network, images: &Images, folder: &Path) -> Result<[Cluster; 2]> {
    for zone in [0, 1] {
        network.subnet(zone)?;
    }
    let start =
        |zone: u8| Cluster::start(network, zone, images, &folder.join(format!("k8s-{zone}")));
    let (one, two) = thread::scope(|scope| {
        let one = scope.spawn(|| start(0));
        (start(1), one.join())
    });
    let Ok(two) = two else { bail!("the start of a cluster panicked") };
    Ok([two?, one?])
}

fn pods_of_two_clusters_run_and_call_each_other(images: &Images) -> Result<()> {
    let network = Network::new()?;
    let folder = network.folder()?;
    let (clusters, took) = wait::timed(|| two(&network, images, folder.path()));
    let [one, two] = clusters?;
    note(&format!("both after {took:?}"));
    for cluster in [&one, &two] {
        let address = cluster.host.address.to_string();
        cluster.kubectl.apply(&include_str!("web.yaml").replace("ADDRESS", &address))?;
    }
    for cluster in [&one, &two] {
        cluster.kubectl.rolled_out("default", "deployment/web")?;
        cluster.kubectl.wait("default", "pod/client", "condition=Ready")?;
        inside(cluster)?;
    }
    let call = |from: &Cluster, to: &Cluster| answer(from, &format!("http://{}/", to.host.address));
    if call(&one, &two).is_ok() {
        bail!("the other cluster is reached although nothing was opened");
    }
    network.open(two.host.address, 80)?;
    call(&one, &two)?;
    network.cut(&two.host)?;
    if call(&one, &two).is_ok() {
        bail!("a cluster that was cut off is reached");
    }
    inside(&two).context("within a cluster that was cut off")?;
    network.heal(&two.host)?;
    wait::until("it is reached again", PATIENCE, || call(&one, &two))?;
    Ok(())
}

/// Names, addresses of Services and of pods, sidecars, rules of an init container, logs.
fn inside(cluster: &Cluster) -> Result<()> {
    answer(cluster, "http://web.default.svc.cluster.local/")?;
    let pods = ["get", "pods", "--selector=app=web", "--output=jsonpath={.items[0].status.podIP}"];
    let pod = cluster.kubectl.run(&pods)?;
    answer(cluster, &format!("http://{pod}:8080/"))?;
    answer(cluster, &format!("http://{pod}:9999/")).context("a port that nft redirects")?;
    let mut client = cluster.kubectl.client("default", "client", "client")?;
    client.connect(&format!("{pod}:7000")).context("the sidecar")?;
    let logs = cluster.kubectl.logs("default", "deployment/web", "rules")?;
    if logs.contains("redirect to :8080") { Ok(()) } else { bail!("{logs}") }
}

/// Who answers a pod of the cluster.
fn answer(from: &Cluster, url: &str) -> Result<Value> {
    let curl = ["curl", "-sS", "--fail-with-body", "--max-time", "3", url];
    let text = from.kubectl.exec("default", "client", "client", &curl)?;
    let body: Value = serde_json::from_str(&text).context(text)?;
    if body.get("name") == Some(&"web".into()) { Ok(body) } else { bail!("{url}: {body}") }
}
