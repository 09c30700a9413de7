//! The task that keeps services: one batch for each round of changes.

use super::state::{Ids, Services, Settings};
use anyhow::Context;
use daemon::{Clock, Metrics};
use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;
use resource::ResourceKey;
use std::{sync::atomic::AtomicI64, time::Duration};
use store::{
    Backend, Kinds, Outcome,
    view::{Edit, Feed},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// What is published about virtual addresses.
#[derive(Debug, Default)]
struct Gauges {
    held: Gauge<i64, AtomicI64>,
    resting: Gauge<i64, AtomicI64>,
    lacking: Gauge<i64, AtomicI64>,
}

impl Gauges {
    fn register(metrics: &Metrics) -> Self {
        let gauge = |name: &str, help: &str| metrics.register(name, help, Gauge::default());
        Self {
            held: gauge("services_vips_held", "Virtual addresses that services have"),
            resting: gauge("services_vips_resting", "Virtual addresses freed a moment ago"),
            lacking: gauge("services_vips_lacking", "Services without a virtual address"),
        }
    }

    fn set(&self, counts: [usize; 3]) {
        for (gauge, count) in [&self.held, &self.resting, &self.lacking].into_iter().zip(counts) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// Keeps services until `shutdown` or until the store closes.
pub async fn run<B: Backend>(
    backend: B,
    kinds: Kinds,
    settings: Settings,
    clock: Clock,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let ids = Ids::of(&kinds).context("a kind that services are made of is not there")?;
    let mut feed = Feed::of(&backend.reader(), ids.set());
    let gauges = Gauges::register(&metrics);
    let mut services = Services::new(ids, settings, clock.now());
    let mut lacking = 0;
    loop {
        let wait = until(services.deadline(), clock.now());
        // Cancel safe: a feed that has not returned has not read.
        let updates = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            updates = tokio::time::timeout(wait, feed.next()) => updates,
        };
        // The time that something waited for has come.
        let Ok(updates) = updates else {
            commit(&backend, services.apply(Vec::new(), clock.now())).await?;
            continue;
        };
        let Ok(updates) = updates else { return Ok(()) };
        commit(&backend, services.apply(updates, clock.now())).await?;
        let counts = services.vip_counts();
        gauges.set(counts);
        let [.., missing] = counts;
        if missing > lacking {
            warn!(services = missing, "no virtual address is left: vips.meshService is too small");
        }
        lacking = missing;
    }
}

/// How long until a deadline; very long if there is none.
fn until(deadline: Option<Timestamp>, now: Timestamp) -> Duration {
    const LONG: Duration = Duration::from_hours(24);
    let Some(deadline) = deadline else { return LONG };
    // A millisecond more: clocks that are compared may differ in what they leave out.
    let left = Duration::try_from(deadline.duration_since(now)).unwrap_or_default();
    left.saturating_add(Duration::from_millis(1)).min(LONG)
}

/// What is refused because somebody else wrote meanwhile comes back as a change, and is decided
/// again.
async fn commit<B: Backend>(backend: &B, batch: Vec<store::Item>) -> anyhow::Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let keys: Vec<_> = batch.iter().map(|item| key(&item.edit).clone()).collect();
    let committed = backend.commit(batch).await.context("writing services")?;
    backend.wait_for(committed.revision).await.context("reading services")?;
    let conflict = |outcome: &&Outcome| matches!(outcome, Outcome::Conflict { .. });
    let conflicts = committed.outcomes.iter().filter(conflict).count();
    if conflicts > 0 {
        debug!(conflicts, "services changed meanwhile");
    }
    for (key, outcome) in keys.iter().zip(&committed.outcomes) {
        if let Outcome::Refused { reason } = outcome {
            warn!(%key, %reason, "not taken by the store");
        }
    }
    Ok(())
}

fn key(edit: &Edit) -> &ResourceKey {
    match edit {
        Edit::Put(row) => &row.head.key,
        Edit::Delete(key) => key,
    }
}
