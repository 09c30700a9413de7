//! Proxies that are not let in, and those that get in the way of others.

use super::{
    Scenario,
    calls::{answered, at, permit},
};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    control_plane::ControlPlane,
    lab::{Lab, PORT, Plan, Proxy},
    peer::Ask,
    process::{programs, run},
    wait,
};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

pub(crate) const ALL: &[Scenario] = &[
    ("a_token_of_somebody_else_admits_nobody", a_token_of_somebody_else_admits_nobody),
    (
        "a_second_sidecar_on_a_virtual_address_is_told_so_and_the_first_keeps_it",
        a_second_sidecar_on_a_virtual_address_is_told_so_and_the_first_keeps_it,
    ),
];

/// Waits until a proxy that is not let in has ended, and said why, as its zone has.
fn refused(lab: &mut Lab, proxy: &mut Proxy, reason: &str) -> Result<()> {
    let mut process = proxy.process.take().context("it was started")?;
    let status = process.ended(PATIENCE)?;
    if status.code() != Some(1) || !process.said(reason) {
        bail!("{status}: {}", process.tail());
    }
    // As a value in a log has it.
    let reason = reason.replace('"', "\\\"");
    let zone = lab.zone("west")?.process()?;
    if zone.said(&reason) { Ok(()) } else { bail!("the zone's log says\n{}", zone.tail()) }
}

/// Nothing of what was refused is in the API of a control plane.
fn unknown(cp: &ControlPlane) -> Result<()> {
    for mesh in ["default", "other"] {
        for kind in
            ["dataplanes", "dataplane-insights", "meshservices", "workloads", "meshzoneaddresses"]
        {
            let list = cp.get(&format!("/meshes/{mesh}/{kind}"))?;
            if list.get("total") != Some(&json!(0)) {
                bail!("{list}");
            }
        }
    }
    Ok(())
}

/// A token of another mesh, workload, name or type, one that is over, and one that another global
/// signed. Each ends its bearer with the reason, and nothing of that one is written. With a token of
/// its own the same proxy is let in.
fn a_token_of_somebody_else_admits_nobody() -> Result<()> {
    let mut lab = Lab::start(&["west"])?;
    lab.global.put("/meshes/other", &json!({ "type": "Mesh", "name": "other" }))?;
    wait::until("the other mesh arrives", PATIENCE, || lab.zone("west")?.get("/meshes/other"))?;
    let folder = tempfile::tempdir()?;
    let mut elsewhere = ControlPlane::global(folder.path(), Ipv4Addr::new(127, 77, 0, 9))?;
    elsewhere.start()?;
    let cart = json!({ "workload": "cart" });
    let token = |claims: Value| lab.global.dataplane_token(&claims);
    let tokens = [
        (
            token(json!({ "workload": "cart", "mesh": "other" }))?,
            r#"the token is for mesh "other", not "default""#,
        ),
        (token(json!({ "workload": "shop" }))?, r#"the token is for workload "shop", not "cart""#),
        (
            token(json!({ "workload": "cart", "name": "cart-0" }))?,
            r#"the token is for name "cart-0", not "cart-"#,
        ),
        (
            token(json!({ "workload": "cart", "type": "ingress" }))?,
            r#"the token is for type "ingress", not "dataplane""#,
        ),
        (token(json!({ "workload": "cart", "validFor": "1ms" }))?, "the token expired at "),
        (elsewhere.dataplane_token(&cart)?, "the token's signature is wrong"),
    ];
    let own = token(cart)?;
    let of_sidecar = token(json!({ "workload": "ingress", "type": "dataplane" }))?;
    let mut proxies = Vec::new();
    for (number, (token, reason)) in (1..).zip(&tokens) {
        let host = lab.host("west")?;
        proxies.push((lab.launch_at(host, &Plan::new("west", "cart", number), token)?, *reason));
    }
    let host = lab.host("west")?;
    let ingress = lab.launch_ingress_at(host, ("west", "default", "ingress-1"), &of_sidecar)?;
    proxies.push((ingress, r#"the token is for type "dataplane", not "ingress""#));
    for (proxy, reason) in &mut proxies {
        refused(&mut lab, proxy, reason)?;
    }
    unknown(lab.zone("west")?)?;
    unknown(&lab.global)?;

    for (proxy, _) in proxies.iter_mut().take(tokens.len()) {
        proxy.give(&own)?;
        proxy.start()?;
    }
    for (proxy, _) in proxies.iter().take(tokens.len()) {
        proxy.wait()?;
    }
    Ok(())
}

/// Two sidecars of one host, whose Envoys would both bind the virtual addresses. The second is told,
/// and so is everybody who asks; calls go on through the first. Once that one is gone, the second binds
/// them.
fn a_second_sidecar_on_a_virtual_address_is_told_so_and_the_first_keeps_it() -> Result<()> {
    let mut lab = Lab::start(&["west"])?;
    let _cart = lab.workload(&Plan::new("west", "cart", 1))?;
    let mut web = lab.workload(&Plan::new("west", "web", 1))?;
    permit(&lab, "cart", "allow", "web")?;
    let mut client = web.client()?;
    answered(&mut client, &at("cart", "west"), 200)?;
    client.ask(&Ask::Load)?;

    let shop = Plan::new("west", "shop", 1).at(PORT + 1);
    let token = lab.global.dataplane_token(&shop.claims())?;
    let second = lab.launch_at(web.host.clone(), &shop, &token)?;
    let listener = wait::until("the second is told", PATIENCE, || {
        let (_, text) = second.readiness()?;
        let told = text.lines().find(|it| it.starts_with("proxy: Envoy refuses Listener "));
        let told = told.with_context(|| format!("{text}\n{}", second.log()))?;
        if told.contains("Address already in use") { Ok(told.to_owned()) } else { bail!("{told}") }
    })?;
    let problem = listener.trim_start_matches("proxy: ");
    wait::until("global knows", PATIENCE, || {
        let list = lab.global.get("/meshes/default/dataplanes/_overview")?;
        let items = list.get("items").and_then(Value::as_array).context("items")?;
        let named =
            |item: &&Value| item.pointer("/labels/kuma.io~1display-name") == Some(&json!("shop-1"));
        let shop = items.iter().find(named).context("shop-1")?;
        let problems = shop.pointer("/dataplaneInsight/metadata/problems");
        let problems = problems.and_then(Value::as_array).with_context(|| shop.to_string())?;
        if problems.contains(&problem.into()) { Ok(()) } else { bail!("{problems:?}") }
    })?;
    let atoll = programs()?.join("atoll").display().to_string();
    let token = lab.global.folder.join("data/admin-token").display().to_string();
    let address = format!("https://{}:5682", lab.global.address);
    let ca = lab.global.ca().display().to_string();
    let command = ["--address", &*address, "--ca-file", &*ca, "--token-file", &*token];
    wait::until("everybody is told who asks", PATIENCE, || {
        let said = run(&[&[&*atoll], &command[..], &["dataplanes"]].concat())?;
        let row =
            |name: &str| said.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
        let (first, other) = (row("web-1").context("web-1")?, row("shop-1").context("shop-1")?);
        let shown = first.contains(" online ") && other.contains(" online, problems ");
        if shown && said.contains(problem) { Ok(()) } else { bail!("{said}") }
    })?;

    let told = client.ask(&Ask::Stop)?;
    if told.bad != 0 || told.good < 100 {
        bail!("{told:?}");
    }

    web.stop()?;
    wait::until("the second binds the addresses", PATIENCE, || {
        let (ready, text) = second.readiness()?;
        if ready && !text.contains("refuses") { Ok(()) } else { bail!("{text}") }
    })?;
    Ok(())
}
