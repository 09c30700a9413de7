//! What durable commits cost, and what opening a file costs.

mod report;

use daemon::Clock;
use report::{cpu_micros, middle, report};
use serde_json::json;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use store::{
    Backend, Embedded, Item, Journal, Local, StoreError,
    conformance::{kinds, put},
    open,
};
use tokio::{runtime::Runtime, task::JoinSet, time::Instant};

/// Rows in the large store.
const MANY: usize = 100_000;
/// Rows that are written again and again.
const FEW: usize = 16;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

const PADDING: &str = match std::str::from_utf8(&[b'-'; 960]) {
    Ok(padding) => padding,
    Err(_) => "",
};

/// 1 KB.
fn item(name: usize, content: usize) -> Item {
    put(&format!("sample-{name}"), &format!("{content}{PADDING}"))
}

fn start(tasks: &mut JoinSet<Result<(), StoreError>>, path: &Path) -> anyhow::Result<Local> {
    let (store, writer) = open(Embedded::open(path)?, kinds(), Clock::system())?;
    tasks.spawn(writer.run_on_thread());
    Ok(store)
}

/// How many commits `writers` made, one after the other each, in how long. `names` is which row
/// comes next.
async fn commits(
    store: &Local,
    writers: usize,
    contents: usize,
    names: fn(usize) -> usize,
) -> anyhow::Result<(usize, f64)> {
    let (done, start) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let (store, done) = (store.clone(), done.clone());
        tasks.spawn(async move {
            // Never what was written before: what changes nothing is not committed.
            for content in contents.. {
                let name = names(writer.wrapping_mul(7_919).wrapping_add(content));
                if start.elapsed() > ROUND {
                    break;
                }
                store.commit(vec![item(name, content)]).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, StoreError>(())
        });
    }
    while let Some(joined) = tasks.join_next().await {
        joined??;
    }
    Ok((done.load(Ordering::Relaxed), start.elapsed().as_secs_f64()))
}

async fn measure(store: &Local, rows: &str, names: fn(usize) -> usize) -> anyhow::Result<()> {
    for writers in [1, 8, 64] {
        let (mut count, mut figures) = (0, Vec::new());
        for round in 1..=ROUNDS {
            let contents = (round * 100 + writers) * 1_000_000;
            let (done, seconds) = commits(store, writers, contents, names).await?;
            count += done;
            figures.push(done as f64 / seconds);
        }
        figures.sort_by(f64::total_cmp);
        let ends = json!({ "per_second": middle(&figures), "n": count, "writers": writers,
            "min": middle(figures.get(..1).unwrap_or_default()),
            "max": middle(figures.get(ROUNDS - 1..).unwrap_or_default()) });
        report("store", &format!("commits-{rows}-{writers}-writers"), ends);
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.redb");
    Runtime::new()?.block_on(async {
        let mut tasks = JoinSet::new();
        let store = start(&mut tasks, &folder.path().join("few.redb"))?;
        measure(&store, "few-rows", |i| i % FEW).await?;
        drop(store);
        let store = start(&mut tasks, &path)?;
        for first in (0..MANY).step_by(1_000) {
            let batch = (first..first + 1_000).map(|name| item(name, 0)).collect();
            store.commit(batch).await?;
        }
        // Over all names, as changes of users are; not the same few pages again and again.
        measure(&store, "at-random-in-100000-rows", |i| i.wrapping_mul(104_729) % MANY).await?;
        drop(store);
        tasks.join_all().await;
        anyhow::Ok(())
    })?;
    report("store", "file-of-100000-rows", json!({ "mb": path.metadata()?.len() >> 20 }));
    let figures = cpu_micros(ROUNDS, 1_000, |_| Embedded::open(&path).map(drop).is_ok());
    report("store", "open-and-check-100000-rows", json!({ "n": ROUNDS, "ms": middle(&figures) }));
    let mut journal = Embedded::open(&path)?;
    let figures = cpu_micros(ROUNDS, 1_000, |_| journal.load(&kinds()).map(drop).is_ok());
    report("store", "load-100000-rows", json!({ "n": ROUNDS, "ms": middle(&figures) }));
    Ok(())
}
