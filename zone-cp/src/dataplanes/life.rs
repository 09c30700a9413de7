//! Writes down what became of proxies: the one task that does.

use super::registry::{Registry, Work};
use crate::reconcile::Meshes;
use std::sync::Arc;
use store::{
    Backend, StoreError,
    view::{Feed, KindSet},
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Runs until `stop`, and then writes down the last of it.
pub(super) async fn run<B: Backend>(
    registry: Arc<Registry>,
    meshes: Meshes,
    store: B,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    registry.remember();
    let dataplanes = KindSet::default().with(registry.shelf.ids.dataplane);
    let mut feed = Feed::of(&registry.shelf.reader, dataplanes);
    // Before proxies are let in they cannot come back, so none is missed.
    let mut opened = Box::pin(meshes.opened());
    let mut open = false;
    loop {
        write(&registry, &store).await?;
        tokio::select! {
            biased;
            () = stop.cancelled() => return write(&registry, &store).await,
            () = &mut opened, if !open => {
                open = true;
                registry.opened();
            }
            () = registry.dirty.notified() => {}
            updates = feed.next() => {
                let updates = updates.map_err(|_| StoreError::Closed)?;
                for gone in updates.iter().filter(|update| update.now.is_none()) {
                    registry.deleted(&gone.key);
                }
            }
            () = until(registry.deadline().filter(|_| open)) => {
                if let Some(held) = registry.look() {
                    tracing::error!(
                        away = held.away,
                        of = held.of,
                        "most proxies vanished together: none is withdrawn until they are back"
                    );
                }
            }
        }
    }
}

/// What several proxies said since the last time is one batch.
async fn write<B: Backend>(registry: &Registry, store: &B) -> Result<(), StoreError> {
    let Work { items, waiting } = registry.work();
    if !items.is_empty() {
        let committed = store.commit(items).await?;
        store.wait_for(committed.revision).await?;
    }
    for waiting in waiting {
        // Who does not wait any more needs no answer.
        let _sent = waiting.send(());
    }
    Ok(())
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
