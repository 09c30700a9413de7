//! What global has of each zone that uploads, so that only one stream does and the next one goes on
//! where it was.

use crate::fetch::Places;
use parking_lot::Mutex;
use resource::ZoneName;
use std::{collections::BTreeMap, sync::Arc};
use store::{
    Backend,
    view::{Changes, KindId, Revision},
};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

/// The uploads of all zones.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<BTreeMap<ZoneName, Arc<Zone>>>);

#[derive(Debug, Default)]
struct Zone {
    /// Ends the stream that uploads now.
    newer: Mutex<CancellationToken>,
    /// Held by the stream that uploads.
    places: Arc<tokio::sync::Mutex<Places>>,
}

/// The only upload of a zone.
pub(super) struct Upload {
    /// Cancelled when a newer stream of the zone wants to take over.
    pub(super) newer: CancellationToken,
    turn: Arc<tokio::sync::Mutex<Places>>,
}

impl Uploads {
    /// A stream of `zone` begins, and any before it ends.
    pub(super) fn begin(&self, zone: &ZoneName) -> Upload {
        let of_zone = self.0.lock().entry(zone.clone()).or_default().clone();
        let newer = CancellationToken::new();
        let older = std::mem::replace(&mut *of_zone.newer.lock(), newer.clone());
        older.cancel();
        Upload { newer, turn: of_zone.places.clone() }
    }
}

impl Upload {
    /// Waits until the stream before has ended, with what is known then of the zone.
    ///
    /// What it had sent to the store is stored before anything that this one sends, so what an old
    /// stream says never comes after what a new one said.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<Places> {
        self.turn.clone().lock_owned().await
    }
}

/// Forgets the places of kinds of which others took away or changed something of `zone` since: it
/// would not send that again.
pub(super) fn check<B: Backend>(places: &mut Places, zone: &ZoneName, store: &B) {
    let reader = store.reader();
    let untouched = |kind: KindId, since: Revision| match reader.changes(kind, since) {
        Changes::Lost => false,
        Changes::Keys { changes, .. } => !changes.iter().any(|change| {
            let before = change.before.as_ref();
            let of_zone = before.filter(|head| head.audience.owner.as_ref() == Some(zone));
            let now = change.now.as_ref().map(|now| now.head.version);
            of_zone.is_some_and(|before| now != Some(before.version))
        }),
    };
    places.retain(|kind, (_, since)| untouched(*kind, *since));
}
