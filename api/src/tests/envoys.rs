//! Questions about Envoys.

use super::{Cp, access, global, in_shop};
use crate::inspect::{Envoys, Unanswered};
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use resource::{
    Resource,
    inspect::{Format, What},
};
use serde_json::json;
use std::sync::Arc;

/// Answers what it was asked, but for some proxies.
struct Echo;

impl Envoys for Echo {
    fn ask(&self, dataplane: &Resource, what: What) -> BoxFuture<'_, Result<Bytes, Unanswered>> {
        let name = dataplane.head.key.name.to_string();
        Box::pin(async move {
            match &*name {
                "away" => Err(Unanswered::Away("zone east is not connected".into())),
                "late" => Err(Unanswered::Late("zone east did not answer in time".into())),
                "gone" => Err(Unanswered::Failed("envoy's admin interface is not there".into())),
                "slow" => std::future::pending().await,
                _ => Ok(format!("{name}: {what:?}").into()),
            }
        })
    }
}

const DATAPLANES: &str = "/meshes/shop/dataplanes";

async fn cp() -> Cp {
    let cp = Cp::with(global(), None, Some(Arc::new(Echo)), None).await;
    for name in ["web", "away", "late", "gone", "slow"] {
        let spec = json!({"networking": {"address": "10.0.0.1", "inbound": [{"port": 80}]}});
        cp.store("Dataplane", in_shop(name), &[("kuma.io/zone", "east")], spec).await;
    }
    cp
}

#[tokio::test(start_paused = true)]
async fn an_envoy_is_asked_what_the_query_says() {
    let cp = cp().await;
    let stats = |format, used_only| What::Stats { format, used_only };
    let (json, text) = ("application/json", "text/plain; charset=utf-8");
    for (asked, what, kind) in [
        ("xds", What::Config { endpoints: false }, json),
        ("xds?include_eds=true", What::Config { endpoints: true }, json),
        ("xds?include_eds=false", What::Config { endpoints: false }, json),
        ("stats", stats(Format::Text, true), text),
        ("stats?usedonly=false", stats(Format::Text, false), text),
        ("stats?format=json&usedonly=true", stats(Format::Json, true), json),
        ("clusters", What::Clusters { format: Format::Text }, text),
        ("clusters?format=json", What::Clusters { format: Format::Json }, json),
    ] {
        let answer = cp.get(&format!("{DATAPLANES}/web/{asked}")).await;
        let got = (answer.status, answer.header("content-type"), &*answer.text);
        assert_eq!(got, (200, kind, &*format!("web: {what:?}")), "{asked}");
    }
    for (asked, field, reason) in [
        ("stats?format=xml", "format", "must be one of [json, text]"),
        ("clusters?format=prometheus", "format", "must be one of [json, text]"),
        ("stats?usedonly=perhaps", "usedonly", "must be one of [true, false]"),
    ] {
        let refusal = cp.get(&format!("{DATAPLANES}/web/{asked}")).await.refusal();
        let text = "Could not inspect a dataplane: Resource is not valid".to_owned();
        assert_eq!(refusal, (400, text, vec![(field.to_owned(), reason.to_owned())]));
    }
}

#[tokio::test(start_paused = true)]
async fn why_an_envoy_does_not_answer_is_said() {
    let cp = cp().await;
    for (name, status, detail) in [
        ("none", 404, r#"Dataplane "none" not found in mesh "shop""#),
        ("away", 503, "zone east is not connected"),
        ("late", 504, "zone east did not answer in time"),
        ("gone", 502, "envoy's admin interface is not there"),
        ("slow", 504, "no answer came in time"),
    ] {
        let refusal = cp.get(&format!("{DATAPLANES}/{name}/xds")).await.refusal();
        assert_eq!(refusal, (status, format!("Could not inspect a dataplane: {detail}"), vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn only_administrators_look_into_envoys() {
    let cp = cp().await;
    for what in ["xds", "stats", "clusters"] {
        for name in ["web", "none"] {
            let path = format!("{DATAPLANES}/{name}/{what}");
            let answer = cp.as_user(&["mesh:shop:writer"], "GET", &path, None).await;
            assert_eq!(answer.status, 403, "{path}: {}", answer.text);
        }
    }
    assert_eq!(
        cp.as_user(&[access::ADMIN], "PUT", "/meshes/shop/dataplanes/web/xds", None).await.status,
        405
    );
}

#[tokio::test(start_paused = true)]
async fn so_many_envoys_are_asked_at_once_and_no_more() {
    let cp = cp().await;
    let slow = format!("{DATAPLANES}/slow/xds");
    let answers = join_all((0..20).map(|_| cp.get(&slow))).await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [[503; 4].as_slice(), &[504; 16]].concat());
    let answer = cp.get(&format!("{DATAPLANES}/web/xds")).await;
    assert_eq!(answer.status, 200, "all are done: {}", answer.text);
}
