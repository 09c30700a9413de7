use crate::fixture::{Cluster, SYSTEM, definition, id, make};
use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream::FuturesUnordered};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::time::Duration;
use store::{
    Backend as _, Item, Outcome,
    conformance::{SAMPLES, key, kinds, more_kinds, put},
};

pub(crate) fn a_quota_refuses_one_and_the_rest_goes_on(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.with_store(kinds(), async |opened| {
        opened.store.commit(vec![put("a", "1")]).await?;
        let quotas = opened.other.api("v1", "ResourceQuota", "resourcequotas", Some(SYSTEM));
        let hard = json!({ "count/samples.kuma.io": "2" });
        let quota = json!({ "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": { "name": "few" }, "spec": { "hard": hard } });
        make(&quotas, quota).await?;
        let status =
            json!({ "status": { "hard": hard, "used": { "count/samples.kuma.io": "1" } } });
        let params = PatchParams::default();
        quotas.patch_status("few", &params, &Patch::Merge(status)).await?;
        // The API server learns of a quota by a watch of its own.
        loop {
            let committed =
                opened.store.commit(vec![put("b", "1"), put("c", "1"), put("a", "2")]).await?;
            if let [b, c, Outcome::Done] = &*committed.outcomes {
                if (b, c) == (&Outcome::Done, &Outcome::Done) {
                    opened.other.samples(SYSTEM).delete("b", &DeleteParams::default()).await?;
                    opened.other.samples(SYSTEM).delete("c", &DeleteParams::default()).await?;
                    continue;
                }
                let refused = [b, c].into_iter().find_map(|outcome| match outcome {
                    Outcome::Refused { reason } => Some(reason.to_string()),
                    Outcome::Done | Outcome::Unchanged | Outcome::Conflict { .. } => None,
                });
                let reason = refused.context("none was refused")?;
                ensure!(reason.contains("exceeded quota: few"), "{reason}");
                return Ok(());
            }
            anyhow::bail!("{committed:?}");
        }
    })
}

pub(crate) fn a_kind_without_definition_is_empty_until_it_has_one(
    cluster: &mut Cluster<'_>,
) -> Result<()> {
    let extras = id(&more_kinds(), "Extra");
    let samples = id(&more_kinds(), "Sample");
    let extra = move |name| Item { kind: extras, ..put(name, "1") };
    cluster.with_store(more_kinds(), async |opened| {
        let store = &opened.store;
        let batch = vec![extra("x"), Item { kind: samples, ..put("a", "1") }];
        let committed = store.commit(batch).await?;
        let [Outcome::Refused { reason }, Outcome::Done] = &*committed.outcomes else {
            anyhow::bail!("{committed:?}");
        };
        ensure!(reason.contains("atoll install crds"), "{reason}");
        opened.other.define(&definition("Extra", "extras")).await?;
        let api = opened.other.api("kuma.io/v1alpha1", "Extra", "extras", Some(SYSTEM));
        let object = json!({ "apiVersion": "kuma.io/v1alpha1", "kind": "Extra",
            "metadata": { "name": "theirs" }, "spec": { "value": "1" } });
        make(&api, object).await?;
        opened.until(|store| store.reader().get(extras, &key("theirs"))).await;
        ensure!(store.commit(vec![extra("x")]).await?.outcomes == [Outcome::Done]);
        // Without the definition there is none of it, and all else stays.
        let definitions = opened.other.api(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            None,
        );
        definitions.delete("extras.kuma.io", &DeleteParams::default()).await?;
        let none = |store: &store::Local| store.reader().rows(extras).1.is_empty().then_some(());
        opened.until(none).await;
        ensure!(store.reader().get(samples, &key("a")).is_some());
        Ok(())
    })
}

pub(crate) fn a_server_that_restarts_loses_nothing(cluster: &mut Cluster<'_>) -> Result<()> {
    let (other, runtime) = (cluster.clone_client(), cluster.runtime());
    let (opened, writing) = cluster.run(other.open(kinds()))?;
    let store = opened.store.clone();
    let writing = runtime.spawn(writing);
    let commits = |round: u32| {
        let store = store.clone();
        async move {
            let one =
                |i: u32| store.commit(vec![put(&format!("sample-{i}"), &format!("round {round}"))]);
            let mut all: FuturesUnordered<_> = (0..100).map(one).collect();
            while let Some(committed) = all.next().await {
                ensure!(committed?.outcomes == [Outcome::Done]);
            }
            Ok(())
        }
    };
    cluster.run(commits(0))?;
    // While it is away.
    cluster.server.stop();
    let waiting = runtime.spawn(commits(1));
    let seen = store.reader().rows(SAMPLES).1.len();
    ensure!(seen == 100, "what is known stays, not {seen}");
    cluster.server.start_again()?;
    cluster.run(async { waiting.await? })?;
    // While it goes, without a word.
    let waiting = runtime.spawn(commits(2));
    cluster.server.stop();
    cluster.server.start_again()?;
    cluster.run(async { waiting.await? })?;
    let paused = cluster.server.pause()?;
    let waiting = runtime.spawn(commits(3));
    drop(paused);
    cluster.run(async { waiting.await? })?;
    cluster.run(async {
        let all = other.samples(SYSTEM).list(&Default::default()).await?;
        let values = all.items.iter().map(|it| it.data["spec"]["value"].as_str());
        ensure!(values.clone().count() == 100);
        ensure!(values.into_iter().all(|value| value == Some("round 3")));
        // And the watches go on.
        make(&other.samples(SYSTEM), crate::fixture::sample("late", "1")).await?;
        let late = opened.until(|store| store.reader().get(SAMPLES, &key("late")));
        tokio::time::timeout(Duration::from_secs(60), late).await?;
        Ok(())
    })?;
    writing.abort();
    Ok(())
}
