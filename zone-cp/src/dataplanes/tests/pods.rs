//! Proxies in pods.

use super::{
    streams::{ask, ours, takes},
    world::*,
};
use kinds::{dataplane, dataplane_insight};
use proto::atoll::proxy::v1::Hello;
use resource::{Peer, Resource, label};
use serde_json::json;
use tonic::Code;
use xds::Type;

/// As the controllers of the cluster write it.
fn of_pod(name: &str) -> Resource {
    let spec = json!({"networking": {
        "address": "127.1.0.5", "inbound": [{"name": "http", "port": 8080, "protocol": "http"}],
    }});
    let (kind, row) = row(dataplane::KIND, key(&format!("{name}.apps")), spec);
    let labels = [
        (label::NAMESPACE, "apps"),
        (label::SERVICE_ACCOUNT, "web"),
        (label::DISPLAY_NAME, name),
        (label::MANAGED_BY, label::MANAGED_BY_CLUSTER),
    ];
    let labels = labels.iter().fold(row.head.labels.clone(), |all, (key, to)| all.with(key, to));
    kind.resource(row.head.key.clone(), labels, row.spec.clone(), "".into(), Peer::Global).unwrap()
}

fn hello_of(name: &str) -> Hello {
    Hello { dataplane: String::new(), name: format!("{name}.apps"), ..hello(&web("web-1")) }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_its_own_dataplane_and_no_other() {
    let world = World::in_cluster().await;
    world.put(dataplane::KIND, of_pod("web-1")).await;
    let denied = |token: &'static str| {
        let world = &world;
        async move { world.refusal(token, hello_of("web-1")).await }
    };
    for (token, who) in [
        ("apps/web/web-2", "pod web-2 in namespace apps with service account web"),
        ("apps/cart/web-1", "pod web-1 in namespace apps with service account cart"),
        ("bank/web/web-1", "pod web-1 in namespace bank with service account web"),
    ] {
        let text = format!("the token is for {who}, which is not Dataplane shop/web-1.apps");
        assert_eq!(denied(token).await, (Code::PermissionDenied, text));
    }
    assert_eq!(denied("nothing").await.0, Code::Unauthenticated);
    assert_eq!(denied("away").await.0, Code::Unavailable);
    let _session = world.session("apps/web/web-1", hello_of("web-1")).await.unwrap();
    world.until(|world| world.row(dataplane_insight::KIND, "web-1.apps").is_some()).await;
    // What it is was read off the pod, and stays so.
    let stored = world.row(dataplane::KIND, "web-1.apps").unwrap();
    assert_eq!(stored.head.version, of_pod("web-1").head.version);
}

/// The Dataplane of a pod is somebody else's. What is wrong with its proxy is told all the same.
#[tokio::test(start_paused = true)]
async fn a_pod_is_told_what_is_not_served() {
    let world = World::in_cluster().await;
    world.put(dataplane::KIND, of_pod("web-1")).await;
    let token = "apps/web/web-1";
    let mut session = world.session(token, hello_of("web-1")).await.unwrap();
    let first = ask(Some(ours("shop.web-1.apps")), Type::Cluster);
    let mut envoy = world.envoy(token, first).await.unwrap();
    envoy.to_zone.send(ask(None, Type::Listener)).await.unwrap();
    let problem = "inbound http is not served: no MeshIdentity selects the proxy";
    let shown = |world: &World| {
        let insight = world.spec(dataplane_insight::KIND, "web-1.apps");
        insight.is_some_and(|it| it["metadata"] == json!({ "problems": [problem] }))
    };
    takes(&world, &mut envoy, shown).await;
    assert_eq!(session.problems().await, [problem]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_does_not_say_what_it_is() {
    let world = World::in_cluster().await;
    world.put(dataplane::KIND, of_pod("web-1")).await;
    let mut dataplane = web("web-1");
    dataplane["name"] = "web-1.apps".into();
    let hello = Hello { dataplane: dataplane.to_string(), ..hello_of("web-1") };
    let (code, text) = world.refusal("apps/web/web-1", hello).await;
    assert_eq!(code, Code::PermissionDenied);
    assert!(text.ends_with("its proxy must not send one"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_may_be_faster_than_the_one_who_writes_its_dataplane() {
    let world = World::in_cluster().await;
    let writing = async {
        settle().await;
        world.put(dataplane::KIND, of_pod("web-1")).await;
    };
    let (session, ()) = tokio::join!(world.session("apps/web/web-1", hello_of("web-1")), writing);
    session.unwrap();
    // It is told to try again if there is none for long.
    let (code, text) = world.refusal("apps/web/web-2", hello_of("web-2")).await;
    assert_eq!(
        (code, &*text),
        (Code::Unavailable, "there is no Dataplane web-2.apps in mesh shop")
    );
}

#[tokio::test(start_paused = true)]
async fn the_session_of_a_pod_ends_with_its_token() {
    let world = World::in_cluster().await;
    world.put(dataplane::KIND, of_pod("web-1")).await;
    let mut session = world.session("apps/web/web-1", hello_of("web-1")).await.unwrap();
    let ended = loop {
        match tokio::time::timeout(std::time::Duration::from_secs(7200), session.stream.message())
            .await
            .unwrap()
        {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unauthenticated);
    assert!(ended.message().starts_with("the token expired at"), "{ended}");
}
