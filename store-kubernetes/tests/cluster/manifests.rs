use crate::fixture::{Cluster, Opened};
use anyhow::{Context as _, Result, ensure};
use resource::{Kind, Labels, Peer, Resource, label};
use std::sync::Arc;
use store::{
    Backend as _, Expected, Item, Kinds, Outcome,
    view::{Edit, KindId},
};

const GOOD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kinds/testdata/manifests/good.yaml");

fn kinds() -> Kinds {
    Kinds { list: kinds::all().collect(), peer: Peer::Global }
}

/// All that is there.
fn rows(opened: &Opened) -> Vec<(KindId, Kind, Arc<Resource>)> {
    let mut rows = Vec::new();
    for (id, kind) in kinds().iter() {
        let all = opened.store.reader().rows(id).1;
        rows.extend(all.iter().map(|row| (id, *kind, row.clone())));
    }
    rows
}

/// As somebody writes it who knows nothing of Kubernetes.
fn plain((kind, what, row): &(KindId, Kind, Arc<Resource>)) -> Result<Item> {
    let labels = row.head.labels.iter();
    let labels: Labels = labels.filter(|(key, _)| *key != label::DISPLAY_NAME).collect();
    let (key, spec, status) = (row.head.key.clone(), row.spec.clone(), row.status.clone());
    let row = what.resource(key, labels, spec, status, Peer::Global)?;
    Ok(Item { kind: *kind, expected: Expected::Anything, edit: Edit::Put(row.into()) })
}

/// The definitions have defaults, drop what they do not know, and order nothing as our types do.
pub(crate) fn what_users_write_is_the_same_when_we_write_it(
    cluster: &mut Cluster<'_>,
) -> Result<()> {
    let other = cluster.clone_client();
    cluster.run(async {
        for definition in kinds::all().filter_map(|kind| kinds::crd::definition(&kind)) {
            other.define(&definition).await?;
        }
        Ok(())
    })?;
    cluster.server.kubectl(&["apply", "-f", GOOD])?;
    let made = cluster.with_store(kinds(), async |opened| {
        let problems = opened.problems.all();
        ensure!(problems.is_empty(), "{problems:?}");
        let rows = rows(&opened);
        ensure!(rows.len() > 30, "{} resources", rows.len());
        let items = || rows.iter().map(plain).collect::<Result<Vec<_>>>();
        let mut changed = |outcomes: &[Outcome]| {
            let changed = rows.iter().zip(outcomes).filter(|(_, it)| **it != Outcome::Unchanged);
            changed
                .map(|((_, kind, row), it)| format!("{kind:?} {} {it:?}", row.head.key))
                .collect::<Vec<_>>()
        };
        let committed = opened.store.commit(items()?).await?;
        ensure!(changed(&committed.outcomes).is_empty(), "{:?}", changed(&committed.outcomes));
        ensure!(opened.all_requests() == 0, "{} requests", opened.all_requests());
        // Removed, and made again by us.
        let gone = |(kind, _, row): &(KindId, Kind, Arc<Resource>)| Item {
            kind: *kind,
            expected: Expected::Anything,
            edit: Edit::Delete(row.head.key.clone()),
        };
        let committed = opened.store.commit(rows.iter().map(gone).collect()).await?;
        ensure!(committed.outcomes.iter().all(|it| *it == Outcome::Done), "{committed:?}");
        let committed = opened.store.commit(items()?).await?;
        let done = committed.outcomes.iter().all(|it| *it == Outcome::Done);
        ensure!(done, "{:?}", changed(&committed.outcomes));
        for (kind, what, before) in &rows {
            let row = opened.store.reader().get(*kind, &before.head.key).context("a row")?;
            let json = |row: &Resource| what.to_json(&row.spec);
            ensure!(json(&row)? == json(before)?, "{what:?} {}", row.head.key);
            ensure!(row.status == before.status, "{what:?} {}", row.head.key);
        }
        let before = opened.all_requests();
        let committed = opened.store.commit(items()?).await?;
        ensure!(changed(&committed.outcomes).is_empty(), "{:?}", changed(&committed.outcomes));
        ensure!(opened.all_requests() == before);
        Ok(self::rows(&opened))
    })?;
    cluster.with_store(kinds(), async |opened| {
        let items = made.iter().map(plain).collect::<Result<Vec<_>>>()?;
        let committed = opened.store.commit(items).await?;
        let same = committed.outcomes.iter().all(|it| *it == Outcome::Unchanged);
        ensure!(same && opened.all_requests() == 0, "{committed:?}");
        Ok(())
    })
}
