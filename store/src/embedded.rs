//! The embedded store: one file, no server, durable on every acknowledged write.

use super::{
    Journal, Kinds, StoreError,
    view::{Edit, KindId, Loaded, Revision},
};
use bytes::Bytes;
use jiff::Timestamp;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use resource::{Audience, Kind, Labels, MeshName, Peer, Resource, ResourceKey, Times};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Labels, spec, status, and when it was created and modified, by kind, mesh (empty for none) and name. Kinds by name: ids are of one process.
const ROWS: TableDefinition<'_, (&str, &str, &str), Row<'_>> = TableDefinition::new("rows");
/// Facts about the store itself.
const FACTS: TableDefinition<'_, &str, u64> = TableDefinition::new("facts");
const EPOCH: &str = "epoch";
/// The last revision that touched a kind: what lets a peer resume after a restart of ours.
const REVISIONS: TableDefinition<'_, &str, u64> = TableDefinition::new("revisions");

/// Labels as JSON, spec, status, and microseconds since 1970 of creation and last change.
type Row<'a> = (&'a str, &'a [u8], &'a [u8], i64, i64);

/// A redb file.
#[derive(Debug)]
pub struct Embedded {
    database: Database,
    epoch: u64,
}

impl Embedded {
    /// Opens or creates the file at `path`.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::checked(Database::create(path))
    }

    /// Opens what a simulated disk holds.
    pub fn open_on(disk: impl StorageBackend) -> Result<Self, StoreError> {
        Self::checked(Database::builder().create_with_backend(disk))
    }

    fn checked(opened: Result<Database, redb::DatabaseError>) -> Result<Self, StoreError> {
        let mut database = opened.map_err(|error| StoreError::Damaged(error.into()))?;
        // redb trusts its file. Without this look at every checksum a damaged page is found when
        // it is read, as a panic, or is not found at all.
        database.check_integrity().map_err(|error| StoreError::Damaged(error.into()))?;
        let epoch = epoch(&database).map_err(|error| StoreError::Storage(error.into()))?;
        Ok(Self { database, epoch })
    }

    fn try_load(&self, kinds: &Kinds) -> Result<Vec<Loaded>, redb::Error> {
        let read = self.database.begin_read()?;
        let (rows, revisions) = (read.open_table(ROWS)?, read.open_table(REVISIONS)?);
        let load = |kind: &Kind| {
            let mut loaded = Loaded::default();
            if let Some(revision) = revisions.get(kind.name)? {
                loaded.revision = Revision(revision.value());
            }
            for row in rows.range((kind.name, "", "")..)? {
                let (key, value) = row?;
                let ((name, mesh, resource), row) = (key.value(), value.value());
                if name != kind.name {
                    break;
                }
                let key = ResourceKey { mesh: MeshName::new(mesh).ok(), name: resource.into() };
                loaded.rows.insert(Arc::new(decode(kind, kinds.peer, key, row)));
            }
            Ok(loaded)
        };
        kinds.iter().map(|(_, kind)| load(kind)).collect()
    }

    fn try_write(
        &self,
        kinds: &Kinds,
        revision: Revision,
        edits: &[(KindId, Edit)],
    ) -> Result<(), redb::Error> {
        let names: BTreeMap<KindId, &str> =
            kinds.iter().map(|(id, kind)| (id, kind.name)).collect();
        // Durable on commit: redb's default, which the promise to the writer rests on.
        let write = self.database.begin_write()?;
        {
            let mut rows = write.open_table(ROWS)?;
            let mut revisions = write.open_table(REVISIONS)?;
            for (kind, edit) in edits {
                let Some(kind) = names.get(kind) else { continue };
                revisions.insert(kind, revision.0)?;
                match edit {
                    Edit::Put(row) => {
                        let key = &row.head.key;
                        let labels = encode_labels(&row.head.labels);
                        let Times { created, modified } = row.head.times;
                        let times = (created.as_microsecond(), modified.as_microsecond());
                        let row = (&*labels, &*row.spec, &*row.status, times.0, times.1);
                        rows.insert(at(kind, key), row)?;
                    }
                    Edit::Delete(key) => drop(rows.remove(at(kind, key))?),
                }
            }
        }
        write.commit()?;
        Ok(())
    }
}

/// The store's epoch; drawn if the file is new.
fn epoch(database: &Database) -> Result<u64, redb::Error> {
    let write = database.begin_write()?;
    write.open_table(ROWS)?;
    write.open_table(REVISIONS)?;
    let epoch = {
        let mut facts = write.open_table(FACTS)?;
        let known = facts.get(EPOCH)?.map(|epoch| epoch.value());
        let epoch = known.unwrap_or_else(|| fastrand::u64(1..));
        if known.is_none() {
            facts.insert(EPOCH, epoch)?;
        }
        epoch
    };
    write.commit()?;
    Ok(epoch)
}

impl Journal for Embedded {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn load(&mut self, kinds: &Kinds) -> Result<Vec<Loaded>, StoreError> {
        self.try_load(kinds).map_err(|error| StoreError::Storage(error.into()))
    }

    fn write(
        &mut self,
        kinds: &Kinds,
        revision: Revision,
        edits: &[(KindId, Edit)],
    ) -> Result<(), StoreError> {
        self.try_write(kinds, revision, edits).map_err(|error| StoreError::Storage(error.into()))
    }
}

fn at<'a>(kind: &'a str, key: &'a ResourceKey) -> (&'a str, &'a str, &'a str) {
    (kind, key.mesh.as_ref().map_or("", MeshName::as_str), &key.name)
}

fn encode_labels(labels: &Labels) -> String {
    serde_json::to_string(&labels.iter().collect::<BTreeMap<_, _>>())
        .expect("a map of strings is JSON")
}

/// What this version of the program cannot read stays, but nobody sees it: what may leave is
/// decided by looking at the spec.
fn decode(kind: &Kind, peer: Peer, key: ResourceKey, row: Row<'_>) -> Resource {
    let (labels, spec, status, created, modified) = row;
    let (spec, status) = (Bytes::copy_from_slice(spec), Bytes::copy_from_slice(status));
    let readable = serde_json::from_str::<BTreeMap<String, String>>(labels)
        .map_err(|error| error.to_string())
        .and_then(|labels| {
            let labels = labels.iter().map(|(key, value)| (&**key, &**value)).collect();
            let resource = kind.resource(key.clone(), labels, spec.clone(), status.clone(), peer);
            resource.map_err(|error| error.to_string())
        });
    let resource = readable.unwrap_or_else(|error| {
        tracing::error!(kind = kind.name, %key, error, "stored resource is unreadable");
        let nobody = Audience { hidden: true, ..Audience::default() };
        Resource::new(key, Labels::default(), spec, status, nobody)
    });
    let time = |micros| Timestamp::from_microsecond(micros).unwrap_or_default();
    resource.written(Times { created: time(created), modified: time(modified) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, conformance, open};
    use daemon::Clock;
    use std::fs;

    fn path(folder: &tempfile::TempDir) -> std::path::PathBuf {
        folder.path().join("store.redb")
    }

    #[tokio::test]
    async fn conforms() {
        let folder = tempfile::tempdir().unwrap();
        conformance::check(Embedded::open(&path(&folder)).unwrap()).await;
    }

    #[tokio::test]
    async fn content_and_revisions_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let kinds = conformance::kinds();
        let (store, writer) =
            open(Embedded::open(&path(&folder)).unwrap(), kinds.clone(), Clock::system()).unwrap();
        let committed = conformance::while_running(writer, async {
            store
                .commit(vec![conformance::put("a", "1s"), conformance::put("b", "1s")])
                .await
                .unwrap();
            store.commit(vec![conformance::delete("a")]).await.unwrap()
        })
        .await;
        let before = store.reader().get(conformance::SAMPLES, &conformance::key("b")).unwrap();
        drop(store);

        let (store, _writer) =
            open(Embedded::open(&path(&folder)).unwrap(), kinds, Clock::system()).unwrap();
        let (revision, rows) = store.reader().rows(conformance::SAMPLES);
        assert_eq!(revision, committed.revision);
        let after: Vec<_> = rows.iter().collect();
        assert_eq!(after.len(), 1);
        assert_eq!(after[0].head.key, before.head.key);
        assert_eq!(after[0].head.labels, before.head.labels);
        assert_eq!(after[0].head.version, before.head.version);
    }

    #[tokio::test]
    async fn a_damaged_file_is_refused_or_harmless_but_never_believed() {
        let folder = tempfile::tempdir().unwrap();
        let kinds = conformance::kinds();
        let (store, writer) =
            open(Embedded::open(&path(&folder)).unwrap(), kinds.clone(), Clock::system()).unwrap();
        let names: Vec<String> = (0..500).map(|i| format!("timeout-{i}")).collect();
        let batch = names.iter().map(|name| conformance::put(name, "1s")).collect();
        conformance::while_running(writer, store.commit(batch)).await.unwrap();
        drop(store);

        let whole = fs::read(path(&folder)).unwrap();
        let mut refused = 0;
        for at in (0..whole.len()).step_by(whole.len() / 97) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(path(&folder), damaged).unwrap();
            match Embedded::open(&path(&folder)) {
                Err(StoreError::Damaged(_)) => refused += 1,
                Err(error) => panic!("{error:?} at {at}"),
                Ok(mut journal) => {
                    let loaded = journal.load(&kinds).unwrap();
                    assert_eq!(loaded[0].rows.len(), names.len(), "silently lost, at {at}");
                }
            }
        }
        assert!(refused > 0, "no flipped bit hit a page in use");
    }
}
