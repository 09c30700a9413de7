//! A control plane is away while requests are under way.

use super::{
    Scenario,
    calls::{answered, at, permit, still},
};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    control_plane::ControlPlane,
    lab::{Lab, PORT, Plan, Proxy},
    peer::Ask,
    wait::{self, Watch},
};
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};

pub(crate) const ALL: &[Scenario] = &[
    ("calls_outlast_the_control_plane_of_the_servers_zone", || outlast(Some("east"))),
    ("calls_and_names_outlast_the_control_plane_of_the_clients_zone", || outlast(Some("west"))),
    ("calls_outlast_global", || outlast(None)),
];

/// How long a control plane is away at least.
const AWAY: Duration = Duration::from_millis(700);

/// The MeshService of that name and zone in a list.
pub(crate) fn service<'a>(list: &'a Value, name: &str, zone: &str) -> Option<&'a Value> {
    list.get("items")?.as_array()?.iter().find(|item| {
        let label = |key| item.get("labels").and_then(|labels| labels.get(key));
        label("kuma.io/display-name") == Some(&name.into())
            && label("kuma.io/zone") == Some(&zone.into())
    })
}

/// Fails unless an Envoy has that endpoint and takes it for healthy.
fn healthy(clusters: &str, endpoint: &str) -> Result<()> {
    let line = format!("::{endpoint}::health_flags::healthy");
    if clusters.contains(&line) { Ok(()) } else { bail!("no {line} in {clusters}") }
}

/// What a client uses is there all the time: at its own Envoy, at the ingress, and at global unless
/// that is the one that is away.
fn watches(lab: &Lab, away: Option<&str>, proxies: [&Proxy; 3]) -> Result<Vec<Watch>> {
    let [web, ingress, cart] = proxies;
    let mut watches = Vec::new();
    let seen = [
        (web, "the ingress at the client", format!("{}:10001", ingress.host.address)),
        (ingress, "the server at the ingress", format!("{}:{PORT}", cart.host.address)),
    ];
    for (proxy, what, endpoint) in seen {
        let clusters = proxy.asker("/clusters")?;
        watches.push(Watch::start(what, move || healthy(&clusters()?, &endpoint)));
    }
    if away.is_some() {
        let services = lab.global.getter("/meshes/default/meshservices")?;
        watches.push(Watch::start("the service at global", move || {
            let list = services()?;
            let service = service(&list, "cart", "east");
            let state = service.and_then(|it| it.pointer("/spec/state"));
            if state == Some(&"Available".into()) { Ok(()) } else { bail!("{list}") }
        }));
    }
    Ok(watches)
}

/// The sessions of a zone's proxies, as global knows them: the last one of each.
fn sessions(lab: &Lab, zone: &str) -> Result<BTreeSet<String>> {
    let list = lab.global.get("/meshes/default/dataplanes/_overview")?;
    let items = list.get("items").and_then(Value::as_array).context("items")?;
    let of_zone = items
        .iter()
        .filter(|item| item.pointer("/labels/kuma.io~1zone").and_then(Value::as_str) == Some(zone));
    let last = |item: &Value| {
        let all = item.pointer("/dataplaneInsight/subscriptions")?.as_array()?;
        Some(all.last()?.get("id")?.as_str()?.to_owned())
    };
    Ok(of_zone.filter_map(last).collect())
}

/// A control plane, of a zone or else global, ends in order and then at once, with requests under
/// way. None fails; new connections and new lookups work while it is away; nothing is taken away
/// when it is back; and what changes then arrives.
fn outlast(zone: Option<&str>) -> Result<()> {
    fn of<'a>(lab: &'a mut Lab, zone: Option<&str>) -> Result<&'a mut ControlPlane> {
        match zone {
            Some(zone) => lab.zone(zone),
            None => Ok(&mut lab.global),
        }
    }
    let mut lab = Lab::start(&["west", "east"])?;
    let ingress = lab.ingress("east", "ingress-1")?;
    let server = lab.workload(&Plan::new("east", "cart", 1))?;
    let web = lab.resolving(&Plan::new("west", "web", 1))?;
    permit(&lab, "cart", "allow", "web")?;
    let (mut steady, cart) = (web.client()?, at("cart", "east"));
    answered(&mut steady, &cart, 200)?;
    let mut later = Vec::new();
    for (workload, in_order) in [("after-term", true), ("after-kill", false)] {
        let watches = watches(&lab, zone, [&web, &ingress, &server])?;
        let before = zone.map(|zone| sessions(&lab, zone)).transpose()?.unwrap_or_default();
        steady.ask(&Ask::Load)?;
        let away = of(&mut lab, zone)?;
        if in_order {
            away.stop()?;
        } else {
            away.kill()?;
        }
        let mut fresh = web.client()?;
        wait::throughout("calls on new connections", AWAY, || {
            fresh.connect(&cart)?;
            still(&mut fresh, 200).map(drop)
        })?;

        of(&mut lab, zone)?.start()?;
        later.push(lab.workload(&Plan::new("east", workload, 1))?);
        permit(&lab, workload, "allow", "web")?;
        answered(&mut fresh, &at(workload, "east"), 200)?;
        if let Some(zone) = zone {
            wait::until("all proxies are back", PATIENCE, || {
                let now = sessions(&lab, zone)?;
                if now.is_disjoint(&before) && now.len() >= before.len() {
                    Ok(())
                } else {
                    bail!("{before:?}, then {now:?}")
                }
            })?;
        }
        let told = steady.ask(&Ask::Stop)?;
        if told.bad != 0 || told.good < 100 {
            bail!("{told:?}");
        }
        for watch in watches {
            watch.end()?;
        }
    }
    Ok(())
}
