//! Ingresses die while requests are under way.

use super::{
    Scenario,
    calls::{answered, at},
    note,
    permissions::{WEB, allow},
    summary,
};
use anyhow::{Result, bail};
use e2e::{
    PATIENCE,
    lab::{Lab, Plan, Proxy},
    load::Load,
    peer::Told,
    wait,
};
use std::{fs, time::Duration};

pub(crate) const ALL: &[Scenario] = &[
    (
        "an_ingress_that_lost_its_envoy_or_its_program_serves_again",
        an_ingress_that_lost_its_envoy_or_its_program_serves_again,
    ),
    (
        "one_of_two_ingresses_dies_and_no_request_fails",
        one_of_two_ingresses_dies_and_no_request_fails,
    ),
    (
        "one_of_two_ingresses_freezes_and_those_who_wait_are_served_by_the_other",
        one_of_two_ingresses_freezes_and_those_who_wait_are_served_by_the_other,
    ),
];

const CLIENTS: usize = 8;
/// How long requests run before something dies, and after it.
const BEFORE: Duration = Duration::from_millis(300);
const AFTER: Duration = Duration::from_secs(1);
/// A proxy that says nothing is given up after a ping's interval and its timeout, 5 s and 2 s, and
/// some time of this machine.
const PING: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_millis(8500);
/// An Envoy starts and gets its configuration within this.
const OUTAGE: Duration = Duration::from_secs(5);

/// `web` in west, which calls `cart` in east.
struct Scene {
    lab: Lab,
    to: String,
    web: Proxy,
    _cart: Proxy,
}

impl Scene {
    fn start() -> Result<(Self, Proxy)> {
        let mut lab = Lab::start(&["west", "east"])?;
        let ingress = lab.ingress("east", "ingress-1")?;
        let web = lab.workload(&Plan::new("west", "web", 1))?;
        allow(&lab, "cart", &[WEB])?;
        let cart = lab.workload(&Plan::new("east", "cart", 1))?;
        let scene = Self { lab, to: at("cart", "east"), web, _cart: cart };
        answered(&mut scene.web.client()?, &scene.to, 200)?;
        Ok((scene, ingress))
    }

    /// What came of requests that ran before, while and after `act` did what it does.
    fn under_load(&self, what: &str, act: impl FnOnce() -> Result<()>) -> Result<Told> {
        let load = Load::start(&self.web.host.namespace, &self.to, CLIENTS)?;
        wait::throughout("requests run", BEFORE, || Ok(()))?;
        act()?;
        let mut client = self.web.client()?;
        answered(&mut client, &self.to, 200)?;
        wait::throughout(what, AFTER, || answered(&mut client, &self.to, 200).map(drop))?;
        let told = load.stop()?;
        note(&format!("{what}: {}", summary(&told)));
        if told.good == 0 { bail!("{what}: nothing was answered") } else { Ok(told) }
    }

    /// Waits until the caller's Envoy holds `count` ingresses for healthy.
    fn healthy(&self, count: u64) -> Result<()> {
        wait::until(&format!("{count} ingresses are in use"), PATIENCE, || {
            let healthy =
                self.web.stat("cluster.kri_msvc_default_east__cart_http.membership_healthy")?;
            if healthy == count { Ok(()) } else { bail!("{healthy} are") }
        })
    }
}

fn short(what: &str, told: &Told) -> Result<()> {
    if u128::from(told.gap) > OUTAGE.as_micros() {
        bail!("{what}: {}", summary(told))
    } else {
        Ok(())
    }
}

fn none_failed(what: &str, told: &Told) -> Result<()> {
    if told.bad > 0 { bail!("{what}: {}", summary(told)) } else { Ok(()) }
}

/// Its program starts another Envoy at once. Without its program an Envoy goes on serving, and the
/// next program ends it before it starts its own.
fn an_ingress_that_lost_its_envoy_or_its_program_serves_again() -> Result<()> {
    let (scene, mut ingress) = Scene::start()?;
    let first = ingress.envoy()?;
    let told = scene.under_load("Envoy killed", || {
        ingress.kill_envoy()?;
        wait::until("another Envoy", PATIENCE, || {
            if ingress.envoy()? == first { bail!("not yet") } else { ingress.wait() }
        })
    })?;
    short("Envoy killed", &told)?;

    let left = ingress.envoy()?;
    let told = scene.under_load("program killed", || ingress.kill())?;
    none_failed("program killed", &told)?;
    let told = scene.under_load("program started", || {
        ingress.start()?;
        ingress.wait()
    })?;
    // Nothing is left of it but, perhaps, an entry that its new parent did not look at yet.
    if !fs::read(format!("/proc/{left}/cmdline")).unwrap_or_default().is_empty() {
        bail!("the Envoy of the program that was killed is still there");
    }
    short("program started", &told)
}

/// Whatever dies of one, its Envoy or its whole host, the other serves.
fn one_of_two_ingresses_dies_and_no_request_fails() -> Result<()> {
    let (mut scene, mut first) = Scene::start()?;
    let second = scene.lab.ingress("east", "ingress-2")?;
    scene.healthy(2)?;
    let told = scene.under_load("one of two lost its Envoy", || second.kill_envoy())?;
    none_failed("one of two lost its Envoy", &told)?;
    second.wait()?;
    scene.healthy(2)?;
    let told = scene.under_load("one of two lost its power", || first.lose_power())?;
    none_failed("one of two lost its power", &told)
}

/// Its connections stay open and say nothing. What is under way there waits until the pings of HTTP/2
/// find out, and then goes to the other; nothing fails, and once it goes on it is used again.
fn one_of_two_ingresses_freezes_and_those_who_wait_are_served_by_the_other() -> Result<()> {
    let (mut scene, first) = Scene::start()?;
    let _second = scene.lab.ingress("east", "ingress-2")?;
    scene.healthy(2)?;
    let load = Load::start(&scene.web.host.namespace, &scene.to, CLIENTS)?;
    wait::throughout("requests run", BEFORE, || Ok(()))?;
    let frozen = first.freeze_envoy()?;
    wait::throughout("one of two is frozen", SILENCE, || Ok(()))?;
    let told = load.stop()?;
    note(&format!("one of two frozen: {}", summary(&told)));
    let slowest = Duration::from_micros(told.slowest);
    if told.bad > 0 || slowest > SILENCE {
        bail!("one of two frozen: {}", summary(&told));
    }
    // Otherwise nobody's requests ran through the one that was frozen.
    if slowest < PING {
        bail!("nobody waited: {}", summary(&told));
    }
    drop(frozen);
    scene.healthy(2)?;
    let told = scene.under_load("it goes on", || Ok(()))?;
    none_failed("it goes on", &told)
}
