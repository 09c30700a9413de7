//! What an operator sees of a proxy.

use super::world::*;
use api::expiry::{Several, Sort};
use jiff::Timestamp;
use kinds::{dataplane, dataplane_insight};
use resource::ResourceKey;
use serde_json::{Value, json};

async fn status(world: &World, name: &str) -> Value {
    let overview = world.get(&format!("/meshes/shop/dataplanes/{name}/_overview")).await;
    assert_eq!(overview["type"], "DataplaneOverview", "{overview}");
    overview["status"].clone()
}

#[tokio::test(start_paused = true)]
async fn an_overview_says_how_a_proxy_does_and_why() {
    let world = World::new().await;
    let session = world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    let since = world.spec(dataplane_insight::KIND, "web-1").unwrap();
    let since = since["subscriptions"][0]["connectTime"].clone();
    let with = |state: &str, reasons: &[&str]| json!({ "state": state, "since": since, "reasons": reasons });
    let online = json!({ "state": "Online", "since": since });
    assert_eq!(status(&world, "web-1").await, online);
    let (http, plain) = ("inbound http is not ready", "inbound plain is not ready");
    for (ready, answers, expected) in [
        (true, false, with("PartiallyDegraded", &[http])),
        (false, true, with("NotReady", &[http, plain])),
        (true, true, online),
    ] {
        let before = world.spec(dataplane::KIND, "web-1");
        session.state(ready, &[("http", answers)]).await;
        world.until(|world| world.spec(dataplane::KIND, "web-1") != before).await;
        assert_eq!(status(&world, "web-1").await, expected);
    }

    let before = world.spec(dataplane_insight::KIND, "web-1");
    drop(session);
    world.until(|world| world.spec(dataplane_insight::KIND, "web-1") != before).await;
    let gone = world.spec(dataplane_insight::KIND, "web-1").unwrap();
    let since = &gone["subscriptions"][0]["disconnectTime"];
    let offline = ["its proxy is not connected"];
    assert_eq!(
        status(&world, "web-1").await,
        json!({ "state": "Offline", "since": since, "reasons": offline })
    );
}

#[tokio::test(start_paused = true)]
async fn a_dataplane_that_nobody_runs_is_offline() {
    let world = World::new().await;
    let mesh = "shop".parse().unwrap();
    let mut spec = web("web-2");
    for field in ["type", "mesh", "name", "labels"] {
        spec.as_object_mut().unwrap().remove(field);
    }
    let (kind, row) = row(dataplane::KIND, ResourceKey::in_mesh(&mesh, "web-2"), spec);
    world.put(kind, row).await;
    let never = json!({ "state": "Offline", "reasons": ["no proxy ever was connected"] });
    assert_eq!(status(&world, "web-2").await, never);
}

#[tokio::test(start_paused = true)]
async fn the_tokens_of_proxies_are_listed_while_these_are_connected() {
    let world = World::new().await;
    let expiring = world.dataplanes.expiring();
    assert_eq!(expiring.entries(Timestamp::MAX), []);
    let token = token(&claims());
    let one = world.session(&token, hello(&web("web-1"))).await.unwrap();
    let two = world.session(&token, hello(&web("web-2"))).await.unwrap();
    let entries = expiring.entries(Timestamp::MAX);
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(
        (entry.sort, entry.several),
        (Sort::ProxyTokens, Some(Several { count: 1, soon: 1 }))
    );
    assert_eq!(entry.mesh, "shop".parse().ok());
    assert_eq!(Some(entry.not_after), identity::token::ending(&token));
    assert!(!entry.renewal.automatic);
    for (session, left) in [(one, 1), (two, 0)] {
        let name = if left == 1 { "web-1" } else { "web-2" };
        let before = world.spec(dataplane_insight::KIND, name);
        drop(session);
        world.until(|world| world.spec(dataplane_insight::KIND, name) != before).await;
        assert_eq!(expiring.entries(Timestamp::MAX).len(), left);
    }
}
