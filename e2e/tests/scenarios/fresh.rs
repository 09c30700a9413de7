//! The beacon goes to a real Envoy and back.

use super::{Scenario, calls::answered, calls::at, calls::permit, note};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    control_plane::ControlPlane,
    lab::{Lab, Plan, Proxy},
    wait,
};
use serde_json::{Value, json};

pub(crate) const ALL: &[Scenario] = &[
    (
        "a_beacon_goes_to_an_envoy_and_one_that_hangs_is_given_up",
        a_beacon_goes_to_an_envoy_and_one_that_hangs_is_given_up,
    ),
    ("a_zone_says_which_proxies_have_a_policy", a_zone_says_which_proxies_have_a_policy),
];

/// Fails unless the zone `west` is fresh, with the proxy and the stages that are given.
fn is_fresh(at: &ControlPlane, proxy: Option<&str>, stages: &[&str]) -> Result<()> {
    let all = at.get("/_freshness")?;
    let zones = all.get("items").and_then(Value::as_array).context("items")?;
    let west = zones.iter().find(|it| it.get("zone").is_some_and(|name| name == "west"));
    let west = west.with_context(|| format!("west is not in {all}"))?;
    let text = |key: &str| west.get(key).and_then(Value::as_str);
    let seen = west.get("stages").and_then(Value::as_array).into_iter().flatten();
    let seen: Vec<&str> = seen.filter_map(|it| it.get("stage")?.as_str()).collect();
    if (text("state"), text("proxy")) == (Some("Fresh"), proxy) && seen == stages {
        Ok(())
    } else {
        bail!("{west}")
    }
}

/// What an Envoy counts that was given listeners or drained some.
fn listeners(proxy: &Proxy) -> Result<[u64; 3]> {
    let count = |name: &str| proxy.stat(&format!("listener_manager.{name}"));
    Ok([
        count("listener_create_success")?,
        count("listener_modified")?,
        count("total_filter_chains_draining")?,
    ])
}

/// The whole line is fresh, and beacons change nothing in Envoy. The stream of one that hangs is given
/// up, so that the line ends before it, on both control planes; when it goes on, it is asked again.
fn a_beacon_goes_to_an_envoy_and_one_that_hangs_is_given_up() -> Result<()> {
    const OF_GLOBAL: [&str; 6] = ["Global", "Stream", "Zone", "Return", "Tables", "Proxy"];
    const OF_ZONE: [&str; 3] = ["Zone", "Tables", "Proxy"];
    const WEB: &str = "default/web-1";
    let mut lab = Lab::start(&["west"])?;
    let web = lab.workload(&Plan::new("west", "web", 1))?;
    let mut both = |what: &str, proxy: Option<&str>| {
        let (told, time) = wait::timed(|| {
            let until = |all: &'static [&'static str]| match proxy {
                Some(_) => all,
                None => all.split_last().map_or(all, |(_, before)| before),
            };
            wait::until(what, PATIENCE, || is_fresh(&lab.global, proxy, until(&OF_GLOBAL)))?;
            let west = lab.zone("west")?;
            wait::until(what, PATIENCE, || is_fresh(west, proxy, until(&OF_ZONE)))
        });
        note(&format!("{what} after {time:.1?}"));
        told
    };
    both("fresh down to Envoy", Some(WEB))?;
    let before = listeners(&web)?;
    let frozen = web.freeze_envoy()?;
    both("an Envoy that hangs is given up", None)?;
    drop(frozen);
    both("it goes on and is fresh", Some(WEB))?;
    let after = listeners(&web)?;
    if before == after { Ok(()) } else { bail!("listeners {before:?}, then {after:?}") }
}

/// A permission written on global concerns the proxy of its service in that service's zone, and that
/// proxy took it.
fn a_zone_says_which_proxies_have_a_policy() -> Result<()> {
    let mut lab = Lab::start(&["west", "east"])?;
    let _ingress = lab.ingress("east", "ingress-1")?;
    let web = lab.workload(&Plan::new("west", "web", 1))?;
    let _cart = lab.workload(&Plan::new("east", "cart", 1))?;
    let mut client = web.client()?;
    answered(&mut client, &at("cart", "east"), 403)?;
    permit(&lab, "cart", "allow", "web")?;
    answered(&mut client, &at("cart", "east"), 200)?;
    let east = lab.zone("east")?;
    let list = east.get("/meshes/default/meshtrafficpermissions")?;
    let name = list.pointer("/items/0/name").and_then(Value::as_str).context("a permission")?;
    let path = format!("/meshes/default/meshtrafficpermissions/{name}/_propagation");
    wait::until("the proxy of cart took it", PATIENCE, || {
        let told = east.get(&path)?;
        let proxies = json!({ "state": "Applied", "concerned": 1, "applied": 1 });
        if told.pointer("/zones/0/proxies") == Some(&proxies) { Ok(()) } else { bail!("{told}") }
    })
}
