//! What the control plane of a zone does with many pods: the real `zone-cp` with its own rights
//! beside a real API server, which has no nodes, so that the benchmark says what a kubelet would. All
//! of it shares this machine; processor time and memory are those of the control plane alone.

mod api;

use anyhow::{Context, Result};
use api::Api;
use e2e::{
    clustered::{Asked, Clustered},
    control_plane::Zone,
    figures::report,
};
use load::usage;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};
use tokio::{
    runtime::Runtime,
    time::{Instant, timeout},
};

const BENCH: &str = "cluster";
const PODS: usize = 1000;
const SERVICES: usize = 200;
const IDLE: Duration = Duration::from_secs(60);
/// The control plane has nothing to do any more if it asked nothing for so long.
const QUIET: Duration = Duration::from_secs(3);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    // Set already when several clients are made.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let mut world = World::start()?;
    appear(&mut world)?;
    idle(&mut world)?;
    begin(&mut world)
}

struct World {
    zone: Clustered,
    api: Api,
    runtime: Runtime,
}

impl World {
    /// A cluster with a mesh and nothing in it; the control plane runs.
    fn start() -> Result<Self> {
        let address = Ipv4Addr::new(127, 80, 0, 2);
        let zone = Zone { name: "k8s-1", address, namespace: None };
        let mut zone = Clustered::new(zone, None)?;
        zone.control_plane.start()?;
        zone.create(&json!({ "apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {
                    "name": "shop", "labels": { "kuma.io/sidecar-injection": "enabled" },
                },
            },
            {
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "name": "default", "namespace": "shop" },
            },
        ] }))?;
        // One thread: the programs have the other processor.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let api = Api::new(&zone.server.config())?;
        let mut world = Self { zone, api, runtime };
        world.settle()?;
        Ok(world)
    }

    /// Waits until the control plane asks nothing any more.
    fn settle(&mut self) -> Result<()> {
        let mut before = usize::MAX;
        loop {
            let now = self.asked()?.values().sum();
            if before == now {
                return Ok(());
            }
            before = now;
            self.runtime.block_on(pause(QUIET));
        }
    }

    /// How often what was asked, but for watches and the Lease.
    fn asked(&self) -> Result<BTreeMap<String, usize>> {
        let mut all = BTreeMap::new();
        let counts = |it: &Asked| it.verb != "watch" && it.resource != "leases";
        for Asked { verb, resource, .. } in self.zone.asked()?.into_iter().filter(counts) {
            *all.entry(format!("{verb} {resource}")).or_default() += 1;
        }
        Ok(all)
    }

    fn pid(&mut self) -> Result<u32> {
        Ok(self.zone.control_plane.process()?.pid())
    }

    /// What was asked and used since `before`.
    fn since(&mut self, before: &Used) -> Result<Map<String, Value>> {
        let pid = self.pid()?;
        let mut asked = self.asked()?;
        for (sort, count) in &before.asked {
            asked.entry(sort.clone()).and_modify(|it| *it -= count);
        }
        asked.retain(|_, count| *count > 0);
        let requests: usize = asked.values().sum();
        let cpu = (usage::cpu(pid)? - before.cpu).as_secs_f64();
        let (rss, peak) = usage::memory(pid)?;
        let figures = json!({
            "requests": requests, "requests_per_pod": round(requests as f64 / PODS as f64),
            "cpu_s": round(cpu), "rss_mib": rss, "peak_rss_mib": peak, "asked": asked,
        });
        figures.as_object().cloned().context("figures")
    }

    fn used(&mut self) -> Result<Used> {
        let pid = self.pid()?;
        Ok(Used { asked: self.asked()?, cpu: usage::cpu(pid)? })
    }
}

/// What was asked and used so far.
struct Used {
    asked: BTreeMap<String, usize>,
    cpu: Duration,
}

/// Pods and Services appear, as fast as the API server takes them, beside a control plane that runs
/// and injects their sidecars, until each is in the mesh.
fn appear(world: &mut World) -> Result<()> {
    let before = world.used()?;
    let api = world.api.clone();
    let began = Instant::now();
    let (made, stand) = world.runtime.block_on(async {
        let make = async {
            api.fill(SERVICES, PODS).await?;
            anyhow::Ok(Instant::now())
        };
        timeout(PATIENCE, async { tokio::try_join!(make, stand(&api)) }).await?
    })?;
    world.settle()?;
    let mut figures = world.since(&before)?;
    figures.insert("s".into(), json!(seconds(stand - began)));
    figures.insert("made_s".into(), json!(seconds(made - began)));
    report(BENCH, &format!("{PODS}-pods-{SERVICES}-services-appear"), figures.into());
    Ok(())
}

/// When every pod is a Dataplane and every Service a MeshService.
async fn stand(api: &Api) -> Result<Instant> {
    tokio::try_join!(api.until("dataplanes", PODS), api.until("meshservices", SERVICES))?;
    Ok(Instant::now())
}

/// What the control plane asks and uses while nothing happens.
fn idle(world: &mut World) -> Result<()> {
    let before = world.used()?;
    world.runtime.block_on(pause(IDLE));
    let mut figures = world.since(&before)?;
    let used = figures.remove("cpu_s").and_then(|it| it.as_f64()).context("time")?;
    figures.remove("requests_per_pod");
    figures.insert("cpu_percent".into(), json!(round(used / IDLE.as_secs_f64() * 100.0)));
    report(BENCH, &format!("idle-{PODS}-pods-{SERVICES}-services"), figures.into());
    Ok(())
}

/// A control plane starts beside pods and Services of which nothing is in the mesh yet.
fn begin(world: &mut World) -> Result<()> {
    world.zone.control_plane.stop()?;
    let server = &world.zone.server;
    // Nobody answers for them.
    server.kubectl(&[
        "delete",
        "validatingwebhookconfiguration,mutatingwebhookconfiguration",
        "atoll",
    ])?;
    for plural in ["dataplanes", "meshservices"] {
        server.kubectl(&["delete", plural, "--namespace=shop", "--all", "--wait=false"])?;
    }
    let before = Used { asked: world.asked()?, cpu: Duration::ZERO };
    let began = Instant::now();
    world.zone.control_plane.start()?;
    let ready = Instant::now();
    let api = world.api.clone();
    let stand = async { timeout(PATIENCE, stand(&api)).await? };
    let stand = world.runtime.block_on(stand)?;
    world.settle()?;
    let mut figures = world.since(&before)?;
    figures.insert("s".into(), json!(seconds(stand - began)));
    figures.insert("ready_s".into(), json!(seconds(ready - began)));
    report(BENCH, &format!("start-beside-{PODS}-pods-{SERVICES}-services"), figures.into());
    world.zone.control_plane.stop().map(drop)
}

async fn pause(time: Duration) {
    timeout(time, std::future::pending::<()>()).await.ok();
}

fn seconds(time: Duration) -> f64 {
    round(time.as_secs_f64())
}

fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}
