//! Two clusters that were given one name.

use super::{
    Scenario,
    world::{FRONT, Load, SHOP, SYSTEM, WEB, World, cart, server},
};
use anyhow::{Context, Result, bail, ensure};
use apiserver::ApiServer;
use e2e::{
    PATIENCE,
    cluster::Images,
    control_plane::{self, ControlPlane},
    process::{Process, programs, run},
    wait,
};
use serde_json::{Value, json};
use std::{fs, net::Ipv4Addr, path::Path, time::Duration};

pub(crate) const ALL: &[Scenario] = &[(
    "a_cluster_is_not_disturbed_by_another_one_of_its_name",
    a_cluster_is_not_disturbed_by_another_one_of_its_name,
)];

/// The name of both.
const NAME: &str = "k8s-1";

/// What all sides say.
const SAID: &str = "another zone has this name";

/// More than a second one needs for several attempts.
const LONG: Duration = Duration::from_secs(30);

/// The second one has a good token, and waits. When the first one is gone it gets in.
fn a_cluster_is_not_disturbed_by_another_one_of_its_name(images: &Images) -> Result<()> {
    let mut world = World::with_shops(images, &[NAME])?;
    let zone = world.zone(NAME)?;
    let loads = [
        Load::start("machine to pod", world.machine.caller()?, &cart(NAME))?,
        Load::start("pod to machine", zone.cluster.client_beside(FRONT)?, WEB)?,
    ];
    let begun = connections(&world)?;
    let (_cluster, second) = second(&world.lab.global, &world.lab.folder().join("second"))?;
    wait::until("it is told why it waits", PATIENCE, || {
        if second.said(SAID) { Ok(()) } else { bail!("{}", second.tail()) }
    })?;
    wait::throughout("the first one goes on", LONG, || {
        let now = connections(&world)?;
        ensure!(now == begun, "{now}, and {begun} before");
        ensure!(!theirs(&world)?, "global has something of the second one");
        Ok(())
    })?;
    let zone = world.zone(NAME)?;
    zone.kubectl().apply(&server("late"))?;
    zone.kubectl().rolled_out(SHOP, "deployment/late")?;
    world.machine_reaches("http://late.shop.svc.k8s-1.mesh.local:8080/")?;
    loads.into_iter().try_for_each(|load| load.end().map(drop))?;
    ensure!(world.lab.global.process()?.said(SAID), "global says nothing of it");

    let gone = ["scale", "--namespace", SYSTEM, "deployment/atoll-zone-cp", "--replicas=0"];
    world.zone(NAME)?.kubectl().run(&gone)?;
    wait::until("the second one is let in", PATIENCE * 2, || {
        if theirs(&world)? { Ok(()) } else { bail!("{}", second.tail()) }
    })
}

/// How often the zone connected since global began.
fn connections(world: &World) -> Result<usize> {
    let overview = world.lab.global.get(&format!("/zones/{NAME}/_overview"))?;
    let all = overview.pointer("/zoneInsight/subscriptions").and_then(Value::as_array);
    Ok(all.with_context(|| overview.to_string())?.len())
}

/// Whether global has what only the second one wrote.
fn theirs(world: &World) -> Result<bool> {
    let all = world.lab.global.get("/meshes/default/meshservices")?;
    Ok(all.to_string().contains("theirs"))
}

/// A cluster without nodes, and a control plane that makes it the zone of that name.
fn second(global: &ControlPlane, folder: &Path) -> Result<(ApiServer, Process)> {
    let cluster = ApiServer::start()?;
    fs::create_dir_all(folder)?;
    let atoll = programs()?.join("atoll").display().to_string();
    let manifests = folder.join("manifests.yaml");
    let service = include_str!("wares.yaml").replace("wares", "theirs");
    for documents in [run(&[&atoll, "install", "crds"])?, service] {
        fs::write(&manifests, documents)?;
        let file = format!("--filename={}", manifests.display());
        wait::until("it is defined", PATIENCE, || {
            cluster.kubectl(&["create", "namespace", SYSTEM]).ok();
            cluster.kubectl(&["create", "namespace", SHOP]).ok();
            cluster.kubectl(&["apply", "--server-side", &file])
        })?;
    }
    let address = Ipv4Addr::LOCALHOST;
    let zone = control_plane::Zone { name: NAME, address, namespace: None };
    let control_plane = ControlPlane::zone(folder, zone, global)?;
    let anywhere = format!("{address}:0");
    let settings = [
        ("environment", "kubernetes".into()),
        ("store", json!({ "type": "kubernetes" })),
        (
            "kubernetes",
            json!({
                "systemNamespace": SYSTEM,
                "kubeconfig": cluster.kubeconfig(),
                "admission": { "listen": anywhere },
            }),
        ),
        ("api", json!({ "http": { "address": anywhere }, "https": { "address": anywhere } })),
        ("proxies", json!({ "listen": anywhere })),
        ("dns", json!({ "listen": anywhere })),
        ("admin", json!({ "listen": anywhere })),
        ("tls", json!({})),
    ];
    settings.into_iter().try_for_each(|(key, value)| control_plane.configure(key, value))?;
    let process = control_plane.launch()?;
    Ok((cluster, process))
}
