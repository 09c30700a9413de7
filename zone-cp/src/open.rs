//! Opens the store.

use crate::{Config, config::StoreKind};
use anyhow::{Context, Result};
use daemon::Clock;
use std::pin::Pin;
use store::{Kinds, Local, Memory, StoreError};

/// Writes until every handle of the store is gone.
pub(crate) type Writer = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// Opens the store that is set. Nothing is written before its writer runs.
pub(crate) async fn open_store(
    config: &Config,
    kinds: &Kinds,
    clock: &Clock,
) -> Result<(Local, Writer)> {
    Ok(match config.store.kind {
        StoreKind::Embedded => {
            let file = config.data_dir.join("store.redb");
            let opened = store::open_file(file, kinds.clone(), clock.clone()).await;
            let (store, writer) = opened.context("store")?;
            (store, Box::pin(writer.run_on_thread()) as Writer)
        }
        StoreKind::Memory => {
            let memory = Memory::new(uuid::Uuid::new_v4().as_u64_pair().0);
            let (store, writer) = store::open(memory, kinds.clone(), clock.clone())?;
            (store, Box::pin(writer.run_on_thread()))
        }
    })
}
