//! How fresh zones are shown, and that this is true.

use super::{machine::Machine, world::World};
use crate::network::sleep_for;
use kds::limit::{BEACON, STALE};
use resource::Feature;
use serde_json::Value;
use std::{pin::pin, time::Duration};
use tokio::sync::watch;

#[cfg(test)]
mod tests;

/// How long anything takes on a network in good weather.
const SOON: Duration = Duration::from_secs(2);

/// Polls a task, but not while that part of its machine is stuck.
pub(crate) async fn unless_stuck<T>(
    part: &'static str,
    task: impl Future<Output = T>,
    mut stuck: watch::Receiver<Option<&'static str>>,
) -> T {
    let mut task = pin!(task);
    loop {
        if stuck.wait_for(|stuck| *stuck != Some(part)).await.is_err() {
            return task.await;
        }
        tokio::select! {
            biased;
            changed = stuck.changed() => if changed.is_err() {
                return task.await;
            },
            ended = &mut task => return ended,
        }
    }
}

/// All zones as global shows them: name, state, and the stage that is late.
async fn shown(global: &Machine) -> Vec<(String, String, Option<String>)> {
    let all = global.get("/_freshness").await.unwrap_or_default();
    let items = all.get("items").and_then(Value::as_array).into_iter().flatten();
    let text = |zone: &Value, key: &str| zone.get(key).and_then(Value::as_str).map(str::to_owned);
    let one = |zone: &Value| Some((text(zone, "zone")?, text(zone, "state")?, text(zone, "late")));
    items.filter_map(one).collect()
}

/// Zones that are there and not shown fresh, or not unknown though they know no beacons.
async fn stale(world: &World) -> Vec<String> {
    let Some(global) = world.machines.first() else { return Vec::new() };
    let shown = shown(global).await;
    let is = |name: &str| {
        let zone = world.machines.iter().find(|it| it.name == name)?;
        Some(if zone.features.has(Feature::Beacon) { "Fresh" } else { "Unknown" })
    };
    let gone = |name: &str| {
        world.deleted.iter().any(|node| world.machines.get(*node).is_some_and(|it| it.name == name))
    };
    let mut found: Vec<String> = shown
        .iter()
        .filter(|(name, state, _)| !gone(name) && is(name).is_some_and(|is| is != state))
        .map(|(name, state, late)| format!("{name} is shown {state}, late at {late:?}"))
        .collect();
    let zones = world.machines.iter().skip(1).filter(|zone| !gone(&zone.name));
    let unseen = zones.filter(|zone| !shown.iter().any(|(name, ..)| *name == zone.name));
    found.extend(unseen.map(|zone| format!("{} is not shown", zone.name)));
    found
}

/// What is shown of zones although nothing is wrong any more: each is fresh with the next beacon,
/// and stays so.
pub(crate) async fn quiet(world: &World) -> Vec<String> {
    sleep_for(BEACON + SOON).await;
    let steps = (STALE + BEACON).as_secs();
    for _ in 0..steps {
        let stale = stale(world).await;
        if !stale.is_empty() {
            return stale;
        }
        sleep_for(Duration::from_secs(1)).await;
    }
    Vec::new()
}
