//! Replicas come and go while requests are under way.

use super::{
    Scenario,
    calls::{answered, at, still},
    note,
    permissions::{WEB, allow},
    summary,
};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    lab::{Lab, Plan, Proxy},
    load::Load,
    peer::{Client, Told},
    wait,
};
use serde_json::Value;
use std::time::Duration;

pub(crate) const ALL: &[Scenario] = &[
    (
        "a_replica_that_comes_gets_requests_and_one_that_leaves_loses_none",
        a_replica_that_comes_gets_requests_and_one_that_leaves_loses_none,
    ),
    (
        "a_replica_that_dies_is_passed_over_and_then_forgotten",
        a_replica_that_dies_is_passed_over_and_then_forgotten,
    ),
];

const NEAR: &str = "spiffe://default.east.mesh.local/workload/near";
const CLIENTS: usize = 4;
/// Less than a slow request takes.
const UNDER_WAY: Duration = Duration::from_millis(300);

/// `cart` in east, called by `near` in the same zone and by `web` in west.
struct Scene {
    lab: Lab,
    to: String,
    near: Proxy,
    web: Proxy,
    first: Proxy,
    _ingress: Proxy,
}

impl Scene {
    /// With one replica, to which both have a connection.
    fn start() -> Result<Self> {
        let mut lab = Lab::start(&["west", "east"])?;
        let ingress = lab.ingress("east", "ingress-1")?;
        let near = lab.workload(&Plan::new("east", "near", 1))?;
        let web = lab.workload(&Plan::new("west", "web", 1))?;
        allow(&lab, "cart", &[NEAR, WEB])?;
        let first = lab.workload(&Plan::new("east", "cart", 1))?;
        let to = at("cart", "east");
        let scene = Self { lab, to, near, web, first, _ingress: ingress };
        for caller in [&scene.near, &scene.web] {
            answered(&mut caller.client()?, &scene.to, 200)?;
        }
        Ok(scene)
    }

    /// Requests from the same zone, and from the other one.
    fn loads(&self) -> Result<[Load; 2]> {
        let load = |from: &Proxy| Load::start(&from.host.namespace, &self.to, CLIENTS);
        Ok([load(&self.near)?, load(&self.web)?])
    }

    /// Whether the Envoy of a caller in the same zone knows a replica.
    fn knows(&self, cart: &Proxy) -> Result<bool> {
        let place = format!("::{}:", cart.host.address);
        Ok(self.near.admin("/clusters")?.contains(&place))
    }
}

/// Which replica answered.
fn name(told: &Told) -> Result<String> {
    let body: Value = serde_json::from_str(&told.body)?;
    Ok(body.get("name").and_then(Value::as_str).context("name")?.to_owned())
}

/// Asks on the open connection until `replica` answers.
fn answers(client: &mut Client, replica: &str) -> Result<()> {
    wait::until(&format!("{replica} answers"), PATIENCE, || {
        let name = name(&still(client, 200)?)?;
        if name == replica { Ok(()) } else { bail!("{name} does") }
    })
}

fn none_failed(what: &str, load: Load) -> Result<Told> {
    let told = load.stop()?;
    note(&format!("{what}: {}", summary(&told)));
    if told.bad > 0 || told.good == 0 { bail!("{what}: {}", summary(&told)) } else { Ok(told) }
}

/// Also from another zone, whose requests all run on the connection to the replica that leaves. What
/// it was asked before it leaves it still answers itself.
fn a_replica_that_comes_gets_requests_and_one_that_leaves_loses_none() -> Result<()> {
    let mut scene = Scene::start()?;
    let [near, far] = scene.loads()?;
    let mut client = scene.near.client()?;
    answered(&mut client, &scene.to, 200)?;
    let second = scene.lab.workload(&Plan::new("east", "cart", 2))?;
    answers(&mut client, "cart-2")?;
    let mut patient = scene.web.client()?;
    answered(&mut patient, &scene.to, 200)?;
    let told = std::thread::scope(|scope| {
        let slow = scope.spawn(|| patient.get("/slow"));
        wait::throughout("it is under way", UNDER_WAY, || Ok(()))?;
        scene.first.stop()?;
        slow.join().unwrap_or_else(|_| bail!("the client panicked"))
    })?;
    if (told.status, &*name(&told)?) != (Some(200), "cart-1") {
        bail!("who leaves did not answer: {told:?}");
    }
    if scene.knows(&scene.first)? || !scene.knows(&second)? {
        bail!("who left is still known, or who came is not");
    }
    let after = scene.loads()?;
    wait::throughout("no other replica", Duration::from_millis(500), || {
        answers(&mut client, "cart-2")
    })?;
    for (what, load) in [("same zone", near), ("other zone", far)] {
        let told = none_failed(what, load)?;
        if told.by.keys().ne(["cart-1", "cart-2"]) {
            bail!("{what}: {:?}", told.by);
        }
    }
    for load in after {
        let told = none_failed("after one left", load)?;
        if told.by.keys().ne(["cart-2"]) {
            bail!("{:?}", told.by);
        }
    }
    Ok(())
}

/// Both replicas serve, one loses its power. What fails is what was under way at it; its endpoint
/// goes as soon as the control plane misses it.
fn a_replica_that_dies_is_passed_over_and_then_forgotten() -> Result<()> {
    let mut scene = Scene::start()?;
    let _second = scene.lab.workload(&Plan::new("east", "cart", 2))?;
    let mut client = scene.near.client()?;
    answered(&mut client, &scene.to, 200)?;
    answers(&mut client, "cart-2")?;
    let [near, far] = scene.loads()?;
    wait::throughout("both serve", Duration::from_millis(500), || Ok(()))?;
    scene.first.lose_power()?;
    wait::until("it is gone from the endpoints", PATIENCE, || {
        if scene.knows(&scene.first)? { bail!("still there") } else { Ok(()) }
    })?;
    for (what, load) in [("same zone", near), ("other zone", far)] {
        let told = none_failed(what, load)?;
        if told.by.keys().ne(["cart-1", "cart-2"]) {
            bail!("{what}: {:?}", told.by);
        }
    }
    let [near, _far] = scene.loads()?;
    answers(&mut client, "cart-2")?;
    let told = none_failed("after one died", near)?;
    if told.by.keys().ne(["cart-2"]) {
        bail!("{:?}", told.by);
    }
    Ok(())
}
