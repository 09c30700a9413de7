//! What the clusters of the tests can do, without anything of ours in them.

use super::{Scenario, note};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    cluster::{Cluster, Images, Kubectl, start_all},
    namespace::Network,
    process::run,
    wait,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

pub(crate) const ALL: &[Scenario] = &[
    ("pods_of_two_clusters_run_and_call_each_other", pods_of_two_clusters_run_and_call_each_other),
    ("a_test_that_is_killed_leaves_nothing", a_test_that_is_killed_leaves_nothing),
];

fn pods_of_two_clusters_run_and_call_each_other(images: &Images) -> Result<()> {
    let network = Network::new()?;
    let folder = network.folder()?;
    let mut zones = Vec::new();
    for zone in [0, 1] {
        network.subnet(zone)?;
        zones.push((zone, folder.path().join(zone.to_string())));
    }
    let (clusters, took) = wait::timed(|| start_all(&network, &zones, images));
    let clusters = clusters?;
    let [one, two] = &*clusters else { bail!("they are not two") };
    note(&format!("both after {took:?}"));
    for cluster in &clusters {
        let address = cluster.host.address.to_string();
        cluster.kubectl.apply(&include_str!("web.yaml").replace("ADDRESS", &address))?;
    }
    for cluster in &clusters {
        cluster.kubectl.rolled_out("default", "deployment/web")?;
        cluster.kubectl.wait("default", "pod/client", "condition=Ready")?;
        inside(&cluster.kubectl)?;
    }
    let call = |from: &Cluster, to: &Cluster| {
        answer(&from.kubectl, &format!("http://{}/", to.host.address))
    };
    if call(one, two).is_ok() {
        bail!("the other cluster is reached although nothing was opened");
    }
    network.open(two.host.address, 80)?;
    call(one, two)?;
    network.cut(&two.host)?;
    if call(one, two).is_ok() {
        bail!("a cluster that was cut off is reached");
    }
    inside(&two.kubectl_on_node()).context("within a cluster that was cut off")?;
    network.heal(&two.host)?;
    wait::until("it is reached again", PATIENCE, || call(one, two))?;
    Ok(())
}

/// Names, addresses of Services and of pods, sidecars, rules of an init container, logs.
fn inside(kubectl: &Kubectl) -> Result<()> {
    answer(kubectl, "http://web.default.svc.cluster.local/")?;
    let pods = ["get", "pods", "--selector=app=web", "--output=jsonpath={.items[0].status.podIP}"];
    let pod = kubectl.run(&pods)?;
    answer(kubectl, &format!("http://{pod}:8080/"))?;
    answer(kubectl, &format!("http://{pod}:9999/")).context("a port that nft redirects")?;
    let mut client = kubectl.client("default", "client", "client")?;
    client.connect(&format!("{pod}:7000")).context("the sidecar")?;
    let logs = kubectl.logs("default", "deployment/web", "rules")?;
    if logs.contains("redirect to :8080") { Ok(()) } else { bail!("{logs}") }
}

/// Who answers a pod of the cluster.
fn answer(from: &Kubectl, url: &str) -> Result<Value> {
    let curl = ["curl", "-sS", "--fail-with-body", "--max-time", "3", url];
    let text = from.exec("default", "client", "client", &curl)?;
    let body: Value = serde_json::from_str(&text).context(text)?;
    if body.get("name") == Some(&"web".into()) { Ok(body) } else { bail!("{url}: {body}") }
}

/// The word that makes this program start a cluster and hold it until it is killed.
pub(crate) const HOLD: &str = "hold";

/// Does so with the images of another process, whose folder it gets.
#[expect(clippy::print_stdout, reason = "a test reads it")]
pub(crate) fn hold(images: &str) -> Result<()> {
    let images = Images::of_another(Path::new(images));
    let network = Network::new()?;
    network.subnet(0)?;
    let folder = network.folder()?;
    let clusters = start_all(&network, &[(0, folder.path().join("0"))], &images)?;
    let cluster = clusters.first().context("a cluster")?;
    cluster.kubectl.apply(&include_str!("web.yaml").replace("ADDRESS", "192.0.2.1"))?;
    cluster.kubectl.rolled_out("default", "deployment/web")?;
    println!("{} {}", cluster.host.namespace, folder.path().display());
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Neither a process, nor mounts, nor namespaces, cgroups and files once the next test has begun.
fn a_test_that_is_killed_leaves_nothing(images: &Images) -> Result<()> {
    let mut holder = Command::new(std::env::current_exe()?);
    holder.arg(HOLD).arg(images.folder()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.spawn()?;
    let mut said = String::new();
    BufReader::new(holder.stdout.take().context("its output")?).read_line(&mut said)?;
    let (namespace, folder) = said.trim().split_once(' ').context(said.clone())?;
    let namespace = Path::new("/run/netns").join(namespace);
    let processes = descendants(holder.id())?;
    // Seven of the cluster, and those of pods.
    if processes.len() < 10 || !namespace.exists() || !Path::new(folder).exists() {
        bail!("there is nothing to be left: {processes:?}, {said}");
    }
    holder.kill()?;
    holder.wait()?;
    wait::until("its processes end", PATIENCE, || {
        let left = |pid: &&u32| Path::new("/proc").join(pid.to_string()).exists();
        let left: Vec<&u32> = processes.iter().filter(left).collect();
        if left.is_empty() { Ok(()) } else { bail!("{left:?}") }
    })?;
    let _next = Network::new()?;
    let cgroups = run(&["find", "/sys/fs/cgroup", "-name", "atoll-*"])?;
    if namespace.exists() || Path::new(folder).exists() || !cgroups.is_empty() {
        bail!("{said} is still there: {cgroups}");
    }
    Ok(())
}

/// The processes that `ancestor` started, and those that they started.
fn descendants(ancestor: u32) -> Result<BTreeSet<u32>> {
    let listed = run(&["ps", "-e", "-o", "pid=,ppid="])?;
    let pairs = listed.lines().map(|line| {
        let (pid, parent) = line.trim().split_once(' ').context("two numbers")?;
        Ok((pid.parse()?, parent.trim().parse()?))
    });
    let pairs: Vec<(u32, u32)> = pairs.collect::<Result<_>>()?;
    let (mut found, mut waiting) = (BTreeSet::new(), vec![ancestor]);
    while let Some(next) = waiting.pop() {
        let children = pairs.iter().filter(|(_, parent)| *parent == next).map(|(pid, _)| *pid);
        waiting.extend(children.filter(|pid| found.insert(*pid)));
    }
    Ok(found)
}
