//! Zones that have calls open: how many, and when each was heard of last.

use crate::limit;
use parking_lot::Mutex;
use resource::ZoneName;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Present(Arc<Mutex<BTreeMap<ZoneName, Zone>>>);

#[derive(Debug)]
struct Zone {
    open: usize,
    heard: Instant,
    holds: Arc<AtomicBool>,
}

impl Present {
    /// Counts one more call of `zone`, until what is returned is dropped.
    pub(super) fn count(&self, zone: &ZoneName) -> Result<Counted, Status> {
        let mut zones = self.0.lock();
        let now = Instant::now();
        let it = zones.entry(zone.clone()).or_insert_with(|| Zone {
            open: 0,
            heard: now,
            holds: Arc::default(),
        });
        if it.open >= limit::CALLS_OF_ZONE {
            return Err(Status::resource_exhausted("too many open calls of this zone"));
        }
        it.open += 1;
        it.heard = now;
        Ok(Counted { present: self.clone(), zone: zone.clone() })
    }

    /// The zone asked whether global is there, and said whether it applies nothing of it.
    pub(super) fn heard(&self, zone: &ZoneName, holds: bool) {
        if let Some(it) = self.0.lock().get_mut(zone) {
            it.heard = Instant::now();
            it.holds.store(holds, Ordering::Relaxed);
        }
    }

    /// Set while the zone applies nothing, so that it owes no answers.
    pub(super) fn holds(&self, zone: &ZoneName) -> Arc<AtomicBool> {
        self.0.lock().get(zone).map(|it| it.holds.clone()).unwrap_or_default()
    }
}

/// A call that counts until it is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    present: Present,
    zone: ZoneName,
}

impl Counted {
    /// Waits until the zone was silent for too long; forever if it may be.
    pub(super) async fn unheard(&self, patience: Option<Duration>) {
        let Some(patience) = patience else { return std::future::pending().await };
        loop {
            let heard = self.present.0.lock().get(&self.zone).map(|it| it.heard);
            let Some(due) = heard.map(|heard| heard + patience) else { return };
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut zones = self.present.0.lock();
        if let Some(it) = zones.get_mut(&self.zone) {
            it.open = it.open.saturating_sub(1);
            if it.open == 0 {
                zones.remove(&self.zone);
            }
        }
    }
}
