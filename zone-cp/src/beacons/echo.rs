//! Tells global how far its beacons come.

use super::Beacons;
use anyhow::Result;
use api::author::Author;
use kinds::{
    beacon::{self, Beacon},
    beacon_echo,
};
use resource::{AnySpec, ResourceKey};
use std::{sync::Arc, time::Duration};
use store::{
    Backend, Expected,
    view::{Feed, KindSet, Update},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a beacon that is stored may take to go on before that alone is worth a write.
const SETTLES: Duration = Duration::from_millis(100);

/// Writes down how far beacons come, until `stop`. A zone that gets none writes nothing.
pub(crate) async fn run<B: Backend>(
    beacons: Beacons,
    author: Author,
    store: B,
    stop: CancellationToken,
) -> Result<()> {
    let mut feed = Feed::of(&store.reader(), KindSet::from_iter([author.id(beacon::KIND)]));
    // What is there came earlier, nobody knows when.
    feed.next().await?;
    let mut progress = beacons.progress.subscribe();
    let mut written = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            updates = feed.next() => {
                updates?.iter().filter_map(number).for_each(|number| beacons.stored(number));
            }
            changed = progress.changed() => changed?,
        }
        // One write tells all of it, if nothing is slow.
        timeout(SETTLES, progress.wait_for(|progress| progress.is_through())).await.ok();
        let echo = progress.borrow_and_update().echo();
        if let Some(echo) = echo.filter(|echo| written.as_ref() != Some(echo)) {
            let (key, spec) = (ResourceKey::global(beacon_echo::NAME), Arc::new(echo.clone()));
            let spec: AnySpec = spec;
            let item = author.write(beacon_echo::KIND, key, &spec, Expected::Anything)?;
            match store.commit(vec![item]).await {
                Ok(_) => written = Some(echo),
                // The next beacon is told in its time.
                Err(error) => tracing::warn!(%error, "how far a beacon came is not written"),
            }
        }
    }
}

fn number(update: &Update) -> Option<u64> {
    kinds::read::<Beacon>(update.now.as_ref()?).ok().map(|beacon| beacon.number)
}
