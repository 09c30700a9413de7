//! Zones that have calls open: how many, where each keeps its resources, and when it was heard of last.
//!
//! Two zones that were given one name would take from each other what they sent, again and again. The
//! first one stays, as long as it is there.

use crate::{limit, metadata};
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
use tonic::{Status, metadata::MetadataMap};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Present(Arc<Mutex<BTreeMap<ZoneName, Zone>>>);

#[derive(Debug)]
struct Zone {
    open: usize,
    heard: Instant,
    holds: Arc<AtomicBool>,
    /// Where it keeps its resources, if it says so.
    home: Option<String>,
    /// When it closed its last call.
    left: Instant,
}

/// Why a call of a zone is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TurnedAway {
    #[error("too many open calls of this zone")]
    TooMany,
    #[error(
        "another zone has this name: the one at {there} is connected, and this is the one at {here}"
    )]
    Another { there: String, here: String },
}

impl TurnedAway {
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::TooMany => "too-many",
            Self::Another { .. } => "another",
        }
    }
}

impl From<TurnedAway> for Status {
    fn from(reason: TurnedAway) -> Self {
        match reason {
            TurnedAway::TooMany => Self::resource_exhausted(reason.to_string()),
            TurnedAway::Another { .. } => Self::already_exists(reason.to_string()),
        }
    }
}

impl Zone {
    fn new(now: Instant) -> Self {
        Self { open: 0, heard: now, holds: Arc::default(), home: None, left: now }
    }

    /// Whether it is there, or may come back.
    fn stays(&self, now: Instant) -> bool {
        self.open > 0 || self.home.is_some() && now < self.left + limit::RETURN
    }

    /// Refuses one that is elsewhere.
    fn check(&self, home: Option<&str>) -> Result<(), TurnedAway> {
        match (self.home.as_deref(), home) {
            (Some(there), Some(here)) if there != here => {
                Err(TurnedAway::Another { there: there.into(), here: here.into() })
            }
            _ => Ok(()),
        }
    }
}

impl Present {
    /// Counts one more call of `zone`, until what is returned is dropped.
    pub(super) fn count(
        &self,
        zone: &ZoneName,
        metadata: &MetadataMap,
    ) -> Result<Counted, TurnedAway> {
        let mut zones = self.0.lock();
        let (now, home) = (Instant::now(), metadata::home(metadata));
        zones.retain(|_, it| it.stays(now));
        let it = zones.entry(zone.clone()).or_insert_with(|| Zone::new(now));
        it.check(home.as_deref())?;
        if it.open >= limit::CALLS_OF_ZONE {
            return Err(TurnedAway::TooMany);
        }
        it.open += 1;
        it.heard = now;
        it.home = home.or_else(|| it.home.take());
        Ok(Counted { present: self.clone(), zone: zone.clone() })
    }

    /// The zone asked whether global is there, and said whether it applies nothing of it.
    pub(super) fn heard(
        &self,
        zone: &ZoneName,
        metadata: &MetadataMap,
        holds: bool,
    ) -> Result<(), TurnedAway> {
        if let Some(it) = self.0.lock().get_mut(zone) {
            it.check(metadata::home(metadata).as_deref())?;
            it.heard = Instant::now();
            it.holds.store(holds, Ordering::Relaxed);
        }
        Ok(())
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
        let now = Instant::now();
        if let Some(it) = zones.get_mut(&self.zone) {
            it.open = it.open.saturating_sub(1);
            it.left = now;
            if !it.stays(now) {
                zones.remove(&self.zone);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{advance, timeout};

    fn of(home: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata::live_at(&mut metadata, home);
        metadata
    }

    #[tokio::test(start_paused = true)]
    async fn another_one_of_its_name_does_not_speak_for_a_zone_that_is_silent() {
        let (present, zone) = (Present::default(), ZoneName::new("east").unwrap());
        let open = present.count(&zone, &of("here")).unwrap();
        let patience = Duration::from_secs(60);
        advance(Duration::from_secs(40)).await;
        let another = TurnedAway::Another { there: "here".into(), here: "there".into() };
        assert_eq!(present.heard(&zone, &of("there"), false), Err(another.clone()));
        let silent = open.unheard(Some(patience));
        assert!(timeout(Duration::from_secs(21), silent).await.is_ok());
        assert_eq!(present.count(&zone, &of("there")).map(drop), Err(another));
        // Who does not say where it is may be the same.
        present.heard(&zone, &MetadataMap::new(), false).unwrap();
        present.count(&zone, &MetadataMap::new()).map(drop).unwrap();
        drop(open);
        advance(limit::RETURN).await;
        present.count(&zone, &of("there")).map(drop).unwrap();
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let (present, zone) = (Present::default(), ZoneName::new("east").unwrap());
        drop(present.count(&zone, &MetadataMap::new()).unwrap());
        assert!(present.0.lock().is_empty());
    }
}
