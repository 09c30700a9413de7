//! Services and their endpoints and identities change while requests are under way.

use super::{
    Scenario,
    calls::{answered, at},
    names::open,
    note, summary,
};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    control_plane::{ControlPlane, set},
    lab::{Lab, PORT, Plan, Proxy},
    load::Load,
    peer::Told,
    wait,
};
use serde_json::json;
use std::time::Duration;

pub(crate) const ALL: &[Scenario] = &[
    ("new_services_drain_nothing", new_services_drain_nothing),
    (
        "endpoints_go_and_come_back_and_no_request_fails",
        endpoints_go_and_come_back_and_no_request_fails,
    ),
    (
        "the_identities_of_a_service_change_and_no_request_fails",
        the_identities_of_a_service_change_and_no_request_fails,
    ),
];

const CLIENTS: usize = 4;
/// How long requests run before something changes, and after it.
const AROUND: Duration = Duration::from_millis(300);
/// The name of the cluster of `cart` at those who call it.
const CART: &str = "cluster.kri_msvc_default_east__cart_http";

/// `cart` in east, called by `near` in the same zone and by `web` in west; everybody may.
struct Scene {
    near: Proxy,
    web: Proxy,
    cart: Proxy,
    ingress: Proxy,
}

impl Scene {
    fn start() -> Result<(Lab, Self)> {
        let mut lab = Lab::start(&["west", "east"])?;
        open(&lab, "default")?;
        let ingress = lab.ingress("east", "ingress-1")?;
        let near = lab.workload(&Plan::new("east", "near", 1))?;
        let web = lab.workload(&Plan::new("west", "web", 1))?;
        let cart = lab.workload(&Plan::new("east", "cart", 1))?;
        let scene = Self { near, web, cart, ingress };
        scene.reach(&at("cart", "east"))?;
        Ok((lab, scene))
    }

    /// Waits until both callers are answered.
    fn reach(&self, to: &str) -> Result<()> {
        for caller in [&self.near, &self.web] {
            answered(&mut caller.client()?, to, 200)?;
        }
        Ok(())
    }

    /// What came of requests of both callers that ran before, while and after `act` did what it does;
    /// fails if one failed.
    fn under_load(
        &self,
        what: &str,
        to: &str,
        act: impl FnOnce() -> Result<()>,
    ) -> Result<[Told; 2]> {
        let load = |from: &Proxy| Load::start(&from.host.namespace, to, CLIENTS);
        let loads = [("same zone", load(&self.near)?), ("other zone", load(&self.web)?)];
        wait::throughout("requests run", AROUND, || Ok(()))?;
        act()?;
        wait::throughout("requests run", AROUND, || Ok(()))?;
        let [near, far] = loads.map(|(who, load)| {
            let told = load.stop()?;
            note(&format!("{what}, {who}: {}", summary(&told)));
            if told.bad > 0 || told.good == 0 {
                bail!("{what}, {who}: {}", summary(&told));
            }
            Ok(told)
        });
        Ok([near?, far?])
    }
}

/// What an Envoy counts that drained something.
pub(crate) fn drains(proxy: &Proxy) -> Result<Vec<(&'static str, u64)>> {
    let counters = [
        "listener_modified",
        "listener_removed",
        "listener_in_place_updated",
        "total_filter_chains_draining",
        "total_listeners_draining",
    ];
    let count = |name| Ok((name, proxy.stat(&format!("listener_manager.{name}"))?));
    counters.into_iter().map(count).collect()
}

/// Five services come to the server's zone and are called. What was there is not touched: not a
/// listener, and the one connection of a client and those between the proxies stay.
fn new_services_drain_nothing() -> Result<()> {
    let (mut lab, scene) = Scene::start()?;
    let state = |scene: &Scene| {
        let proxies = [&scene.near, &scene.web, &scene.cart, &scene.ingress];
        let drained = proxies.into_iter().map(drains).collect::<Result<Vec<_>>>()?;
        let connections = [
            scene.near.stat(&format!("{CART}.ssl.handshake"))?,
            scene.web.stat(&format!("{CART}.ssl.handshake"))?,
            scene.cart.stat("http.self_inbound_dp_http.downstream_cx_total")?,
        ];
        anyhow::Ok((drained, connections))
    };
    let load = Load::start(&scene.web.host.namespace, &at("cart", "east"), 1)?;
    wait::throughout("requests run", AROUND, || Ok(()))?;
    let before = state(&scene)?;
    if before.1.contains(&0) {
        bail!("nobody has a connection: {before:?}");
    }
    let mut services = Vec::new();
    for name in ["new-a", "new-b", "new-c", "new-d", "new-e"] {
        services.push(lab.workload(&Plan::new("east", name, 1))?);
        scene.reach(&at(name, "east"))?;
    }
    let told = load.stop()?;
    note(&format!("five new services: {}", summary(&told)));
    if told.bad > 0 || told.good == 0 || told.opened != 1 {
        bail!("{} connections, {}", told.opened, summary(&told));
    }
    let after = state(&scene)?;
    if after == before { Ok(()) } else { bail!("{before:?}, then {after:?}") }
}

/// Fails unless an Envoy has those endpoints of a service, and no others.
fn has_endpoints(proxy: &Proxy, cluster: &str, replicas: &[&Proxy]) -> Result<()> {
    let clusters = proxy.admin("/clusters")?;
    let prefix = format!("{cluster}::");
    let mut seen: Vec<&str> = clusters
        .lines()
        .filter_map(|line| line.strip_prefix(&prefix)?.strip_suffix("::health_flags::healthy"))
        .collect();
    let mut wanted: Vec<String> =
        replicas.iter().map(|it| format!("{}:{PORT}", it.host.address)).collect();
    seen.sort_unstable();
    wanted.sort_unstable();
    if seen == wanted { Ok(()) } else { bail!("{seen:?}, not {wanted:?}") }
}

/// A service that selects the workloads with that label.
fn selects(east: &ControlPlane, (key, value): (&str, &str)) -> Result<()> {
    let service = json!({
        "type": "MeshService", "mesh": "default", "name": "pair",
        "spec": {
            "selector": { "dataplaneLabels": { "matchLabels": { key: value } } },
            "ports": [{ "name": "http", "port": PORT, "targetPort": PORT, "appProtocol": "http" }],
        },
    });
    east.put("/meshes/default/meshservices/pair", &service)
}

/// A service selects two replicas, and then one of them only, ten times.
fn endpoints_go_and_come_back_and_no_request_fails() -> Result<()> {
    const BOTH: (&str, &str) = ("group", "pair");
    let (mut lab, scene) = Scene::start()?;
    let one = lab.workload(&Plan::new("east", "one", 1).labelled(&[BOTH]))?;
    let other = lab.workload(&Plan::new("east", "other", 1).labelled(&[BOTH]))?;
    let east = lab.zone("east")?;
    selects(east, BOTH)?;
    let to = at("pair", "east");
    scene.reach(&to)?;
    let told = scene.under_load("ten endpoints left and came back", &to, || {
        for round in 0..10 {
            let (workload, left) = if round % 2 == 0 { ("one", &one) } else { ("other", &other) };
            let alone = (("kuma.io/workload", workload), &[left][..]);
            for (selector, replicas) in [alone, (BOTH, &[&one, &other])] {
                selects(east, selector)?;
                wait::until("the endpoints are known", PATIENCE, || {
                    has_endpoints(&scene.near, "kri_msvc_default_east__pair_http", replicas)?;
                    has_endpoints(&scene.ingress, "sni.msvc.default.east.pair.http", replicas)
                })?;
            }
        }
        Ok(())
    })?;
    let [near, _] = told;
    if near.by.keys().eq(["one-1", "other-1"]) { Ok(()) } else { bail!("{:?}", near.by) }
}

/// Waits until both callers take that many identities for `cart`.
fn identities(scene: &Scene, count: usize) -> Result<()> {
    const ALL: [&str; 2] = ["workload/cart\"", "workload/cart/v2\""];
    for caller in [&scene.near, &scene.web] {
        wait::until(&format!("{count} identities"), PATIENCE, || {
            let dump = caller.admin("/config_dump?resource=dynamic_active_clusters")?;
            let taken = ALL.iter().filter(|it| dump.contains(**it)).count();
            if taken == count { Ok(()) } else { bail!("{taken} are taken") }
        })?;
    }
    Ok(())
}

/// A second replica with an identity of its own comes and leaves: the service has two identities, and
/// then one.
fn the_identities_of_a_service_change_and_no_request_fails() -> Result<()> {
    const ROUNDS: u8 = 3;
    let (mut lab, scene) = Scene::start()?;
    let mut identity = lab.global.get("/meshes/default/meshidentities/identity")?;
    let spec = identity.get_mut("spec").context("spec")?;
    set(spec, "selector", json!({ "dataplane": { "matchLabels": { "version": "v2" } } }));
    set(spec, "spiffeID", json!({ "path": "/workload/{{ .Workload }}/v2" }));
    let second =
        json!({ "type": "MeshIdentity", "mesh": "default", "name": "second", "spec": spec });
    lab.global.put("/meshes/default/meshidentities/second", &second)?;
    let told = scene.under_load("identities changed", &at("cart", "east"), || {
        for number in 2..2 + ROUNDS {
            let plan = Plan::new("east", "cart", number).labelled(&[("version", "v2")]);
            let mut replica = lab.workload(&plan)?;
            identities(&scene, 2)?;
            wait::throughout("both serve", AROUND, || Ok(()))?;
            replica.stop()?;
            identities(&scene, 1)?;
        }
        Ok(())
    })?;
    // Who calls from the other zone may stay on its connection to the first.
    let [near, _] = told;
    let all = ["cart-1", "cart-2", "cart-3", "cart-4"];
    if near.by.keys().eq(all) { Ok(()) } else { bail!("{:?}", near.by) }
}
