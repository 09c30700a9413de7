use crate::fixture::{Cluster, SYSTEM, change, make, sample};
use anyhow::{Context as _, Result, ensure};
use kube::core::DynamicObject;
use serde_json::json;
use std::sync::Arc;
use store::{
    Backend as _, Expected, Item, Outcome,
    conformance::{SAMPLES, delete, key, kinds, put},
    view::Edit,
};
use store_kubernetes::Problem;

fn value(object: &DynamicObject) -> &str {
    object.data["spec"]["value"].as_str().unwrap_or_default()
}

fn spec(store: &store::Local, name: &str) -> Option<String> {
    let row = store.reader().get(SAMPLES, &key(name))?;
    Some(String::from_utf8_lossy(&row.spec).into_owned())
}

pub(crate) fn of_others_nothing_is_lost(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.with_store(kinds(), async |opened| {
        let samples = opened.other.samples(SYSTEM);
        opened.store.commit(vec![put("a", "1")]).await?;
        let theirs = json!({ "metadata": {
            "labels": { "theirs": "x" },
            "annotations": { "theirs.io/note": "some \"text\"" },
            "finalizers": ["theirs.io/hold"],
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "1-2-3",
            }],
        } });
        change(&samples, "a", theirs.clone()).await?;
        // The label is one of the resource now; who writes without it does not remove it.
        let labelled = opened.until(|store| {
            let row = store.reader().get(SAMPLES, &key("a"))?;
            (row.head.labels.get("theirs") == Some("x")).then_some(row)
        });
        labelled.await;
        opened.store.commit(vec![put("a", "2")]).await?;
        let there = samples.get("a").await?;
        ensure!(value(&there) == "2", "{there:?}");
        let meta = serde_json::to_value(&there.metadata)?;
        ensure!(meta["finalizers"] == theirs["metadata"]["finalizers"], "{meta}");
        ensure!(meta["ownerReferences"] == theirs["metadata"]["ownerReferences"], "{meta}");
        ensure!(meta["labels"]["theirs"] == "x", "{meta}");
        ensure!(meta["annotations"]["theirs.io/note"] == "some \"text\"", "{meta}");
        let again = opened.store.commit(vec![put("a", "2")]).await?;
        ensure!(again.outcomes == [Outcome::Unchanged]);
        // What we put there we take away again.
        let row = opened.store.reader().get(SAMPLES, &key("a")).context("a row")?;
        let labels = row.head.labels.with("ours", "y");
        let write = async |labels| {
            let (spec, audience) = (row.spec.clone(), row.head.audience.clone());
            let row = resource::Resource::new(key("a"), labels, spec, row.status.clone(), audience);
            let edit = Edit::Put(Arc::new(row));
            opened
                .store
                .commit(vec![Item { kind: SAMPLES, expected: Expected::Anything, edit }])
                .await
        };
        write(labels).await?;
        ensure!(samples.get("a").await?.metadata.labels.context("labels")?.contains_key("ours"));
        write(row.head.labels.clone()).await?;
        ensure!(!samples.get("a").await?.metadata.labels.context("labels")?.contains_key("ours"));
        Ok(())
    })
}

pub(crate) fn who_is_faster_wins_or_is_followed(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.with_store(kinds(), async |opened| {
        let (samples, store) = (opened.other.samples(SYSTEM), &opened.store);
        store.commit(vec![put("a", "0")]).await?;
        for i in 0..20 {
            let before = store.reader().get(SAMPLES, &key("a")).context("a row")?.head.version;
            change(&samples, "a", json!({ "spec": { "value": format!("theirs {i}") } })).await?;
            let item = Item { expected: Expected::Version(before), ..put("a", "mine") };
            let committed = store.commit(vec![item]).await?;
            let [Outcome::Conflict { found: Some(found) }] = *committed.outcomes else {
                anyhow::bail!("{committed:?}");
            };
            let there = store.reader().get(SAMPLES, &key("a")).context("a row")?.head.version;
            ensure!(found != before && found == there);
            change(&samples, "a", json!({ "spec": { "value": format!("theirs again {i}") } }))
                .await?;
            let committed = store.commit(vec![put("a", &format!("ours {i}"))]).await?;
            ensure!(committed.outcomes == [Outcome::Done]);
            ensure!(value(&samples.get("a").await?) == format!("ours {i}"));
            // What is made or removed by others at the same time.
            make(&samples, sample("b", "theirs")).await?;
            let creation = Item { expected: Expected::Nothing, ..put("b", "ours") };
            let committed = store.commit(vec![creation]).await?;
            ensure!(matches!(*committed.outcomes, [Outcome::Conflict { found: Some(_) }]));
            samples.delete("b", &Default::default()).await?;
            ensure!(store.commit(vec![put("b", "ours")]).await?.outcomes == [Outcome::Done]);
            samples.delete("b", &Default::default()).await?;
            let committed = store.commit(vec![delete("b")]).await?;
            ensure!(matches!(*committed.outcomes, [Outcome::Unchanged | Outcome::Done]));
            ensure!(spec(store, "b").is_none());
        }
        Ok(())
    })
}

pub(crate) fn a_finalizer_delays_only_what_comes_next(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.with_store(kinds(), async |opened| {
        let (samples, store) = (opened.other.samples(SYSTEM), &opened.store);
        store.commit(vec![put("a", "1")]).await?;
        change(&samples, "a", json!({ "metadata": { "finalizers": ["theirs.io/hold"] } })).await?;
        ensure!(store.commit(vec![delete("a")]).await?.outcomes == [Outcome::Done]);
        ensure!(spec(store, "a").is_none(), "it is still shown");
        ensure!(samples.get("a").await?.metadata.deletion_timestamp.is_some());
        let (again, others) = (store.commit(vec![put("a", "2")]), async {
            ensure!(store.commit(vec![put("b", "1")]).await?.outcomes == [Outcome::Done]);
            change(&samples, "a", json!({ "metadata": { "finalizers": null } })).await?;
            Ok(())
        });
        let (again, others) = tokio::join!(again, others);
        others?;
        ensure!(again?.outcomes == [Outcome::Done]);
        ensure!(value(&samples.get("a").await?) == "2");
        Ok(())
    })
}

pub(crate) fn what_cannot_be_read_keeps_its_last_content(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.with_store(kinds(), async |opened| {
        let (samples, store) = (opened.other.samples(SYSTEM), &opened.store);
        let mut problems = opened.problems.watch();
        make(&samples, sample("never", "")).await?;
        store.commit(vec![put("once", "good")]).await?;
        change(&samples, "once", json!({ "spec": { "value": "" } })).await?;
        problems.wait_for(|()| opened.problems.all().len() == 2).await?;
        let problems_now: Vec<Problem> = opened.problems.all().into_values().collect();
        let wanted = Problem::NotTaken("spec.value: must not be empty".into());
        ensure!(problems_now.iter().all(|it| *it == wanted), "{problems_now:?}");
        let row = |name| store.reader().get(SAMPLES, &key(name)).context("a row");
        ensure!(row("never")?.head.unreadable && !row("once")?.head.unreadable);
        ensure!(spec(store, "once").as_deref() == Some(r#"{"value":"good"}"#));
        // What is shown is not what is there: to write it is no idle request.
        ensure!(store.commit(vec![put("once", "good")]).await?.outcomes == [Outcome::Done]);
        ensure!(value(&samples.get("once").await?) == "good");
        change(&samples, "never", json!({ "spec": { "value": "mended" } })).await?;
        problems.wait_for(|()| opened.problems.all().is_empty()).await?;
        ensure!(spec(store, "never").as_deref() == Some(r#"{"value":"mended"}"#));
        change(&samples, "never", json!({ "spec": "nonsense" })).await?;
        problems.wait_for(|()| opened.problems.all().len() == 1).await?;
        samples.delete("never", &Default::default()).await?;
        opened.until(|store| spec(store, "never").is_none().then_some(())).await;
        ensure!(opened.problems.all().is_empty());
        Ok(())
    })
}

pub(crate) fn the_older_of_two_with_one_key_counts(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.with_store(kinds(), async |opened| {
        let (system, shop) = (opened.other.samples(SYSTEM), opened.other.samples("shop"));
        let mut problems = opened.problems.watch();
        make(&shop, sample("web", "older")).await?;
        let older = r#"{"value":"older"}"#;
        opened.until(|store| (spec(store, "web.shop")? == older).then_some(())).await;
        make(&system, sample("web.shop", "younger")).await?;
        problems.wait_for(|()| opened.problems.all().len() == 1).await?;
        ensure!(spec(&opened.store, "web.shop").as_deref() == Some(older));
        shop.delete("web", &Default::default()).await?;
        let younger = r#"{"value":"younger"}"#;
        opened.until(|store| (spec(store, "web.shop")? == younger).then_some(())).await;
        ensure!(opened.problems.all().is_empty());
        Ok(())
    })
}
