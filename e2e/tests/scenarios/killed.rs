//! `kill -9` of control planes at random moments, with writes under way.

use super::{Scenario, note};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    control_plane::{ControlPlane, Zone},
    wait,
};
use reqwest::blocking::Client;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

pub(crate) const ALL: &[Scenario] = &[
    ("what_global_acknowledged_survives_kill_9", || global_survives(KILLS)),
    ("what_a_zone_acknowledged_survives_kill_9", || zone_survives(KILLS)),
];

/// The same, for long.
pub(crate) const SOAK: &[Scenario] = &[
    ("what_global_acknowledged_survives_200_times_kill_9", || global_survives(SOAK_KILLS)),
    ("what_a_zone_acknowledged_survives_200_times_kill_9", || zone_survives(SOAK_KILLS)),
];

const KILLS: u32 = 10;
const SOAK_KILLS: u32 = 200;
const WRITERS: usize = 4;
/// Names of each writer.
const NAMES: u64 = 25;
const TIMEOUTS: &str = "/meshes/default/meshtimeouts";

/// What a user knows of a resource: the number of the last write, `None` if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Known {
    acknowledged: Option<u64>,
    /// What was asked for and not answered: it may have been done.
    asked: Option<Option<u64>>,
}

/// A user with names of its own.
struct Writer {
    number: usize,
    url: String,
    token: String,
    known: BTreeMap<String, Known>,
    /// The next write.
    next: u64,
}

fn document(name: &str, n: u64) -> Value {
    json!({
        "type": "MeshTimeout", "mesh": "default", "name": name,
        "spec": { "to": [{
            "targetRef": { "kind": "Mesh" },
            "default": { "connectionTimeout": format!("{n}s") },
        }] },
    })
}

/// The write that a resource is of.
fn written(document: &Value) -> Result<u64> {
    let timeout = document.pointer("/spec/to/0/default/connectionTimeout");
    let timeout = timeout.and_then(Value::as_str).context("a MeshTimeout")?;
    let timeout = timeout.replace('h', "h ").replace('m', "m ").replace('s', "s ");
    timeout.split_whitespace().try_fold(0, |sum, part| {
        let (number, unit) = part.split_at(part.len() - 1);
        let seconds = match unit {
            "h" => 3600,
            "m" => 60,
            _ => 1,
        };
        Ok(sum + seconds * number.parse::<u64>()?)
    })
}

impl Writer {
    /// Writes and deletes until nobody answers.
    fn write(mut self, done: &AtomicUsize) -> Result<Self> {
        let client = Client::builder().no_proxy().build()?;
        loop {
            self.next += 1;
            let n = self.next;
            // In no order that the writes of before had.
            let name = format!("t-{}-{}", self.number, n.wrapping_mul(0x9e37_79b9) % NAMES);
            let url = format!("{}/{name}", self.url);
            let known = self.known.entry(name.clone()).or_default();
            let deletes = known.acknowledged.is_some() && n.is_multiple_of(3);
            let wanted = (!deletes).then_some(n);
            let request = match wanted {
                Some(n) => client.put(&url).json(&document(&name, n)),
                None => client.delete(&url),
            };
            known.asked = Some(wanted);
            match request.bearer_auth(&self.token).send() {
                Ok(answer) if answer.status().is_success() => {
                    *known = Known { acknowledged: wanted, asked: None };
                    done.fetch_add(1, Ordering::Relaxed);
                }
                // Told to end, but nobody tells it: whatever it says is wrong.
                Ok(answer) => bail!("{name}: {}", answer.status()),
                Err(_) => return Ok(self),
            }
        }
    }

    /// Fails unless all is there as it was acknowledged, or as it was asked for last.
    fn check(&mut self, there: &BTreeMap<String, u64>) -> Result<()> {
        for (name, known) in &mut self.known {
            let found = there.get(name).copied();
            if found != known.acknowledged && Some(found) != known.asked {
                bail!("{name}: {found:?} is there, but {known:?}");
            }
            *known = Known { acknowledged: found, asked: None };
        }
        Ok(())
    }
}

/// What a control plane holds that was written there.
fn there(cp: &ControlPlane) -> Result<BTreeMap<String, u64>> {
    let list = cp.get(&format!("{TIMEOUTS}?size=1000"))?;
    let items = list.get("items").and_then(Value::as_array).context("items")?;
    let named = |item: &Value| Some(item.get("name")?.as_str()?.to_owned());
    let ours = items.iter().filter_map(|item| Some((named(item)?, item)));
    let ours = ours.filter(|(name, _)| name.starts_with("t-"));
    ours.map(|(name, item)| Ok((name, written(item)?))).collect()
}

/// Kills it so many times: while it starts, or with writes under way.
fn survives(cp: &mut ControlPlane, kills: u32) -> Result<Vec<Writer>> {
    cp.start()?;
    wait::until("the mesh is there", PATIENCE, || cp.get("/meshes/default"))?;
    let (url, token) = (cp.url(TIMEOUTS), cp.token()?);
    let writer = |number| Writer {
        number,
        url: url.clone(),
        token: token.clone(),
        known: BTreeMap::new(),
        next: 0,
    };
    let mut writers: Vec<Writer> = (0..WRITERS).map(writer).collect();
    let mut acknowledged = 0;
    for kill in 0..kills {
        let done = Arc::<AtomicUsize>::default();
        let working: Vec<JoinHandle<Result<Writer>>> = writers
            .drain(..)
            .map(|writer| {
                let done = done.clone();
                thread::spawn(move || writer.write(&done))
            })
            .collect();
        let wanted = 1 + kill.wrapping_mul(0x9e37_79b9) as usize % 150;
        wait::until("some writes", PATIENCE, || {
            let done = done.load(Ordering::Relaxed);
            if done >= wanted { Ok(()) } else { bail!("{done} of {wanted}") }
        })?;
        cp.kill()?;
        for working in working {
            let Ok(writer) = working.join() else { bail!("a writer panicked") };
            writers.push(writer?);
        }
        acknowledged += done.load(Ordering::Relaxed);
        if kill % 3 == 2 {
            killed_while_it_starts(cp, Duration::from_millis(u64::from(kill * 7 % 100)))?;
        }
        cp.start().with_context(|| format!("after kill {kill}"))?;
        let there = there(cp)?;
        for writer in &mut writers {
            writer.check(&there).with_context(|| format!("after kill {kill}"))?;
        }
    }
    note(&format!("{kills} kills, {acknowledged} writes acknowledged"));
    if acknowledged < kills as usize {
        bail!("only {acknowledged} writes were acknowledged");
    }
    Ok(writers)
}

/// In the middle of opening its store, or of what it does first.
fn killed_while_it_starts(cp: &ControlPlane, after: Duration) -> Result<()> {
    let mut process = cp.launch()?;
    wait::throughout("it starts", after, || process.check())?;
    process.kill()
}

fn global(folder: &Path, last: u8) -> Result<ControlPlane> {
    ControlPlane::global(folder, Ipv4Addr::new(127, 77, 0, last))
}

fn global_survives(kills: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    survives(&mut global(folder.path(), 30)?, kills).map(drop)
}

/// What it acknowledged is in the end on global too.
fn zone_survives(kills: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut global = global(folder.path(), 31)?;
    global.start()?;
    let east = Zone { name: "east", address: Ipv4Addr::new(127, 77, 0, 32), namespace: None };
    let mut east = ControlPlane::zone(&folder.path().join("east"), east, &global)?;
    let writers = survives(&mut east, kills)?;
    let known = writers.iter().flat_map(|writer| &writer.known);
    let mut expected: Vec<u64> = known.filter_map(|(_, known)| known.acknowledged).collect();
    expected.sort_unstable();
    wait::until("global has what its zone has", PATIENCE, || {
        let list = global.get(&format!("{TIMEOUTS}?size=1000"))?;
        let items = list.get("items").and_then(Value::as_array).context("items")?;
        let of_zone = |item: &&Value| {
            let labels = item.get("labels");
            labels.and_then(|labels| labels.get("kuma.io/zone")) == Some(&"east".into())
        };
        let found: Result<Vec<u64>> = items.iter().filter(of_zone).map(written).collect();
        let mut found = found?;
        found.sort_unstable();
        if found == expected { Ok(()) } else { bail!("{found:?} is not {expected:?}") }
    })
}
