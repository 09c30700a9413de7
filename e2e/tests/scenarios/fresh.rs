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
use std::time::Duration;

pub(crate) const ALL: &[Scenario] = &[
    (
        "a_beacon_goes_to_an_envoy_and_one_that_hangs_is_late_until_it_goes_on",
        a_beacon_goes_to_an_envoy_and_one_that_hangs_is_late_until_it_goes_on,
    ),
    ("a_zone_says_which_proxies_have_a_policy", a_zone_says_which_proxies_have_a_policy),
];

/// More than pings of a connection take to end it.
const STAYS: Duration = Duration::from_secs(16);
const WEB: &str = "default/web-1";

/// Fails unless `at` shows the zone `west` like this, with its proxy and these stages.
fn shows(at: &ControlPlane, (state, late): (&str, Option<&str>), stages: &[&str]) -> Result<()> {
    let all = at.get("/_freshness")?;
    let zones = all.get("items").and_then(Value::as_array).context("items")?;
    let west = zones.iter().find(|it| it.get("zone").is_some_and(|name| name == "west"));
    let west = west.with_context(|| format!("west is not in {all}"))?;
    let text = |key: &str| west.get(key).and_then(Value::as_str);
    let seen = west.get("stages").and_then(Value::as_array).into_iter().flatten();
    let seen: Vec<&str> = seen.filter_map(|it| it.get("stage")?.as_str()).collect();
    let found = (text("state"), text("late"), text("proxy"), &*seen);
    if found == (Some(state), late, Some(WEB), stages) { Ok(()) } else { bail!("{west}") }
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

/// The whole line is fresh, and beacons change nothing in Envoy. One that hangs is late on both control
/// planes, also after its stream was given up, until it goes on.
fn a_beacon_goes_to_an_envoy_and_one_that_hangs_is_late_until_it_goes_on() -> Result<()> {
    const OF_GLOBAL: [&str; 6] = ["Global", "Stream", "Zone", "Return", "Tables", "Proxy"];
    const OF_ZONE: [&str; 3] = ["Zone", "Tables", "Proxy"];
    let mut lab = Lab::start(&["west"])?;
    let web = lab.workload(&Plan::new("west", "web", 1))?;
    let mut shown = |how| {
        shows(&lab.global, how, &OF_GLOBAL)?;
        shows(lab.zone("west")?, how, &OF_ZONE)
    };
    let (fresh, late) = (("Fresh", None), ("Late", Some("Proxy")));
    let mut both = |what: &str, how| {
        let (told, time) = wait::timed(|| wait::until(what, PATIENCE, || shown(how)));
        note(&format!("{what} after {time:.1?}"));
        told?;
        // What was seen is so, and not for a moment.
        wait::throughout(what, STAYS, || shown(how))
    };
    both("fresh down to Envoy", fresh)?;
    let before = listeners(&web)?;
    let frozen = web.freeze_envoy()?;
    both("an Envoy that hangs is late", late)?;
    drop(frozen);
    both("it goes on and is fresh", fresh)?;
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
        let proxies = told.pointer("/zones/0/proxies").context("proxies")?;
        let at = |field| proxies.pointer(field).filter(|value| !value.is_null());
        let applied = at("/state") == Some(&json!("Applied")) && at("/applied") == Some(&json!(1));
        if applied && at("/took/0/at").is_some() { Ok(()) } else { bail!("{told}") }
    })
}
