//! Many writes and deletions: the file stays in proportion to what it holds, and nothing that was
//! acknowledged is lost.

use super::*;
use crate::{Backend as _, Item, Local, conformance, open};
use conformance::{SAMPLES, clock, delete, kinds, put, while_running};
use fastrand::Rng;
use std::{collections::BTreeMap, fs, io::Write as _, path::Path, time::Duration};
use tokio::time::Instant;

/// As many as the writer takes for one commit.
const WRITERS: usize = 64;
/// Parts that are measured by themselves.
const STEPS: usize = 10;
/// A file has at most so many bytes for each byte of names and values in it.
const SHARE: u64 = 4;
/// What redb has for itself, in bytes.
const OVERHEAD: u64 = 4 * 1024 * 1024;
const LARGEST: usize = 1000;

/// What one writer acknowledged: the number of the last write of each name.
type Known = BTreeMap<usize, u64>;

/// One part of a long life.
struct Step {
    commits: Vec<Duration>,
    file: u64,
    live: u64,
}

fn name(writer: usize, name: usize) -> String {
    format!("sample-{writer}-{name}")
}

/// The value of a write. Its length depends on its number, so rows grow and shrink.
fn value(n: u64) -> String {
    let mut random = Rng::with_seed(n);
    format!("{n}-{}", "v".repeat(random.usize(..LARGEST)))
}

fn change(random: &mut Rng, writer: usize, names: usize, n: u64, known: &mut Known) -> Item {
    let one = random.usize(..names);
    if random.u8(..4) == 0 {
        known.remove(&one);
        return delete(&name(writer, one));
    }
    known.insert(one, n);
    put(&name(writer, one), &value(n))
}

/// What one writer does in a step; how long each commit took.
async fn write(
    store: &Local,
    writer: usize,
    (names, times): (usize, u64),
    (random, known): &mut (Rng, Known),
) -> Vec<Duration> {
    let mut commits = Vec::new();
    for _ in 0..times {
        let n = random.u64(..);
        let item = change(random, writer, names, n, known);
        let began = Instant::now();
        store.commit(vec![item]).await.unwrap();
        commits.push(began.elapsed());
    }
    commits
}

async fn endure(path: &Path, writes: u64, names: usize) -> Vec<Step> {
    let (store, writer) = open(Embedded::open(path).unwrap(), kinds(), clock()).unwrap();
    let mut all: Vec<(Rng, Known)> =
        (0..WRITERS as u64).map(|seed| (Rng::with_seed(seed), Known::new())).collect();
    let mut steps = Vec::new();
    while_running(writer, async {
        let each = (names / WRITERS, writes / (STEPS * WRITERS) as u64);
        for _ in 0..STEPS {
            let works = all.iter_mut().enumerate().map(|(i, one)| write(&store, i, each, one));
            let mut commits: Vec<Duration> =
                futures::future::join_all(works).await.into_iter().flatten().collect();
            commits.sort_unstable();
            let (_, rows) = store.reader().rows(SAMPLES);
            let live =
                rows.iter().map(|row| (row.spec.len() + row.head.key.name.len()) as u64).sum();
            steps.push(Step { commits, file: fs::metadata(path).unwrap().len(), live });
        }
    })
    .await;
    drop(store);
    let expected: BTreeMap<String, String> = all
        .iter()
        .enumerate()
        .flat_map(|(writer, (_, known))| {
            known.iter().map(move |(one, n)| {
                (name(writer, *one), format!(r#"{{"value":"{}"}}"#, value(*n)))
            })
        })
        .collect();
    let (store, _writer) = open(Embedded::open(path).unwrap(), kinds(), clock()).unwrap();
    let (_, rows) = store.reader().rows(SAMPLES);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let found: BTreeMap<String, String> =
        rows.iter().map(|row| (row.head.key.name.to_string(), text(&row.spec))).collect();
    assert!(found == expected, "{} rows, expected {}", found.len(), expected.len());
    steps
}

fn check(steps: &[Step]) {
    for (i, Step { file, live, .. }) in steps.iter().enumerate() {
        let most = SHARE * live + OVERHEAD;
        assert!(*file <= most, "step {i}: the file has {file} bytes for {live}");
    }
}

/// Not captured: these figures are what a soak is for.
fn report(steps: &[Step]) {
    for (i, Step { commits, file, live }) in steps.iter().enumerate() {
        let at = |percent: usize| commits[(commits.len() - 1) * percent / 100].as_micros();
        let (p50, p99, most) = (at(50), at(99), at(100));
        let (file, live) = (file / 1024, live / 1024);
        writeln!(
            std::io::stderr(),
            r#"{{"step":{i},"commits":{},"p50_us":{p50},"p99_us":{p99},"max_us":{most},"file_kib":{file},"live_kib":{live}}}"#,
            commits.len(),
        )
        .unwrap();
    }
}

#[tokio::test]
async fn a_file_stays_in_proportion_to_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    check(&endure(&folder.path().join("store.redb"), 100_000, 2_000).await);
}

#[tokio::test]
#[ignore = "takes minutes: make soak"]
async fn so_it_does_over_ten_million_writes() {
    let folder = tempfile::tempdir().unwrap();
    let steps = endure(&folder.path().join("store.redb"), 10_000_000, 100_000).await;
    report(&steps);
    check(&steps);
}
