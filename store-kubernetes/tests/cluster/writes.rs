use crate::fixture::{Cluster, SYSTEM};
use anyhow::{Result, ensure};
use futures::{StreamExt as _, stream::FuturesUnordered};
use store::{
    Backend as _, Outcome,
    conformance::{SAMPLES, check_store, kept, key, kinds, put},
};
use tokio::time::Instant;

pub(crate) fn what_every_store_must_do(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.with_store(kinds(), async |opened| {
        check_store(&opened.store).await;
        Ok(())
    })
}

pub(crate) fn what_is_kept_is_there_again(cluster: &mut Cluster<'_>) -> Result<()> {
    let before = cluster.with_store(kinds(), async |opened| {
        let (store, names) = (&opened.store, ["a", "b", "c"]);
        store.commit(names.map(|name| put(name, "1")).into()).await?;
        store.commit(vec![put("b", "2")]).await?;
        Ok((kept(store, SAMPLES).1, store.epoch()))
    })?;
    let after = cluster.with_store(kinds(), async |opened| {
        Ok((kept(&opened.store, SAMPLES).1, opened.store.epoch()))
    })?;
    ensure!(before.0 == after.0, "{before:?} became {after:?}");
    ensure!(before.1 != after.1, "the same history");
    Ok(())
}

pub(crate) fn what_is_so_already_costs_no_request(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.with_store(kinds(), async |opened| {
        let batch = || vec![put("a", "1"), put("b", "2")];
        opened.store.commit(batch()).await?;
        let before = opened.all_requests();
        for _ in 0..10 {
            let committed = opened.store.commit(batch()).await?;
            ensure!(committed.outcomes == [Outcome::Unchanged, Outcome::Unchanged]);
        }
        ensure!(opened.all_requests() == before, "requests were made");
        Ok(())
    })?;
    // Also when what is there was not written by this process.
    cluster.with_store(kinds(), async |opened| {
        let committed = opened.store.commit(vec![put("a", "1"), put("b", "2")]).await?;
        ensure!(committed.outcomes == [Outcome::Unchanged, Outcome::Unchanged]);
        ensure!(opened.all_requests() == 0, "requests were made");
        Ok(())
    })
}

#[expect(clippy::print_stdout, reason = "figures, for who asks for them")]
pub(crate) fn a_thousand_writes(cluster: &mut Cluster<'_>) -> Result<()> {
    const COUNT: u64 = 1000;
    cluster.with_store(kinds(), async |opened| {
        let (store, start) = (&opened.store, Instant::now());
        let one = |i| store.commit(vec![put(&format!("sample-{i}"), "1")]);
        let mut committed: FuturesUnordered<_> = (0..COUNT).map(one).collect();
        while let Some(committed) = committed.next().await {
            ensure!(committed?.outcomes == [Outcome::Done]);
        }
        let requests = opened.all_requests();
        println!("{COUNT} objects in {:?}, {requests} requests", start.elapsed());
        ensure!(requests == COUNT, "{requests} requests");
        let start = Instant::now();
        let all = (0..COUNT).map(|i| put(&format!("sample-{i}"), "2")).collect();
        let committed = store.commit(all).await?;
        ensure!(committed.outcomes.iter().all(|outcome| *outcome == Outcome::Done));
        println!("as many changed in one batch in {:?}", start.elapsed());
        let there = opened.other.samples(SYSTEM).get("sample-7").await?;
        ensure!(there.data["spec"]["value"] == "2", "{there:?}");
        ensure!(store.reader().get(SAMPLES, &key("sample-999")).is_some());
        Ok(())
    })
}
