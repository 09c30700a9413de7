//! What takes too long for every run: two clusters and a zone of machines, and what may happen to
//! them while they are called.

use super::{
    Scenario,
    world::{FRONT, Load, SHOP, SYSTEM, WEB, World, Zone, called_by, cart, curl, domain, server},
};
use anyhow::{Context, Result, bail};
use e2e::{PATIENCE, cluster::Images, wait};
use serde_json::Value;
use std::time::Duration;

pub(crate) const ALL: &[Scenario] = &[
    (
        "pods_of_all_sorts_are_called_from_another_cluster",
        pods_of_all_sorts_are_called_from_another_cluster,
    ),
    ("restarts_and_scaling_fail_no_request", restarts_and_scaling_fail_no_request),
    ("a_cluster_that_was_cut_off_catches_up", a_cluster_that_was_cut_off_catches_up),
    ("traffic_goes_on_while_an_api_server_is_away", traffic_goes_on_while_an_api_server_is_away),
    ("a_control_plane_that_is_killed_loses_nothing", a_control_plane_that_is_killed_loses_nothing),
    (
        "a_namespace_goes_with_all_that_was_made_of_it",
        a_namespace_goes_with_all_that_was_made_of_it,
    ),
];

/// By name and with identities, a StatefulSet one by one, and a Job that ends.
fn pods_of_all_sorts_are_called_from_another_cluster(images: &Images) -> Result<()> {
    let world = World::of_two(images)?;
    for (from, to) in [("k8s-1", "k8s-2"), ("k8s-2", "k8s-1")] {
        let url = format!("http://{}/", cart(to));
        let body = world.zone(from)?.pod_reaches("deployment/front", "front", &url)?;
        called_by(&body, &format!("{}/ns/shop/sa/front", domain(from)))?;
    }
    let (one, two) = (world.zone("k8s-1")?, world.zone("k8s-2")?);
    two.kubectl().apply(include_str!("shard.yaml"))?;
    two.kubectl().rolled_out(SHOP, "statefulset/shard")?;
    for pod in ["shard-0", "shard-1"] {
        let url = format!("http://{pod}.shard.shop.svc.k8s-2.mesh.local:8080/");
        let body = one.pod_reaches("deployment/front", "front", &url)?;
        if body.get("name") != Some(&pod.into()) {
            bail!("{url}: {body}");
        }
    }
    one.kubectl()
        .apply(&include_str!("job.yaml").replace("URL", &format!("http://{}/", cart("k8s-2"))))?;
    one.kubectl().wait(SHOP, "job/errand", "condition=complete")
}

/// Of the application, of the ingress and of the control plane, in the zone that is called.
fn restarts_and_scaling_fail_no_request(images: &Images) -> Result<()> {
    let world = World::of_two(images)?;
    let (one, two) = (world.zone("k8s-1")?, world.zone("k8s-2")?);
    let scale = |pods: usize| {
        let replicas = format!("--replicas={pods}");
        two.kubectl().run(&["scale", "--namespace", SHOP, "deployment/cart", &replicas])?;
        two.settles("cart", pods)
    };
    let restart = |namespace, what| {
        two.kubectl().run(&["rollout", "restart", "--namespace", namespace, what])?;
        two.kubectl().rolled_out(namespace, what)
    };
    let loads = || -> Result<_> {
        Ok([
            Load::start("pod to pod", one.cluster.client_beside(FRONT)?, &cart("k8s-2"))?,
            Load::start("machine to pod", world.machine.caller()?, &cart("k8s-2"))?,
            Load::start(
                "pod to pod of the zone",
                two.cluster.client_beside(FRONT)?,
                &cart("k8s-2"),
            )?,
        ])
    };
    let during = |what: &'static str, act: &dyn Fn() -> Result<()>| {
        let loads = loads()?;
        let acted = act();
        // Each is told of before one fails.
        let ended = loads.map(Load::end);
        acted.context(what)?;
        ended.into_iter().try_for_each(|it| it.map(drop)).context(what)
    };
    during("from 2 pods to 1", &|| scale(1))?;
    during("from 1 pod to 10", &|| scale(10))?;
    during("from 10 pods to 1", &|| scale(1))?;
    during("another application", &|| restart(SHOP, "deployment/cart"))?;
    during("other ingresses", &|| restart(SYSTEM, "deployment/atoll-ingress-default"))?;
    // Of the chart's two one is taken away, and the autoscaler, which looks every 15 s, brings it back.
    during("fewer ingresses than there shall be", &|| {
        let ingress = "deployment/atoll-ingress-default";
        two.kubectl().run(&["scale", "--namespace", SYSTEM, ingress, "--replicas=1"])?;
        wait::until("there are two again", PATIENCE, || {
            let deployment = two.kubectl().get(SYSTEM, ingress)?;
            let ready = deployment.pointer("/status/readyReplicas").and_then(Value::as_u64);
            let wanted = deployment.pointer("/spec/replicas").and_then(Value::as_u64);
            if (wanted, ready) == (Some(2), Some(2)) { Ok(()) } else { bail!("{ready:?}") }
        })
    })?;
    during("another control plane", &|| restart(SYSTEM, "deployment/atoll-zone-cp"))
}

/// Within it everything goes on, and what is new in it is there for others as soon as it is healed.
fn a_cluster_that_was_cut_off_catches_up(images: &Images) -> Result<()> {
    let world = World::of_two(images)?;
    let (one, two) = (world.zone("k8s-1")?, world.zone("k8s-2")?);
    let url = format!("http://{}/", cart("k8s-2"));
    one.pod_reaches("deployment/front", "front", &url)?;
    let within = Load::start("within", two.cluster.client_beside(FRONT)?, &cart("k8s-2"))?;
    world.lab.network().cut(&two.cluster.host)?;
    if let Ok(answer) = one.kubectl().exec(SHOP, "deployment/front", "front", &curl(&url)) {
        bail!("a cluster that was cut off is reached: {answer}");
    }
    let inside = two.cluster.kubectl_on_node();
    inside.apply(&server("late"))?;
    inside.rolled_out(SHOP, "deployment/late")?;
    within.end()?;
    world.lab.network().heal(&two.cluster.host)?;
    one.pod_reaches("deployment/front", "front", &url)?;
    let late = "http://late.shop.svc.k8s-2.mesh.local:8080/";
    one.pod_reaches("deployment/front", "front", late).map(drop)
}

/// For a minute. What is new after it gets everywhere.
fn traffic_goes_on_while_an_api_server_is_away(images: &Images) -> Result<()> {
    let mut world = World::of_two(images)?;
    let one = world.zone("k8s-1")?;
    let loads = [
        Load::start("to machine", one.cluster.client_beside(FRONT)?, WEB)?,
        Load::start("from machine", world.machine.caller()?, &cart("k8s-1"))?,
    ];
    world.cluster("k8s-1")?.stop_server()?;
    wait::throughout("it is away", Duration::from_secs(60), || Ok(()))?;
    world.cluster("k8s-1")?.start_server()?;
    let one = world.zone("k8s-1")?;
    one.kubectl().apply(&server("late"))?;
    // Controllers and kubelets look for the server less and less often.
    wait::until("it starts", PATIENCE * 3, || one.kubectl().rolled_out(SHOP, "deployment/late"))?;
    world.machine_reaches("http://late.shop.svc.k8s-1.mesh.local:8080/")?;
    loads.into_iter().try_for_each(|load| load.end().map(drop))
}

/// While services come and go. Traffic goes on, and in the end everybody knows what is there.
fn a_control_plane_that_is_killed_loses_nothing(images: &Images) -> Result<()> {
    const ROUNDS: usize = 4;
    let world = World::of_two(images)?;
    let (one, two) = (world.zone("k8s-1")?, world.zone("k8s-2")?);
    let load = Load::start("from machine", world.machine.caller()?, &cart("k8s-2"))?;
    for round in 0..ROUNDS {
        two.kubectl().apply(&server(&format!("server-{round}")))?;
        if let Some(before) = round.checked_sub(1) {
            let gone =
                [&*format!("service/server-{before}"), &format!("deployment/server-{before}")];
            two.kubectl().run(&[&["delete", "--namespace", SHOP][..], &gone].concat())?;
        }
        // The deployment may look well a moment longer than its process lives.
        wait::until("there is one to be killed", PATIENCE * 4, || two.cluster.kill("zone-cp"))?;
        // It comes back sooner or later, as kubelet has it.
        wait::until("it is back", PATIENCE * 4, || {
            two.kubectl().rolled_out(SYSTEM, "deployment/atoll-zone-cp")
        })?;
    }
    let last = format!("http://server-{}.shop.svc.k8s-2.mesh.local:8080/", ROUNDS - 1);
    one.pod_reaches("deployment/front", "front", &last)?;
    load.end()?;
    services(one, "k8s-2", &["cart", &format!("server-{}", ROUNDS - 1)])
}

/// Waits until a zone knows these services of another one, and no others.
fn services(zone: &Zone, other: &str, expected: &[&str]) -> Result<()> {
    let selector = format!("--selector=kuma.io/zone={other}");
    let path = "--output=jsonpath={range .items[*]}{.metadata.annotations.kuma\\.io/display-name}{'\\n'}{end}";
    wait::until(&format!("the services of {other} are known"), PATIENCE, || {
        let names = ["get", "meshservices", "--namespace", SYSTEM, &selector, path];
        let names = zone.kubectl().run(&names)?;
        let mut names: Vec<&str> = names.lines().collect();
        names.sort_unstable();
        if names == expected { Ok(()) } else { bail!("{names:?}") }
    })
}

/// In its own zone, and what others know of it.
fn a_namespace_goes_with_all_that_was_made_of_it(images: &Images) -> Result<()> {
    let world = World::of_two(images)?;
    let (one, two) = (world.zone("k8s-1")?, world.zone("k8s-2")?);
    services(one, "k8s-2", &["cart"])?;
    two.kubectl().run(&["delete", "namespace", SHOP, "--timeout=120s"])?;
    services(one, "k8s-2", &[])?;
    for kind in ["dataplanes", "dataplaneinsights", "workloads", "meshservices"] {
        wait::until(&format!("there are no {kind} of the namespace"), PATIENCE, || {
            let selector = "--selector=k8s.kuma.io/namespace=shop,kuma.io/zone=k8s-2";
            let left = ["get", kind, "--all-namespaces", selector, "--output=name"];
            let left = two.kubectl().run(&left)?;
            let named = ["get", kind, "--all-namespaces", "--output=name"];
            let named = two.kubectl().run(&named)?;
            let named = named.lines().find(|it| it.ends_with(".shop"));
            if left.is_empty() && named.is_none() { Ok(()) } else { bail!("{left} {named:?}") }
        })?;
    }
    Ok(())
}
