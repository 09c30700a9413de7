//! Calls from one zone to another.

use super::Scenario;
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    lab::{Lab, PORT, Plan},
    peer::{Client, Told},
    wait,
};
use serde_json::{Value, json};

pub(crate) const ALL: &[Scenario] = &[(
    "a_call_crosses_zones_by_name_with_the_identities_of_both_ends",
    a_call_crosses_zones_by_name_with_the_identities_of_both_ends,
)];

/// Where `service` of `zone` is, by name.
pub(crate) fn at(service: &str, zone: &str) -> String {
    format!("{service}.svc.{zone}.mesh.local:{PORT}")
}

/// A policy that says `verdict` of `caller`, a workload of west, at the workload `server`.
pub(crate) fn permission(server: &str, verdict: &str, caller: &str) -> Value {
    let caller = format!("spiffe://default.west.mesh.local/workload/{caller}");
    json!({
        "type": "MeshTrafficPermission", "mesh": "default", "name": server,
        "spec": {
            "targetRef": { "kind": "Dataplane", "labels": { "kuma.io/workload": server } },
            "rules": [{ "default": {
                verdict: [{ "spiffeID": { "type": "Exact", "value": caller } }],
            } }],
        },
    })
}

/// Writes that policy on global.
pub(crate) fn permit(lab: &Lab, server: &str, verdict: &str, caller: &str) -> Result<()> {
    let path = format!("/meshes/default/meshtrafficpermissions/{server}");
    lab.global.put(&path, &permission(server, verdict, caller))
}

/// Asks on new connections until the answer is `status`.
pub(crate) fn answered(client: &mut Client, to: &str, status: u16) -> Result<Told> {
    wait::until(&format!("{status} of {to}"), PATIENCE, || {
        client.connect(to)?;
        still(client, status)
    })
}

/// Asks on the open connection; fails if the answer is not `status`.
pub(crate) fn still(client: &mut Client, status: u16) -> Result<Told> {
    let told = client.get("/")?;
    if told.status == Some(status) { Ok(told) } else { bail!("{told:?}") }
}

/// Nobody may call before a policy says so; then the server's application is told who called, and
/// by whom it was called.
fn a_call_crosses_zones_by_name_with_the_identities_of_both_ends() -> Result<()> {
    let mut lab = Lab::start(&["west", "east"])?;
    let _ingress = lab.ingress("east", "ingress-1")?;
    let web = lab.workload(&Plan::new("west", "web", 1))?;
    let _cart = lab.workload(&Plan::new("east", "cart", 1))?;
    let mut client = web.client()?;
    let cart = at("cart", "east");
    answered(&mut client, &cart, 403)?;
    permit(&lab, "cart", "allow", "web")?;
    let told = answered(&mut client, &cart, 200)?;
    let body: Value = serde_json::from_str(&told.body)?;
    let seen = body.pointer("/headers/x-forwarded-client-cert").and_then(Value::as_str);
    let seen = seen.context("the application was not told who calls")?;
    for part in [
        "By=spiffe://default.east.mesh.local/workload/cart",
        "URI=spiffe://default.west.mesh.local/workload/web",
    ] {
        if !seen.split(';').any(|it| it == part) {
            bail!("{part} is missing in {seen}");
        }
    }
    if body.get("name") != Some(&json!("cart-1")) {
        bail!("{body}");
    }
    Ok(())
}
