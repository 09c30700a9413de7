//! Two control planes of one cluster.

use super::{
    Scenario, note,
    world::{FRONT, Load, SHOP, SYSTEM, WEB, World, Zone, cart, server},
};
use anyhow::{Context, Result, bail, ensure};
use e2e::{
    PATIENCE,
    cluster::{Images, Kubectl},
    wait::{self, Watch},
};
use serde_json::{Value, json};

pub(crate) const ALL: &[Scenario] = &[(
    "of_two_control_planes_one_works_whatever_becomes_of_it",
    of_two_control_planes_one_works_whatever_becomes_of_it,
)];

const LEASE: &str = "cp-leader-lease";

/// Selects their pods.
const THEM: &str = "--selector=app.kubernetes.io/component=zone-cp";

/// It is killed, robbed of its Lease, its Lease goes, its pod goes. Each time one works soon and never
/// two do, no request fails, and sidecars hear of what is new.
fn of_two_control_planes_one_works_whatever_becomes_of_it(images: &Images) -> Result<()> {
    let more = json!({ "controlPlane": { "replicas": 2 } });
    let world = World::with_values(images, &["k8s-1"], &more)?;
    world.open_shops()?;
    let zone = world.zone("k8s-1")?;
    let kubectl = zone.kubectl();
    ensure!(pods(kubectl)?.len() == 2, "they are not two");
    let loads = [
        Load::start("machine to pod", world.machine.caller()?, &cart("k8s-1"))?,
        Load::start("pod to machine", zone.cluster.client_beside(FRONT)?, WEB)?,
    ];
    let alone = never_two(kubectl.clone());

    let first = works(kubectl)?;
    zone.cluster.kill_in("zone-cp", &first)?;
    hears_of_what_is_new(&world, zone, "killed")?;

    let robbed = works(kubectl)?;
    hold(kubectl, "thief")?;
    hears_of_what_is_new(&world, zone, "robbed")?;
    let said = kubectl.run(&["logs", "--namespace", SYSTEM, &robbed, "--previous"])?;
    ensure!(said.contains("was taken by thief"), "{said}");

    let bereft = works(kubectl)?;
    kubectl.run(&["delete", "lease", LEASE, "--namespace", SYSTEM])?;
    hears_of_what_is_new(&world, zone, "bereft")?;
    let now = works(kubectl)?;
    ensure!(now == bereft, "{now} works, and {bereft} did");

    let gone = works(kubectl)?;
    kubectl.run(&["delete", "pod", &gone, "--namespace", SYSTEM])?;
    hears_of_what_is_new(&world, zone, "gone")?;
    let now = works(kubectl)?;
    ensure!(now != gone, "{gone} works still");
    note(&format!("{} looks at who works", alone.end()?));
    loads.into_iter().try_for_each(|load| load.end().map(drop))
}

/// Their names.
fn pods(kubectl: &Kubectl) -> Result<Vec<String>> {
    let path = "--output=jsonpath={range .items[*]}{.metadata.name}{'\\n'}{end}";
    let found = kubectl.run(&["get", "pods", "--namespace", SYSTEM, THEM, path])?;
    Ok(found.lines().map(str::to_owned).collect())
}

/// Waits until one works to which callers get, and names its pod.
fn works(kubectl: &Kubectl) -> Result<String> {
    wait::until("one works", PATIENCE, || {
        let lease = kubectl.get(SYSTEM, &format!("lease/{LEASE}"))?;
        let holder = lease.pointer("/spec/holderIdentity").and_then(Value::as_str);
        let holder = holder.with_context(|| lease.to_string())?;
        let pod = kubectl.get(SYSTEM, &format!("pod/{holder}"))?;
        let label = pod.pointer("/metadata/labels/atoll.io~1active");
        ensure!(label == Some(&"true".into()), "{holder} holds the Lease, and is not called");
        Ok(holder.to_owned())
    })
}

/// Writes that somebody else holds the Lease.
fn hold(kubectl: &Kubectl, holder: &str) -> Result<()> {
    let patch = json!({ "spec": { "holderIdentity": holder } }).to_string();
    let words = ["patch", "lease", LEASE, "--namespace", SYSTEM, "--type=merge", "--patch", &patch];
    kubectl.run(&words).map(drop)
}

/// In both zones, and by proxies that ran before.
fn hears_of_what_is_new(world: &World, zone: &Zone, name: &str) -> Result<()> {
    zone.kubectl().apply(&server(name))?;
    // For a moment nobody may be there who lets pods in.
    wait::until(&format!("{name} starts"), PATIENCE, || {
        zone.kubectl().rolled_out(SHOP, &format!("deployment/{name}"))
    })?;
    let url = format!("http://{name}.shop.svc.k8s-1.mesh.local:8080/");
    zone.pod_reaches("deployment/front", "front", &url)?;
    world.machine_reaches(&url).map(drop)
}

/// Whoever works says so in its metrics. One look asks them one after the other, so two count only if the
/// next look sees them as well.
fn never_two(kubectl: Kubectl) -> Watch {
    let mut before = Vec::new();
    Watch::start("one works at most", move || {
        let working: Vec<String> =
            pods(&kubectl)?.into_iter().filter(|pod| says_so(&kubectl, pod)).collect();
        if working.len() > 1 && before == working {
            bail!("{working:?} work");
        }
        before = working;
        Ok(())
    })
}

/// One that cannot be asked does not run.
fn says_so(kubectl: &Kubectl, pod: &str) -> bool {
    let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{pod}:5680/proxy/metrics");
    let told = kubectl.run(&["get", "--raw", &path]).unwrap_or_default();
    told.lines().any(|line| line.ends_with("lease_held 1"))
}
