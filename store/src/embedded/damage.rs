//! Random damage: a file is refused, and kept as it is, or it holds exactly what was written.

use super::*;
use crate::{Backend, conformance, open, view::Revision};
use conformance::{Kept, SAMPLES, clock, delete, kept, kinds, put, while_running};
use fastrand::Rng;
use std::{fs, path::Path};

const DAMAGES: u64 = 400;
const PAGE: usize = 4096;

/// A store file, what it holds, and the mark beside it.
struct Victim {
    bytes: Vec<u8>,
    mark: Vec<u8>,
    holds: (Revision, Vec<Kept>),
}

/// What a program leaves behind that ended well, or was killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Clean,
    Killed,
}

async fn victim(path: &Path, end: End) -> Victim {
    let (store, writer) = open(Embedded::open(path).unwrap(), kinds(), clock()).unwrap();
    let mut random = Rng::with_seed(1);
    let mark = mark::path(path);
    let files = while_running(writer, async {
        // Grows, shrinks and is written again, so that the file has pages in use and free ones, and
        // trees of some depth.
        let name = |i: usize| format!("sample-{i}");
        let value = |random: &mut Rng| "v".repeat(random.usize(1..400));
        let all = (0..600).map(|i| put(&name(i), &value(&mut random))).collect();
        store.commit(all).await.unwrap();
        for i in (0..600).step_by(3) {
            store
                .commit(vec![delete(&name(i)), put(&name(i + 1), &value(&mut random))])
                .await
                .unwrap();
        }
        (fs::read(path).unwrap(), fs::read(&mark).unwrap())
    })
    .await;
    let holds = kept(&store, SAMPLES);
    drop(store);
    match end {
        End::Clean => {
            Victim { bytes: fs::read(path).unwrap(), mark: fs::read(&mark).unwrap(), holds }
        }
        End::Killed => Victim { bytes: files.0, mark: files.1, holds },
    }
}

/// Changes `bytes` and says how.
fn damage(bytes: &mut Vec<u8>, random: &mut Rng) -> String {
    // The header is small and most of what decides is in it: a third of the damage goes there.
    let end = if random.u8(..3) == 0 { PAGE.min(400) } else { bytes.len() };
    let at = random.usize(..end);
    match random.u8(..5) {
        0 | 1 => {
            let bit = random.u8(..8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        2 => {
            let page = at / PAGE * PAGE;
            let torn = random.usize(1..PAGE);
            bytes[page + torn..page + PAGE].iter_mut().for_each(|byte| *byte = random.u8(..));
            format!("page at {page} torn after {torn} bytes")
        }
        3 => {
            bytes.truncate(at);
            format!("cut to {at} bytes")
        }
        _ => {
            let end = (at + random.usize(1..3 * PAGE)).min(bytes.len());
            bytes[at..end].fill(0);
            format!("zeros from {at} to {end}")
        }
    }
}

/// Whether the file was refused.
fn judge(path: &Path, damaged: &[u8], victim: &Victim, how: &str) -> bool {
    fs::write(path, damaged).unwrap();
    fs::write(mark::path(path), &victim.mark).unwrap();
    match Embedded::open(path) {
        Err(error) => {
            assert!(fs::read(path).unwrap() == damaged, "{how}: refused ({error}), but changed");
            true
        }
        Ok(journal) => {
            let (store, _writer) = open(journal, kinds(), clock()).unwrap();
            assert!(kept(&store, SAMPLES) == victim.holds, "{how}: believed");
            false
        }
    }
}

async fn every_damage_is_noticed(end: End, damages: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let victim = victim(&path, end).await;
    assert!(!judge(&path, &victim.bytes, &victim, "not damaged"));
    let mut refused = 0;
    for seed in 0..damages {
        let (mut random, mut bytes) = (Rng::with_seed(seed), victim.bytes.clone());
        let how = damage(&mut bytes, &mut random);
        refused +=
            u64::from(judge(&path, &bytes, &victim, &format!("{end:?}, {how}, seed {seed}")));
    }
    // Most of a file is in use.
    assert!(refused > damages / 4, "{end:?}: {refused} of {damages} were refused");
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_kept_or_holds_exactly_what_was_written() {
    every_damage_is_noticed(End::Clean, DAMAGES).await;
}

#[tokio::test]
async fn so_is_one_that_was_not_closed() {
    every_damage_is_noticed(End::Killed, DAMAGES).await;
}

#[tokio::test]
#[ignore = "takes minutes: make soak"]
async fn so_it_is_for_many_more_damages() {
    every_damage_is_noticed(End::Clean, 20 * DAMAGES).await;
    every_damage_is_noticed(End::Killed, 20 * DAMAGES).await;
}
