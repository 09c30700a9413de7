//! Who does it again and again does not fill the log.

use super::super::{
    plain::{first_request, resource, wrapped},
    world::{TIMEOUT, timeout_of},
};
use super::{Siege, down, end, next, of_global::Following, response, skip_requests, until, up};
use crate::{limit, tests::log::Log};
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, Resource};
use std::time::Duration;
use tokio::time::timeout;

const MANY: usize = 60;

fn timeout_named(name: &str, idle: &str) -> Resource {
    let spec = timeout_of(idle).to_string();
    wrapped("1", &resource(name, "default", &[], ("", spec.as_bytes())))
}

async fn half_a_minute() {
    timeout(Duration::from_secs(30), std::future::pending::<()>()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_breaks_stream_after_stream_is_warned_of_now_and_then() {
    let mut siege = Siege::begin().await;
    let breaks = async || {
        let (sender, responses) = down(&siege.east).await.unwrap();
        let request = DeltaDiscoveryRequest { node: None, ..first_request("east", "Mesh") };
        sender.send(request).await.unwrap();
        end(responses).await
    };
    for _ in 0..MANY {
        breaks().await;
    }
    siege.warned(&["unsaid=0"]);
    half_a_minute().await;
    breaks().await;
    siege.warned(&["unsaid=0", "unsaid=59"]);
    siege.serves_on().await;
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_is_refused_between_good_changes_is_warned_of_now_and_then() {
    let mut siege = Siege::begin().await;
    let (sender, mut requests) = up(&siege.east).await;
    skip_requests(&mut requests).await;
    for number in 0..MANY {
        let (kind, nonce) = (format!("Invention{number}"), number.to_string());
        let good = vec![timeout_named("web", &format!("{}s", number % 40 + 1))];
        for response in [response(&kind, &nonce, vec![]), response("MeshTimeout", &nonce, good)] {
            sender.send(response).await.unwrap();
            next(&mut requests).await.unwrap().unwrap();
        }
    }
    siege.warned(&[r#"kind \"Invention0\" was not asked for"#]);
    assert_eq!(siege.global.plane.all(TIMEOUT)["web"], timeout_of("20s"), "the last one");
    siege.serves_on().await;
}

#[tokio::test(start_paused = true)]
async fn a_zone_whose_resources_are_refused_is_warned_of_once_for_each_kind() {
    let mut siege = Siege::begin().await;
    let (sender, mut requests) = up(&siege.east).await;
    skip_requests(&mut requests).await;
    for number in 0..MANY {
        for kind in ["MeshTimeout", "MeshRetry"] {
            let bad = Resource { name: format!("{number}.default"), ..Resource::default() };
            sender.send(response(kind, &number.to_string(), vec![bad])).await.unwrap();
            next(&mut requests).await.unwrap().unwrap();
        }
    }
    let first = |kind: &str| {
        format!(r#"kind="{kind}" name="0.default" reason="resource: is missing" all=1"#)
    };
    siege.warned(&[&first("MeshTimeout"), &first("MeshRetry")]);
    siege.serves_on().await;
}

#[tokio::test(start_paused = true)]
async fn a_zone_whose_resources_are_refused_on_stream_after_stream_is_warned_of_once() {
    let mut siege = Siege::begin().await;
    for _ in 0..MANY {
        let (sender, mut requests) = up(&siege.east).await;
        skip_requests(&mut requests).await;
        let bad = Resource { name: "bad.default".into(), ..Resource::default() };
        sender.send(response("MeshTimeout", "1", vec![bad])).await.unwrap();
        next(&mut requests).await.unwrap().unwrap();
    }
    siege.warned(&[r#"kind="MeshTimeout" name="bad.default" reason="resource: is missing""#]);
    siege.serves_on().await;
}

#[tokio::test(start_paused = true)]
async fn a_zone_says_once_what_it_does_not_take_of_its_global() {
    let following = Following::begin().await;
    let log = Log::listen();
    let says = following.global.says.borrow().clone().unwrap();
    let nacks = || following.global.nacks.borrow().len();
    for number in 0..MANY {
        let before = nacks();
        let bad = Resource { name: "bad.default".into(), ..Resource::default() };
        let other = timeout_named("other", &format!("{}s", number % 40 + 1));
        let said = response("MeshTimeout", &format!("x{number}"), vec![bad, other]);
        says.send(said).await.unwrap();
        until(&following.global.nacks, |nacks| nacks.len() > before).await;
    }
    let missing = "resource: is missing";
    let origin = r#"meta.labels[\"kuma.io/origin\"]: is missing, must be \"global\""#;
    log.warned("zone=east", &[missing, origin]);
    following.goes_on().await;
}

#[tokio::test(start_paused = true)]
async fn of_many_resources_that_a_zone_does_not_take_it_names_some_and_counts_all_once() {
    let following = Following::begin().await;
    let log = Log::listen();
    let says = following.global.says.borrow().clone().unwrap();
    let nacks = || following.global.nacks.borrow().len();
    for number in 0..MANY {
        let before = nacks();
        let bad = |number| Resource { name: format!("{number}.default"), ..Resource::default() };
        let all = (0..limit::REASONS + 5).map(bad).collect();
        says.send(response("MeshTimeout", &format!("x{number}"), all)).await.unwrap();
        until(&following.global.nacks, |nacks| nacks.len() > before).await;
    }
    let mut expected = vec!["resource: is missing"; limit::REASONS];
    expected.push("and more of them");
    log.warned("zone=east", &expected);
    following.goes_on().await;
}
