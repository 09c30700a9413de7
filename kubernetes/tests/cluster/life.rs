//! What becomes of pods and services, and of an API server.

use crate::world::{self, Asked, Zone};
use anyhow::{Context as _, Result, ensure};
use apiserver::{ApiServer, Options};
use futures::StreamExt as _;
use k8s_openapi::api::{
    core::v1::{Namespace, Pod, ResourceQuota, Service},
    events::v1::Event,
};
use kinds::dataplane::Dataplane;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
    runtime::{WatchStreamExt as _, wait::await_condition, watcher},
};
use serde_json::json;
use tokio::time::timeout;

fn is_ready(row: &resource::Resource) -> bool {
    let spec = kinds::read::<Dataplane>(row);
    spec.is_ok_and(|it| it.inbounds().iter().any(kinds::dataplane::is_healthy))
}

async fn until_ready(zone: &Zone, name: &str, ready: bool) -> Result<()> {
    let of = |rows: &store::view::Rows| {
        let row = rows.iter().find(|row| &*row.head.key.name == name);
        row.is_some_and(|row| is_ready(row) == ready)
    };
    zone.until(kinds::dataplane::KIND, of).await.with_context(|| format!("{name} ready={ready}"))
}

async fn until_gone(zone: &Zone, name: &str) -> Result<()> {
    let gone = |rows: &store::view::Rows| !rows.iter().any(|row| &*row.head.key.name == name);
    zone.until(kinds::dataplane::KIND, gone).await.with_context(|| format!("{name} goes"))
}

async fn shop(server: &ApiServer) -> Result<Client> {
    let client = world::client(server, &Asked::default()).await?;
    world::install(&client).await?;
    world::namespace(&client, "shop", true).await?;
    Ok(client)
}

pub(crate) fn a_pod_lives_and_goes_with_its_namespace() -> Result<()> {
    world::run(Options { controllers: true, ..Options::default() }, async |server| {
        let client = shop(&server).await?;
        let zone = Zone::start(client.clone()).await?;
        world::service(&client, "shop", "cart").await?;
        world::account(&client, "shop").await?;
        world::pod(&client, "shop", "cart-1", "cart").await?;
        world::status(&client, ("shop", "cart-1"), "10.1.0.1", false).await?;
        until_ready(&zone, "cart-1.shop", false).await?;
        world::status(&client, ("shop", "cart-1"), "10.1.0.1", true).await?;
        until_ready(&zone, "cart-1.shop", true).await?;
        let service = zone.get(kinds::mesh_service::KIND, "cart.shop")?;
        ensure!(service.is_some(), "there is no service of the mesh");

        // A namespace takes along what was made in it, and nothing holds it back.
        let namespaces = Api::<Namespace>::all(client.clone());
        namespaces.delete("shop", &DeleteParams::default()).await?;
        until_gone(&zone, "cart-1.shop").await?;
        let gone = |it: Option<&Namespace>| it.is_none();
        let waiting = await_condition(namespaces, "shop", gone);
        timeout(world::PATIENCE, waiting).await.context("the namespace stays")??;
        Ok(())
    })
}

pub(crate) fn what_changed_while_the_api_server_was_away_is_found() -> Result<()> {
    world::run(Options::default(), async |mut server: ApiServer| {
        let client = shop(&server).await?;
        let zone = Zone::start(client.clone()).await?;
        world::service(&client, "shop", "cart").await?;
        for (name, ip) in [("cart-1", "10.1.0.1"), ("cart-2", "10.1.0.2")] {
            world::pod(&client, "shop", name, "cart").await?;
            world::status(&client, ("shop", name), ip, true).await?;
            until_ready(&zone, &format!("{name}.shop"), true).await?;
        }
        server.stop();
        server.start_again()?;
        world::status(&client, ("shop", "cart-1"), "10.1.0.1", false).await?;
        let pods = Api::<Pod>::namespaced(client.clone(), "shop");
        pods.delete("cart-2", &DeleteParams::default().grace_period(0)).await?;
        let services = Api::<Service>::namespaced(client.clone(), "shop");
        services.delete("cart", &DeleteParams::default()).await?;
        until_gone(&zone, "cart-2.shop").await?;
        let none = |rows: &store::view::Rows| rows.is_empty();
        zone.until(kinds::mesh_service::KIND, none).await?;
        until_ready(&zone, "cart-1.shop", false).await
    })
}

pub(crate) fn a_quota_refuses_one_and_the_rest_goes_on() -> Result<()> {
    world::run(Options { controllers: true, ..Options::default() }, async |server| {
        let client = shop(&server).await?;
        world::namespace(&client, "small", true).await?;
        let quota: ResourceQuota = serde_json::from_value(json!({
            "metadata": { "name": "few" },
            "spec": { "hard": { "count/dataplanes.kuma.io": "0" } },
        }))?;
        let quotas = Api::<ResourceQuota>::namespaced(client.clone(), "small");
        quotas.create(&PostParams::default(), &quota).await?;
        let counted = |it: Option<&ResourceQuota>| {
            it.and_then(|it| it.status.as_ref()).is_some_and(|status| status.hard.is_some())
        };
        let waiting = await_condition(quotas.clone(), "few", counted);
        timeout(world::PATIENCE, waiting).await.context("the quota is not counted")??;
        let zone = Zone::start(client.clone()).await?;
        for (namespace, ip) in [("small", "10.1.0.1"), ("shop", "10.1.0.2")] {
            world::account(&client, namespace).await?;
            world::pod(&client, namespace, "cart-1", "cart").await?;
            world::status(&client, (namespace, "cart-1"), ip, true).await?;
        }
        let there =
            |rows: &store::view::Rows| rows.iter().any(|row| &*row.head.key.name == "cart-1.shop");
        zone.until(kinds::dataplane::KIND, there).await?;
        let events = Api::<Event>::namespaced(client.clone(), "small");
        let told = async {
            let mut changes = watcher(events, watcher::Config::default())
                .default_backoff()
                .applied_objects()
                .boxed();
            while let Some(event) = changes.next().await {
                let event = event?;
                if event.reason.as_deref() == Some("Refused") {
                    return anyhow::Ok(event);
                }
            }
            anyhow::bail!("no more events")
        };
        let event = timeout(world::PATIENCE, told).await.context("no event about the quota")??;
        let note = event.note.unwrap_or_default();
        ensure!(note.contains("few"), "{note}");
        ensure!(event.regarding.and_then(|it| it.name).as_deref() == Some("cart-1"));
        Ok(())
    })
}
