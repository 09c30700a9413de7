//! The section `store` of a control plane's configuration.

use super::{Kinds, Local, Memory, OpenFileError, StoreError, local};
use daemon::Clock;
use serde::{Deserialize, Serialize};
use std::{future::Future, path::Path, pin::Pin};

/// How resources are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// `embedded`, `memory` or `kubernetes`.
    #[serde(rename = "type")]
    pub kind: StoreKind,
}

/// Where resources are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StoreKind {
    /// In a file of the data directory; durable.
    #[default]
    Embedded,
    /// Nowhere: gone with the process.
    Memory,
    /// As objects of the cluster that a zone is.
    Kubernetes,
}

/// Writes until every handle of the store is gone.
pub type Writing = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

impl Config {
    /// Opens the store that is set if it is a file in `folder` or none. Nothing is written before the writer runs.
    pub async fn open(
        &self,
        folder: &Path,
        kinds: &Kinds,
        clock: &Clock,
    ) -> Result<(Local, Writing), OpenFileError> {
        let (kinds, clock) = (kinds.clone(), clock.clone());
        Ok(match self.kind {
            StoreKind::Embedded => {
                let (store, writer) =
                    local::open_file(folder.join("store.redb"), kinds, clock).await?;
                (store, Box::pin(writer.run_on_thread()) as Writing)
            }
            StoreKind::Memory => {
                let (store, writer) = local::open(Memory::new(fastrand::u64(..)), kinds, clock)?;
                (store, Box::pin(writer.run_on_thread()))
            }
            StoreKind::Kubernetes => return Err(OpenFileError::Elsewhere),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use resource::Peer;

    #[tokio::test]
    async fn only_the_embedded_store_leaves_a_file() {
        for (kind, file) in [(StoreKind::Embedded, true), (StoreKind::Memory, false)] {
            let folder = tempfile::tempdir().unwrap();
            let kinds = Kinds { list: Box::default(), peer: Peer::Zone };
            let config = Config { kind };
            let (store, writing) =
                config.open(folder.path(), &kinds, &Clock::system()).await.unwrap();
            assert_eq!(folder.path().join("store.redb").is_file(), file, "{kind:?}");
            drop(store);
            writing.await.unwrap();
        }
    }
}
