//! What an Envoy refuses is known on its zone and on global.

use super::Scenario;
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    control_plane::ControlPlane,
    lab::{Lab, PORT, Plan},
    process::{Process, programs, run},
    wait,
};
use serde_json::{Value, json};

pub(crate) const ALL: &[Scenario] = &[(
    "what_an_envoy_refuses_is_told_on_global_and_others_pass_meanwhile",
    what_an_envoy_refuses_is_told_on_global_and_others_pass_meanwhile,
)];

const LISTENER: &str = "Listener self_inbound_dp_http";
const IN_USE: &str = "Address already in use";

/// A policy for the inbounds of a workload.
fn timeout(lab: &Lab, name: &str, workload: &str, idle: &str) -> Result<()> {
    let policy = json!({
        "type": "MeshTimeout", "mesh": "default", "name": name,
        "spec": {
            "targetRef": { "kind": "Dataplane", "labels": { "kuma.io/workload": workload } },
            "rules": [{ "default": { "idleTimeout": idle } }],
        },
    });
    lab.global.put(&format!("/meshes/default/meshtimeouts/{name}"), &policy)
}

/// Runs `atoll` as the administrator of a control plane.
fn atoll(at: &ControlPlane, command: &[&str]) -> Result<String> {
    let atoll = programs()?.join("atoll").display().to_string();
    let token = at.folder.join("data/admin-token").display().to_string();
    let (address, ca) = (format!("https://{}:5682", at.address), at.ca().display().to_string());
    let options = ["--address", &*address, "--ca-file", &*ca, "--token-file", &*token];
    run(&[&[&*atoll], &options[..], command].concat())
}

/// Fails unless the only zone says that its proxy `web-1` refused its listener.
fn is_refused(told: &Value) -> Result<()> {
    let refused = told.pointer("/zones/0/proxies/refused/0").with_context(|| told.to_string())?;
    let text = |field: &str| refused.get(field).and_then(Value::as_str).unwrap_or_default();
    let state = told.pointer("/zones/0/proxies/state").and_then(Value::as_str);
    let named = (state, text("proxy"), text("what")) == (Some("Refused"), "web-1", LISTENER);
    if named && text("reason").contains(IN_USE) { Ok(()) } else { bail!("{told}") }
}

/// Another program has the port of an inbound, so Envoy refuses the listener whenever it changes.
/// Global says so with Envoy's words; the same change of another proxy passes. When the port is free,
/// the next version is taken, and waited for with success. Then it is deleted, and that is waited for.
fn what_an_envoy_refuses_is_told_on_global_and_others_pass_meanwhile() -> Result<()> {
    let mut lab = Lab::start(&["west"])?;
    let _pay = lab.workload(&Plan::new("west", "pay", 1))?;
    let host = lab.host("west")?;
    let (folder, place) = (tempfile::tempdir()?, format!("{}:{PORT}", host.address));
    let peer = programs()?.join("peer").display().to_string();
    let command = [&*peer, "http", &*place, "thief"];
    let thief = Process::start("thief", folder.path(), Some(&*host.namespace), &command)?;
    let plan = Plan::new("west", "web", 1);
    let token = lab.global.dataplane_token(&plan.claims())?;
    wait::until("the port is taken", PATIENCE, || {
        let taken = run(&["ip", "netns", "exec", &host.namespace, "ss", "-ltn"])?;
        if taken.contains(&place) { Ok(()) } else { bail!("{taken}\n{}", thief.tail()) }
    })?;
    let web = lab.launch_at(host, &plan, &token)?;
    wait::until("Envoy refuses its listener", PATIENCE, || {
        let (_, text) = web.readiness()?;
        if text.contains(IN_USE) { Ok(()) } else { bail!("{text}\n{}", web.log()) }
    })?;

    timeout(&lab, "slow", "web", "7m")?;
    let path = "/meshes/default/meshtimeouts/slow/_propagation?proxies=true";
    wait::until("global says so", PATIENCE, || is_refused(&lab.global.get(path)?))?;
    let list = lab.zone("west")?.get("/meshes/default/meshtimeouts")?;
    let items = list.get("items").and_then(Value::as_array).context("items")?;
    let named =
        |item: &&Value| item.pointer("/labels/kuma.io~1display-name") == Some(&json!("slow"));
    let slow = items.iter().find(named).and_then(|it| it.get("name")?.as_str()).context("slow")?;
    let own = format!("/meshes/default/meshtimeouts/{slow}/_propagation");
    wait::until("its zone says so", PATIENCE, || is_refused(&lab.zone("west")?.get(&own)?))?;
    let status = ["status", "meshtimeout/slow", "--proxies"];
    wait::until("an operator is told", PATIENCE, || {
        let told = atoll(&lab.global, &status)?;
        let line = format!("west: refused by proxy web-1: {LISTENER}: ");
        let line = told.lines().find(|it| it.starts_with(&line)).with_context(|| told.clone())?;
        if line.contains(IN_USE) { Ok(()) } else { bail!("{line}") }
    })?;

    timeout(&lab, "other", "pay", "7m")?;
    let wait_for = |lab: &Lab, name: &str, flag: &str| {
        atoll(&lab.global, &["wait", name, "--zones", "all", flag, "--timeout", "30s"])
    };
    let others = wait_for(&lab, "meshtimeout/other", "--proxies")?;
    if !others.contains("meshtimeout/other applied: 1 zones have it") {
        bail!("{others}");
    }

    thief.kill()?;
    timeout(&lab, "slow", "web", "8m")?;
    wait::until("the next version is taken", PATIENCE, || {
        wait_for(&lab, "meshtimeout/slow", "--proxies")
    })?;
    web.wait()?;
    let told = lab.global.get(path)?;
    let at = told.pointer("/zones/0/proxies/took/0/at").context("when it was taken")?;
    let took = json!([{ "proxy": told.pointer("/zones/0/proxies/took/0/proxy"), "at": at }]);
    let expected = json!({ "state": "Applied", "concerned": 1, "applied": 1, "took": took });
    if told.pointer("/zones/0/proxies") != Some(&expected) {
        bail!("{told}");
    }
    lab.global.delete("/meshes/default/meshtimeouts/slow")?;
    let gone = wait_for(&lab, "meshtimeout/slow", "--deleted")?;
    if gone.contains("meshtimeout/slow gone: 1 zones dropped it") {
        Ok(())
    } else {
        bail!("{gone}")
    }
}
