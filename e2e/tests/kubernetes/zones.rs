//! A cluster is a zone beside one of machines.

use super::{
    Scenario, note, policies,
    world::{Load, SHOP, SYSTEM, World, allow, called_by, curl, domain, prefix, status},
};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    cluster::{Images, Kubectl},
    wait,
};

pub(crate) const ALL: &[Scenario] =
    &[("pods_and_machines_call_each_other_by_name", pods_and_machines_call_each_other_by_name)];

const CART: &str = "http://cart.shop.svc.k8s-1.mesh.local:8080/";
const WEB: &str = "http://web.svc.vm.mesh.local:8080/";

/// From an installation to its end.
fn pods_and_machines_call_each_other_by_name(images: &Images) -> Result<()> {
    let (world, took) = wait::timed(|| World::start(images, &["k8s-1"]));
    let mut world = world?;
    note(&format!("installed after {took:?}"));
    let zone = world.zone("k8s-1")?;
    let kubectl = zone.kubectl();
    kubectl.apply(include_str!("shop.yaml"))?;
    kubectl.apply(include_str!("visitor.yaml"))?;
    for each in ["deployment/cart", "deployment/front"] {
        kubectl.rolled_out(SHOP, each)?;
    }

    let (front, web) =
        (format!("{}/ns/shop/sa/front", domain("k8s-1")), format!("{}/workload/web", domain("vm")));
    let body = zone.pod_reaches("deployment/front", "front", WEB)?;
    called_by(&body, &front).context("pod to machine")?;
    for url in [CART, "http://cart.shop:8080/"] {
        let body = zone.pod_reaches("deployment/front", "front", url)?;
        called_by(&body, &front).context("pod to pod")?;
    }
    let body = world.machine_reaches(CART)?;
    called_by(&body, &web).context("machine to pod")?;

    let (reached, took) = wait::timed(|| policies::reach_whom_they_are_for(&world));
    reached.context("policies")?;
    note(&format!("policies after {took:?}"));
    policies::are_told_of_where_global_refuses_them(&mut world).context("a quota")?;
    restart(&world)?;
    refuse(&world)?;
    let zone = world.zone("k8s-1")?;
    uninstall(zone.kubectl(), &zone.manifests()?)
}

/// Every pod of a Deployment becomes another one while somebody calls it.
fn restart(world: &World) -> Result<()> {
    let zone = world.zone("k8s-1")?;
    let to = "cart.shop.svc.k8s-1.mesh.local:8080";
    let load = Load::start("machine to pod", world.machine.caller()?, to)?;
    zone.kubectl().run(&["rollout", "restart", "--namespace", SHOP, "deployment/cart"])?;
    zone.settles("cart", 2)?;
    // A connection from another zone ends at one pod.
    let told = load.end()?;
    if told.by.len() < 2 { bail!("{told:?}") } else { Ok(()) }
}

/// Pods of the cluster may not call any more; machines still may.
fn refuse(world: &World) -> Result<()> {
    allow(&world.lab, &[prefix(&domain("vm"))])?;
    let kubectl = world.zone("k8s-1")?.kubectl();
    wait::until("a pod is refused", PATIENCE, || {
        match &*kubectl.exec(SHOP, "deployment/front", "front", &status(CART))? {
            "403" => Ok(()),
            other => bail!("{other}"),
        }
    })?;
    world.machine.run(&curl(CART)).map(drop)
}

/// Nothing of ours is left, and what was in the mesh starts without it.
fn uninstall(kubectl: &Kubectl, manifests: &str) -> Result<()> {
    kubectl.run(&["delete", "namespace", policies::STREET, "--wait=false"])?;
    kubectl.run(&["label", "namespace", SHOP, "kuma.io/sidecar-injection-"])?;
    for each in ["deployment/cart", "deployment/front"] {
        kubectl.run(&["rollout", "restart", "--namespace", SHOP, each])?;
        kubectl.rolled_out(SHOP, each)?;
    }
    let words = ["delete", "--ignore-not-found", "--timeout=60s", "--filename=-"];
    let deleted = kubectl.output(&words, manifests)?;
    if !deleted.status.success() {
        bail!("{}", String::from_utf8_lossy(&deleted.stderr));
    }
    kubectl.run(&["delete", "namespace", SYSTEM, "--ignore-not-found", "--timeout=60s"])?;
    for kind in [
        "customresourcedefinitions",
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "clusterroles",
        "clusterrolebindings",
    ] {
        let left = kubectl.run(&["get", kind, "--output=name"])?;
        if left.contains("kuma.io") || left.contains("atoll") {
            bail!("{left}");
        }
    }
    kubectl.run(&["delete", "namespace", SHOP, "--timeout=60s"]).map(drop)
}
