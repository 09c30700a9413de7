//! A store that loses power again and again, in the middle of anything.
//!
//! Commits are made in groups, as many writers make them. At some operation of the disk, power goes:
//! of the sectors that were not synced any may be there afterwards. The store must then hold all
//! that was acknowledged, of the group in flight all or nothing, and under the same epoch.

use crate::Disk;
use anyhow::{Context as _, bail, ensure};
use fastrand::Rng;
use futures::future::join_all;
use std::time::Duration;
use std::{collections::BTreeMap, io::ErrorKind};
use store::{
    Backend as _, Embedded, Item, Local,
    conformance::{self, SAMPLES},
    open,
    view::Revision,
};
use tokio::time::timeout;

const LIVES: usize = 6;
const NAMES: usize = 40;
/// Groups before power may go in a life, about.
const GROUPS: usize = 12;
/// Operations of the disk in one commit, about.
const OPERATIONS: usize = 8;

/// Values by name.
type Content = BTreeMap<String, String>;

/// Runs the history of `seed`. Fails if something that was acknowledged is gone, or something is
/// there in part.
pub fn run(seed: u64) -> anyhow::Result<()> {
    in_paused_time(history(Rng::with_seed(seed)))
}

/// A history in which nothing happens any more fails at once: nobody waits for a clock here.
fn in_paused_time(history: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async { timeout(Duration::from_secs(60), history).await? })
}

async fn history(mut random: Rng) -> anyhow::Result<()> {
    let disk = Disk::default();
    // What was acknowledged, and what the group in flight would have made of it.
    let (mut holds, mut in_flight) = (Content::new(), None::<Content>);
    let (mut revision, mut epoch) = (Revision(0), None);
    for life in 0..LIVES {
        let opened = Embedded::open_on(disk.attach());
        // The first commit of all may be lost like any other.
        let journal = opened.with_context(|| format!("life {life} cannot open the store"))?;
        let (store, writer) = open(journal, conformance::kinds(), conformance::clock())?;
        let found = content(&store);
        let next = Revision(revision.0 + 1);
        match store.reader().revision() {
            now if now == revision => ensure!(found == holds, "{found:?} is not {holds:?}"),
            now if now == next && in_flight.as_ref() == Some(&found) => revision = next,
            now => bail!("{found:?} at {now:?}, after {holds:?} at {revision:?}"),
        }
        ensure!(*epoch.get_or_insert_with(|| store.epoch()) == store.epoch(), "another epoch");
        holds = found;

        disk.fail_after(random.usize(1..GROUPS * OPERATIONS), ErrorKind::NotConnected);
        let ended = while_living(writer, async {
            for _ in 0..2 * GROUPS {
                let (batches, after) = group(&mut random, &holds);
                in_flight = Some(after.clone());
                let commits = batches.into_iter().map(|batch| store.commit(batch));
                for committed in join_all(commits).await {
                    let Ok(committed) = committed else { return };
                    revision = committed.revision;
                }
                holds = after;
            }
        });
        ended.await;
        disk.crash(|| random.bool());
    }
    Ok(())
}

/// Runs until the writer fails or the work ends.
async fn while_living(writer: store::LocalWriter<Embedded>, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        _ = writer.run() => {}
        () = work => {}
    }
}

fn content(store: &Local) -> Content {
    let (_, rows) = store.reader().rows(SAMPLES);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    rows.iter().map(|row| (row.head.key.name.to_string(), text(&row.spec))).collect()
}

/// Batches that are committed together, and what they make of `before`.
fn group(random: &mut Rng, before: &Content) -> (Vec<Vec<Item>>, Content) {
    let mut after = before.clone();
    let mut item = || {
        let name = format!("sample-{}", random.usize(..NAMES));
        if random.u8(..4) == 0 {
            after.remove(&name);
            return conformance::delete(&name);
        }
        let value = format!("{}-{}", random.u64(..), "x".repeat(random.usize(..3000)));
        after.insert(name.clone(), format!(r#"{{"value":"{value}"}}"#));
        conformance::put(&name, &value)
    };
    let mut batches: Vec<Vec<Item>> = (0..3).map(|_| (0..4).map(|_| item()).collect()).collect();
    // At least one change, so that the group has a revision.
    let value = format!("{}", random.u64(..));
    after.insert("last".into(), format!(r#"{{"value":"{value}"}}"#));
    batches.push(vec![conformance::put("last", &value)]);
    (batches, after)
}

/// Fills the disk in the middle of a group. Fails unless everybody is told, nothing of the group
/// can be read, and the store can be opened again once there is room.
pub fn fill(seed: u64) -> anyhow::Result<()> {
    in_paused_time(full(Rng::with_seed(seed)))
}

async fn full(mut random: Rng) -> anyhow::Result<()> {
    let disk = Disk::default();
    let (store, writer) =
        open(Embedded::open_on(disk.attach())?, conformance::kinds(), conformance::clock())?;
    let (first, holds) = group(&mut random, &Content::new());
    let (second, after) = group(&mut random, &holds);
    let running = async {
        join_all(first.into_iter().map(|batch| store.commit(batch))).await;
        disk.fail_after(random.usize(..OPERATIONS / 2), ErrorKind::StorageFull);
        let told = join_all(second.into_iter().map(|batch| store.commit(batch))).await;
        (told, store.commit(vec![conformance::delete("last")]).await)
    };
    let (ended, (told, later)) = futures::join!(writer.run(), running);
    let reason = |error: &dyn std::error::Error| {
        std::iter::successors(Some(error), |error| error.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ")
    };
    let expected = "storage failed: store file simulated: ";
    for told in told {
        let Err(error) = told else { bail!("acknowledged on a full disk") };
        ensure!(reason(&error).starts_with(expected), "{}", reason(&error));
    }
    let Err(ended) = ended else { bail!("the writer did not end") };
    ensure!(reason(&ended).starts_with(expected), "{}", reason(&ended));
    let Err(later) = later else { bail!("still open") };
    ensure!(reason(&later) == reason(&ended), "{}", reason(&later));
    ensure!(content(&store) == holds, "something of the group can be read");
    drop(store);

    disk.heal();
    let (store, _writer) =
        open(Embedded::open_on(disk.attach())?, conformance::kinds(), conformance::clock())?;
    let found = content(&store);
    ensure!(found == holds || found == after, "{found:?}");
    Ok(())
}
