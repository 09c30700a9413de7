//! What is measured.

use crate::{crowd::Crowd, world::World};
use anyhow::{Result, ensure};
use e2e::figures::{percentiles, report};
use load::{Event, dataplane};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// A part by its name.
type Part = (&'static str, fn() -> Result<()>);

pub(crate) const ALL: [Part; 7] = [
    ("initial", initial),
    ("change", change),
    ("idle", idle),
    ("reconnect", reconnect),
    ("upward", upward),
    ("clustermesh", clustermesh),
    ("million", million),
];

const BENCH: &str = "federation";
const POLICIES: usize = 10_000;
const CHANGES: usize = 200;

/// How long it takes until so many new zones have everything that an administrator wrote.
fn initial() -> Result<()> {
    let mut world = World::start()?;
    world.policies(POLICIES)?;
    for zones in [1, 10, 100] {
        let mut crowd = Crowd::connect(&world, &format!("new-{zones}"), zones, 0)?;
        let began = crowd.begun();
        let all = world.runtime.block_on(crowd.complete(POLICIES))?;
        world.runtime.block_on(crowd.leave());
        let (now, most) = world.memory()?;
        let figures = json!({ "ms": millis(all - began), "rss_mib": now, "peak_rss_mib": most });
        report(BENCH, &format!("{POLICIES}-resources-to-{zones}-new-zones"), figures);
    }
    Ok(())
}

/// How long it takes from the request that writes a policy until the last zone has acknowledged it.
fn change() -> Result<()> {
    for zones in [10, 100, 1000] {
        let mut world = World::start()?;
        world.policies(POLICIES)?;
        let mut crowd = Crowd::connect(&world, "zone", zones, 0)?;
        let api = world.api.clone();
        let before = world.cpu()?;
        let figures = world.runtime.block_on(async {
            crowd.complete(POLICIES).await?;
            settle(&mut crowd).await;
            let mut figures = Vec::new();
            for n in 0..CHANGES {
                let start = Instant::now();
                api.policy(n, n + 1).await?;
                figures.push(crowd.all_take("MeshTimeout").await? - start);
            }
            crowd.leave().await;
            anyhow::Ok(figures)
        })?;
        let mut figures = percentiles(figures);
        extend(&mut figures, json!({ "cpu_s": (world.cpu()? - before).as_secs_f64() }));
        report(BENCH, &format!("change-to-{zones}-zones-with-{POLICIES}-resources"), figures);
    }
    Ok(())
}

/// What global uses while nothing happens.
fn idle() -> Result<()> {
    const ZONES: usize = 100;
    const TIME: Duration = Duration::from_secs(60);
    let mut world = World::start()?;
    world.policies(POLICIES)?;
    let mut crowd = Crowd::connect(&world, "zone", ZONES, 0)?;
    world.runtime.block_on(crowd.complete(POLICIES))?;
    world.runtime.block_on(settle(&mut crowd));
    let before = world.cpu()?;
    world.runtime.block_on(pause(TIME));
    let used = (world.cpu()? - before).as_secs_f64() / TIME.as_secs_f64();
    let (now, most) = world.memory()?;
    let figures =
        json!({ "cpu_percent": round(used * 100.0), "rss_mib": now, "peak_rss_mib": most });
    report(BENCH, &format!("idle-{ZONES}-zones-with-{POLICIES}-resources"), figures);
    world.runtime.block_on(crowd.leave());
    Ok(())
}

/// How long it takes, after global was started again, until all zones have everything: first those
/// that know where they were, then zones that do not.
fn reconnect() -> Result<()> {
    const ZONES: usize = 1000;
    let mut world = World::start()?;
    world.policies(POLICIES)?;
    let mut crowd = Crowd::connect(&world, "zone", ZONES, 0)?;
    world.runtime.block_on(crowd.complete(POLICIES))?;
    for (name, warm) in [("warm", true), ("cold", false)] {
        world.runtime.block_on(settle(&mut crowd));
        world.global.stop()?;
        if !warm {
            crowd.forget();
        }
        crowd.drain();
        let began = Instant::now();
        world.global.start()?;
        let ready = Instant::now();
        let resources = if warm { 0 } else { POLICIES };
        let all = world.runtime.block_on(crowd.complete(resources))?;
        let (now, most) = world.memory()?;
        let figures = json!({
            "ms_from_start": millis(all - began), "ms_from_ready": millis(all.saturating_duration_since(ready)),
            "cpu_s": world.cpu()?.as_secs_f64(), "rss_mib": now, "peak_rss_mib": most,
        });
        report(BENCH, &format!("reconnect-{name}-{ZONES}-zones-{POLICIES}-resources"), figures);
    }
    world.runtime.block_on(crowd.leave());
    Ok(())
}

/// Many zones that report changes.
fn upward() -> Result<()> {
    reports("100-zones-100-changes-a-second-each", 100, 100, 10_000)
}

/// The load of Cilium's scale test of ClusterMesh.
fn clustermesh() -> Result<()> {
    reports("250-zones-1000-dataplanes-325-changes-a-second", 250, 1000, 325)
}

/// So many zones with so many Dataplanes each report so many changes a second, all together.
fn reports(name: &str, zones: usize, dataplanes: usize, rate: usize) -> Result<()> {
    const TIME: Duration = Duration::from_secs(20);
    const TICK: Duration = Duration::from_millis(10);
    let mut world = World::start()?;
    let mut crowd = Crowd::connect(&world, "zone", zones, dataplanes)?;
    world.runtime.block_on(crowd.all_sent())?;
    world.runtime.block_on(settle(&mut crowd));
    let before = world.cpu()?;
    let (figures, took) = world.runtime.block_on(async {
        let began = Instant::now();
        let (mut made, mut figures) = (0, Vec::new());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let all = rate * TIME.as_secs() as usize;
        while figures.len() < all {
            tokio::select! {
                biased;
                _ = ticks.tick(), if made < all => {
                    let due = (began.elapsed().as_secs_f64() * rate as f64) as usize;
                    while made < due.min(all) {
                        let zone = made % zones;
                        let bytes = dataplane(crowd.name(zone)?, made / zones % dataplanes, made + 1)?;
                        crowd.change(zone, bytes)?;
                        made += 1;
                    }
                }
                seen = crowd.next() => {
                    let seen = seen?;
                    if let Event::Sent { made } = seen.event {
                        figures.extend(made.into_iter().map(|made| seen.at - made));
                    }
                }
            }
        }
        anyhow::Ok((figures, began.elapsed()))
    })?;
    let used = (world.cpu()? - before).as_secs_f64() / took.as_secs_f64();
    let (now, most) = world.memory()?;
    let mut figures = percentiles(figures);
    let own = json!({
        "s": round(took.as_secs_f64()), "cpu_percent": round(used * 100.0), "rss_mib": now, "peak_rss_mib": most,
    });
    extend(&mut figures, own);
    report(BENCH, name, figures);
    world.runtime.block_on(crowd.leave());
    Ok(())
}

/// A global that knows of a million Dataplanes.
fn million() -> Result<()> {
    const ZONES: usize = 1000;
    const EACH: usize = 1000;
    let mut world = World::start()?;
    let mut crowd = Crowd::connect(&world, "zone", ZONES, EACH)?;
    let began = crowd.begun();
    let all = world.runtime.block_on(crowd.all_sent())?;
    let (now_there, most) = world.memory()?;
    let figures = json!({
        "s": round((all - began).as_secs_f64()), "rss_mib": now_there, "peak_rss_mib": most,
    });
    report(BENCH, "1000000-dataplanes-of-1000-zones", figures);
    let api = world.api.clone();
    for (page, path) in [
        ("first", "/meshes/default/dataplanes/_overview?size=100"),
        ("middle", "/meshes/default/dataplanes/_overview?size=100&offset=500000"),
        ("by-name", "/meshes/default/dataplanes/_overview?size=100&name=workload-77-"),
        ("zones", "/zones/_overview?size=1000"),
    ] {
        let mut figures = Vec::new();
        for _ in 0..20 {
            let start = Instant::now();
            let text = world.runtime.block_on(api.ask(Method::GET, path, None))?;
            figures.push(Instant::now() - start);
            let page: Value = serde_json::from_str(&text)?;
            let items = page.get("items").and_then(Value::as_array).map_or(0, Vec::len);
            ensure!(items >= 100, "{path}: {items} items");
        }
        report(BENCH, &format!("1000000-dataplanes-overview-page-{page}"), percentiles(figures));
    }
    world.runtime.block_on(crowd.leave());
    Ok(())
}

/// Waits until nothing happens any more.
async fn settle(crowd: &mut Crowd) {
    while timeout(Duration::from_secs(1), crowd.next()).await.is_ok() {}
}

async fn pause(time: Duration) {
    timeout(time, std::future::pending::<()>()).await.ok();
}

fn millis(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1e3)
}

fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

fn extend(figures: &mut Value, more: Value) {
    if let (Value::Object(figures), Value::Object(more)) = (figures, more) {
        figures.extend(more);
    }
}
