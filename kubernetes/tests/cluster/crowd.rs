//! Many at once: how long it takes, and what is asked for it.

use crate::world::{self, Asked, Zone};
use anyhow::{Result, ensure};
use apiserver::{ApiServer, Options};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Client;
use std::time::Duration;
use tokio::time::Instant;

const SERVICES: usize = 200;
const PODS: usize = 1000;
/// How many objects the test makes at once.
const AT_ONCE: usize = 32;
/// Nothing may be asked for so long when all is done.
const IDLE: Duration = Duration::from_secs(5);
/// The goal is 10 s on a machine that does nothing else.
const LIMIT: Duration = Duration::from_secs(40);

pub(crate) fn a_thousand_pods_and_two_hundred_services_appear_at_once() -> Result<()> {
    world::run(Options::default(), crowd)
}

#[expect(clippy::print_stdout, reason = "figures for people")]
async fn crowd(server: ApiServer) -> Result<()> {
    let client = world::client(&server, &Asked::default()).await?;
    world::install(&client).await?;
    world::namespace(&client, "shop", true).await?;
    fill(&client).await?;

    let asked = Asked::default();
    let began = Instant::now();
    let zone = Zone::start(world::client(&server, &asked).await?).await?;
    zone.until(kinds::dataplane::KIND, |rows| rows.len() >= PODS).await?;
    zone.until(kinds::mesh_service::KIND, |rows| rows.len() >= SERVICES).await?;
    let took = began.elapsed();
    // What nobody waits for may still be on its way.
    let settled = Instant::now() + Duration::from_secs(2);
    tokio::time::sleep_until(settled).await;
    let since = asked;
    let all = std::mem::take(&mut *since.lock());
    let requests: usize = all.values().sum();
    let each = requests as f64 / PODS as f64;
    println!("{PODS} pods and {SERVICES} services: {took:.1?}, {each:.2} requests for each pod");
    let asked =
        all.iter().filter(|(sort, _)| !sort.starts_with("GET") && !sort.starts_with("WATCH"));
    println!("besides lists and watches: {:?}", asked.collect::<Vec<_>>());
    tokio::time::sleep_until(Instant::now() + IDLE).await;
    let idle = since.lock().clone();
    println!("idle for {IDLE:?}: {idle:?}");
    ensure!(took < LIMIT, "it took {took:?}");
    ensure!(each <= 5.0, "{each} requests for each pod");
    ensure!(idle.keys().all(|it| it.starts_with("WATCH")), "{idle:?}");
    Ok(())
}

async fn fill(client: &Client) -> Result<()> {
    let app = |i: usize| format!("app-{}", i % SERVICES);
    let services = stream::iter(0..SERVICES)
        .map(|i| async move { world::service(client, "shop", &app(i)).await })
        .buffer_unordered(AT_ONCE);
    services.try_collect::<()>().await?;
    let pods = stream::iter(0..PODS)
        .map(|i| async move {
            let (name, ip) = (format!("pod-{i}"), format!("10.1.{}.{}", i / 250, i % 250 + 1));
            world::pod(client, "shop", &name, &app(i)).await?;
            world::status(client, ("shop", &name), &ip, true).await
        })
        .buffer_unordered(AT_ONCE);
    pods.try_collect::<()>().await
}
