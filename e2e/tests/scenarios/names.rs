//! Names, and the services that have the same.

use super::{
    Scenario,
    calls::{at, still},
};
use anyhow::{Result, bail};
use e2e::{
    PATIENCE,
    lab::{Lab, PORT, Plan, Proxy},
    peer::Client,
    wait,
};
use serde_json::{Value, json};

pub(crate) const ALL: &[Scenario] = &[
    (
        "names_are_resolved_beside_the_application_while_its_control_plane_is_away",
        names_are_resolved_beside_the_application_while_its_control_plane_is_away,
    ),
    (
        "services_of_one_name_in_two_zones_and_meshes_are_not_taken_for_each_other",
        services_of_one_name_in_two_zones_and_meshes_are_not_taken_for_each_other,
    ),
];

/// Lets everybody call everybody in a mesh.
pub(crate) fn open(lab: &Lab, mesh: &str) -> Result<()> {
    // A prefix ends at the end of a trust domain.
    let domains = ["west", "east", "north"].map(|zone| {
        let domain = format!("spiffe://{mesh}.{zone}.mesh.local");
        json!({ "spiffeID": { "type": "Prefix", "value": domain } })
    });
    let policy = json!({
        "type": "MeshTrafficPermission", "mesh": mesh, "name": "everybody",
        "spec": {
            "targetRef": { "kind": "Mesh" },
            "rules": [{ "default": { "allow": domains } }],
        },
    });
    lab.global.put(&format!("/meshes/{mesh}/meshtrafficpermissions/everybody"), &policy)
}

/// Waits until who answers at `to` is the workload of that name.
pub(crate) fn answers(client: &mut Client, to: &str, name: &str) -> Result<()> {
    wait::until(&format!("{name} answers at {to}"), PATIENCE, || {
        client.connect(to)?;
        let body: Value = serde_json::from_str(&still(client, 200)?.body)?;
        if body.get("name") == Some(&name.into()) { Ok(()) } else { bail!("{body}") }
    })
}

/// The host asks its own sidecar for names. That knows those of the mesh by itself, and passes the
/// others on to a server that is told to it.
fn names_are_resolved_beside_the_application_while_its_control_plane_is_away() -> Result<()> {
    let mut lab = Lab::start(&["west"])?;
    open(&lab, "default")?;
    let outside = lab.host("west")?;
    let folder = tempfile::tempdir()?;
    let (_names, _server) = outside.serve_outside(folder.path())?;
    let _cart = lab.workload(&Plan::new("west", "cart", 1))?;
    let mut web = Plan::new("west", "web", 1);
    web.settings = json!({ "dns": { "upstreams": [outside.address.to_string()] } });
    let web = lab.resolving(&web)?;
    answers(&mut web.client()?, &at("cart", "west"), "cart-1")?;

    lab.zone("west")?.stop()?;
    for (name, server) in [
        (at("cart", "west"), "cart-1"),
        (format!("cart.svc.mesh.local:{PORT}"), "cart-1"),
        (format!("outside.example:{PORT}"), "outside"),
    ] {
        // A new process has nothing in its memory.
        let mut client = web.client()?;
        client.connect(&name)?;
        let body: Value = serde_json::from_str(&still(&mut client, 200)?.body)?;
        if body.get("name") != Some(&server.into()) {
            bail!("{name}: {body}");
        }
    }
    let told = web.client()?.connect(&at("nobody", "west"));
    if told.is_ok() {
        bail!("a name of the mesh that nobody has was resolved");
    }
    Ok(())
}

/// Two zones have a cart, and so has another mesh in one of them. Each name leads to its own.
fn services_of_one_name_in_two_zones_and_meshes_are_not_taken_for_each_other() -> Result<()> {
    let mut lab = Lab::start(&["west", "east"])?;
    lab.global.put("/meshes/other", &json!({ "type": "Mesh", "name": "other" }))?;
    for zone in ["west", "east"] {
        wait::until("the other mesh arrives", PATIENCE, || lab.zone(zone)?.get("/meshes/other"))?;
    }
    let mut servers: Vec<Proxy> = Vec::new();
    for mesh in ["default", "other"] {
        open(&lab, mesh)?;
        servers.push(lab.ingress_of("east", mesh, &format!("ingress-{mesh}"))?);
    }
    // What answers says its name, so each has another one.
    let plans = [("west", "default", 1), ("east", "default", 2), ("east", "other", 3)];
    for (zone, mesh, number) in plans {
        servers.push(lab.workload(&Plan::new(zone, "cart", number).of(mesh))?);
    }
    let web = lab.resolving(&Plan::new("west", "web", 1))?;
    let stranger = lab.resolving(&Plan::new("west", "web", 1).of("other"))?;
    let own = format!("cart.svc.mesh.local:{PORT}");
    let (mut client, mut other) = (web.client()?, stranger.client()?);
    for _ in 0..3 {
        answers(&mut client, &at("cart", "west"), "cart-1")?;
        answers(&mut client, &own, "cart-1")?;
        answers(&mut client, &at("cart", "east"), "cart-2")?;
        answers(&mut other, &at("cart", "east"), "cart-3")?;
    }
    // Its mesh has none here.
    if other.connect(&at("cart", "west")).is_ok() {
        bail!("a name of one mesh was resolved in the other");
    }
    Ok(())
}
