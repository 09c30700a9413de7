//! Who may call changes while connections are open.

use super::{
    Scenario,
    calls::{answered, at, still},
    note, spread,
};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    lab::{Lab, Plan, Proxy},
    peer::{Ask, Client, Told},
    wait,
};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) const ALL: &[Scenario] = &[
    (
        "a_permission_counts_for_the_next_request_on_an_open_connection",
        a_permission_counts_for_the_next_request_on_an_open_connection,
    ),
    (
        "an_open_tcp_connection_ends_at_its_next_byte_when_its_permission_goes",
        an_open_tcp_connection_ends_at_its_next_byte_when_its_permission_goes,
    ),
];

/// How often a permission goes and comes back.
const ROUNDS: u32 = 10;
/// More than a change may take, less than a drain of a listener would.
const SOON: Duration = Duration::from_secs(2);

/// Lets `callers`, identities, call the workload `server`, and nobody else.
pub(crate) fn allow(lab: &Lab, server: &str, callers: &[&str]) -> Result<()> {
    let exact = |id: &&str| json!({ "spiffeID": { "type": "Exact", "value": id } });
    let callers: Vec<Value> = callers.iter().map(exact).collect();
    let policy = json!({
        "type": "MeshTrafficPermission", "mesh": "default", "name": server,
        "spec": {
            "targetRef": { "kind": "Dataplane", "labels": { "kuma.io/workload": server } },
            "rules": [{ "default": { "allow": callers } }],
        },
    });
    lab.global.put(&format!("/meshes/default/meshtrafficpermissions/{server}"), &policy)
}

pub(crate) const WEB: &str = "spiffe://default.west.mesh.local/workload/web";
const SHOP: &str = "spiffe://default.west.mesh.local/workload/shop";
const NOBODY: &str = "spiffe://default.west.mesh.local/workload/nobody";

/// 403 and 200 come in turns on one connection, which nobody closes: neither the caller's nor that
/// between the two proxies.
fn a_permission_counts_for_the_next_request_on_an_open_connection() -> Result<()> {
    const CONNECTIONS: &str = "http.self_inbound_dp_http.downstream_cx_total";
    let mut lab = Lab::start(&["west", "east"])?;
    let _ingress = lab.ingress("east", "ingress-1")?;
    let web = lab.workload(&Plan::new("west", "web", 1))?;
    let cart = lab.workload(&Plan::new("east", "cart", 1))?;
    let mut client = web.client()?;
    answered(&mut client, &at("cart", "east"), 403)?;
    let before = cart.stat(CONNECTIONS)?;
    let (mut given, mut taken) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (caller, status, took) in [(WEB, 200, &mut given), (NOBODY, 403, &mut taken)] {
            let (told, time) = wait::timed(|| {
                allow(&lab, "cart", &[caller])?;
                wait::until(&format!("{status}"), SOON, || still(&mut client, status))
            });
            if !told?.open {
                bail!("the connection was closed with the answer {status}");
            }
            took.push(time);
        }
    }
    let connections = cart.stat(CONNECTIONS)?;
    if before == 0 || connections != before {
        bail!("there were {before} connections, and now {connections}");
    }
    note(&format!("HTTP, PUT to 200 on the open connection: {}", spread(given)));
    note(&format!("HTTP, PUT to 403 on the open connection: {}", spread(taken)));
    Ok(())
}

/// Opens a connection and reads what the server says first.
fn greeted(client: &mut Client, to: &str) -> Result<Told> {
    client.connect(to)?;
    heard(client.ask(&Ask::Read)?)
}

/// Sends a byte and reads it back.
fn echoed(client: &mut Client) -> Result<Told> {
    heard(client.ask(&Ask::Echo { text: "x".into() })?)
}

/// Opens a connection on which the server is heard and hears. A caller may be greeted a moment before
/// the permission that it got counts for what it says.
fn served(client: &mut Client, to: &str) -> Result<Told> {
    let greeting = greeted(client, to)?;
    echoed(client)?;
    Ok(greeting)
}

fn heard(told: Told) -> Result<Told> {
    if told.error.is_empty() { Ok(told) } else { bail!("{}", told.error) }
}

/// Fails unless it failed.
fn over<T: std::fmt::Debug>(outcome: Result<T>, what: &str) -> Result<()> {
    match outcome {
        Ok(told) => bail!("{what}: {told:?}"),
        Err(_) => Ok(()),
    }
}

/// What withdraws a permission cuts the connections that were opened under it, also those on which
/// nobody spoke since, and whatever came in between: the permission's return, a restart of the
/// control plane. Who may still call comes back at once.
fn an_open_tcp_connection_ends_at_its_next_byte_when_its_permission_goes() -> Result<()> {
    let mut lab = Lab::start(&["west", "east"])?;
    let _ingress = lab.ingress("east", "ingress-1")?;
    let web = lab.workload(&Plan::new("west", "web", 1))?;
    let shop = lab.workload(&Plan::new("west", "shop", 1))?;
    let redis = lab.workload(&Plan::new("east", "redis", 1).tcp())?;
    let to = at("redis", "east");
    let (mut client, mut other) = (web.client()?, shop.client()?);
    wait::until("the service is known", PATIENCE, || client.connect(&to))?;
    over(greeted(&mut client, &to), "a caller without permission heard the server")?;

    let connect = |web: &Proxy| -> Result<Client> {
        let mut silent = web.client()?;
        greeted(&mut silent, &to)?;
        Ok(silent)
    };
    let (mut cut, mut refused, mut back, mut again) = (vec![], vec![], vec![], vec![]);
    let mut silent = Vec::new();
    for round in 0..ROUNDS {
        let (told, time) = wait::timed(|| {
            allow(&lab, "redis", &[WEB, SHOP])?;
            wait::until("allowed", SOON, || served(&mut client, &to))
        });
        if told?.body != "hello from redis-1\n" {
            bail!("not the greeting of the server");
        }
        again.push(time);
        greeted(&mut other, &to)?;
        if round < 2 {
            silent.push(connect(&web)?);
        }
        echoed(&mut client).context("who may call is heard, still")?;

        let (outcome, time) = wait::timed(|| {
            allow(&lab, "redis", &[SHOP])?;
            wait::until("cut", SOON, || over(echoed(&mut client), "still heard"))
        });
        outcome?;
        cut.push(time);
        let (outcome, time) = wait::timed(|| {
            wait::until("refused", SOON, || over(greeted(&mut client, &to), "still let in"))
        });
        outcome?;
        refused.push(time);
        // Its connection ended with those of the same generation, and it is let in again.
        over(echoed(&mut other), "a connection of the withdrawn generation lives")?;
        let (outcome, time) = wait::timed(|| greeted(&mut other, &to));
        outcome.context("who may still call comes back at once")?;
        back.push(time);
    }
    a_restart_revives_nobody(&mut lab, &mut silent, &mut client, &to)?;
    drop(redis);
    note(&format!("TCP, PUT to the end of the open connection: {}", spread(cut)));
    note(&format!("TCP, from there to the refusal of new ones: {}", spread(refused)));
    note(&format!("TCP, an allowed caller is back: {}", spread(back)));
    note(&format!("TCP, PUT to greeting: {}", spread(again)));
    Ok(())
}

/// The control plane starts anew between the withdrawal and the next byte, and so does the
/// permission.
fn a_restart_revives_nobody(
    lab: &mut Lab,
    silent: &mut [Client],
    client: &mut Client,
    to: &str,
) -> Result<()> {
    allow(lab, "redis", &[WEB])?;
    wait::until("allowed", SOON, || served(client, to))?;
    let [first, second] = silent else { bail!("two connections were silent") };
    over(echoed(first), "A, B, A: a silent connection came back to life")?;
    lab.zone("east")?.stop()?;
    lab.zone("east")?.start()?;
    allow(lab, "redis", &[WEB, SHOP])?;
    wait::until("allowed after the restart", PATIENCE, || served(client, to))?;
    over(echoed(second), "a restart brought a silent connection back to life")
}
