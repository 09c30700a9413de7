//! Opens the store.

use crate::{Config, StoreKind};
use anyhow::{Context as _, Result};
use daemon::{Clock, Tasks};
use store::{Kinds, Local, Memory};

/// Opens the store that is set, whose writer becomes one of `tasks`.
pub(crate) async fn open_store(
    config: &Config,
    kinds: &Kinds,
    clock: &Clock,
    tasks: &mut Tasks,
) -> Result<Local> {
    match config.store.kind {
        StoreKind::Memory => {
            let journal = Memory::new(fastrand::u64(..));
            let (store, writer) = store::open(journal, kinds.clone(), clock.clone())?;
            tasks.spawn("store", async { Ok(writer.run_on_thread().await?) });
            Ok(store)
        }
        StoreKind::Embedded => {
            let path = config.data_dir.join("store.redb");
            let opened = store::open_file(path, kinds.clone(), clock.clone()).await;
            let (store, writer) = opened.context("store")?;
            tasks.spawn("store", async { Ok(writer.run_on_thread().await?) });
            Ok(store)
        }
    }
}
