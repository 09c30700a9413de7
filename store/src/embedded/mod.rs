//! The embedded store: one file, no server, durable on every acknowledged write.

#[cfg(test)]
mod damage;
#[cfg(test)]
mod endurance;
mod file;
mod mark;
mod open;
#[cfg(test)]
mod tests;

pub use self::open::{OpenError, OpenProblem};

use self::mark::{Mark, MarkFile};
use super::{
    Contents, Journal, Kinds, StoreError,
    view::{Edit, KindId, Loaded, Revision},
};
use bytes::Bytes;
use jiff::Timestamp;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use resource::{
    Audience, BoxError, Kind, Labels, MeshName, Peer, Resource, ResourceKey, Times, ZoneName,
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// Resources, by the name of their kind, mesh (empty for none) and name. Ids of kinds are of one
/// process; rows of a kind that this process does not know stay as they are.
const ROWS: TableDefinition<'_, (&str, &str, &str), Row<'_>> = TableDefinition::new("rows");
/// Facts about the store itself.
const FACTS: TableDefinition<'_, &str, u64> = TableDefinition::new("facts");
const EPOCH: &str = "epoch";
const FORMAT_FACT: &str = "format";
/// Of the tables here. Another number is another store.
const FORMAT: u64 = 1;
/// The last revision that touched a kind: what lets a peer resume after a restart of ours.
const REVISIONS: TableDefinition<'_, &str, u64> = TableDefinition::new("revisions");

/// Labels as JSON, spec, status, the audience as [`encode_audience`] has it, and microseconds since
/// 1970 of creation and last change.
type Row<'a> = (&'a str, &'a [u8], &'a [u8], &'a str, i64, i64);

/// A redb file.
#[derive(Debug)]
pub struct Embedded {
    path: PathBuf,
    database: Database,
    epoch: u64,
    /// A simulated disk has none.
    mark: Option<MarkFile>,
}

/// A read or write of a store file failed.
#[derive(Debug, thiserror::Error)]
#[error("store file {}", path.display())]
struct FileError {
    path: PathBuf,
    source: BoxError,
}

impl Embedded {
    fn try_load(&self, kinds: &Kinds) -> Result<Contents, redb::Error> {
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
            Ok::<_, redb::Error>(loaded)
        };
        let mut revision = Revision::default();
        for entry in revisions.iter()? {
            revision = revision.max(Revision(entry?.1.value()));
        }
        let kinds: Result<_, _> = kinds.iter().map(|(_, kind)| load(kind)).collect();
        Ok(Contents { kinds: kinds?, revision })
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
                        let head = &row.head;
                        let labels = encode_labels(&head.labels);
                        let audience = encode_audience(&head.audience);
                        let created = head.times.created.as_microsecond();
                        let modified = head.times.modified.as_microsecond();
                        let row =
                            (&*labels, &*row.spec, &*row.status, &*audience, created, modified);
                        rows.insert(at(kind, &head.key), row)?;
                    }
                    Edit::Delete(key) => drop(rows.remove(at(kind, key))?),
                }
            }
        }
        write.commit()?;
        if let Some(mark) = &self.mark {
            mark.write(Mark { epoch: self.epoch, revision })?;
        }
        Ok(())
    }

    fn failed(&self, error: redb::Error) -> StoreError {
        let error = FileError { path: self.path.clone(), source: error.into() };
        StoreError::Storage(Arc::new(error))
    }
}

impl Journal for Embedded {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn load(&mut self, kinds: &Kinds) -> Result<Contents, StoreError> {
        self.try_load(kinds).map_err(|error| self.failed(error))
    }

    fn write(
        &mut self,
        kinds: &Kinds,
        revision: Revision,
        edits: &[(KindId, Edit)],
    ) -> Result<(), StoreError> {
        self.try_write(kinds, revision, edits).map_err(|error| self.failed(error))
    }
}

fn at<'a>(kind: &'a str, key: &'a ResourceKey) -> (&'a str, &'a str, &'a str) {
    (kind, key.mesh.as_ref().map_or("", MeshName::as_str), &key.name)
}

fn encode_labels(labels: &Labels) -> String {
    serde_json::to_string(&labels.iter().collect::<BTreeMap<_, _>>())
        .expect("a map of strings is JSON")
}

/// What cannot be derived from the resource alone, because other resources decided about it: `-`
/// if it is hidden, `+` if not, its owner, and after `;` the zones that it is limited to.
fn encode_audience(Audience { owner, needs: _, hidden, only }: &Audience) -> String {
    let owner = owner.as_ref().map_or("", ZoneName::as_str);
    let mut text = format!("{}{owner}", if *hidden { '-' } else { '+' });
    if let Some(zones) = only {
        let zones: Vec<&str> = zones.iter().map(ZoneName::as_str).collect();
        text.push(';');
        text.push_str(&zones.join(","));
    }
    text
}

fn decode_audience(text: &str, derived: Audience) -> Audience {
    let (owner, zones) = match text.split_once(';') {
        Some((owner, zones)) => (owner, Some(zones)),
        None => (text, None),
    };
    let named =
        |zones: &str| zones.split(',').filter_map(|name| ZoneName::new(name).ok()).collect();
    let only = zones.map(named).or(derived.only);
    let owner = ZoneName::new(owner.get(1..).unwrap_or_default()).ok();
    Audience { owner, needs: derived.needs, hidden: !text.starts_with('+'), only }
}

/// What this version of the program cannot read stays as it is and whose it is, so that its owner
/// can replace it; but nobody is sent it: what may leave is decided by looking at the spec.
fn decode(kind: &Kind, peer: Peer, key: ResourceKey, row: Row<'_>) -> Resource {
    let (labels, spec, status, audience, created, modified) = row;
    let (spec, status) = (Bytes::copy_from_slice(spec), Bytes::copy_from_slice(status));
    let unreadable = |labels: Labels, derived: Audience, error: &dyn std::fmt::Display| {
        tracing::error!(kind = kind.name, %key, %error, "stored resource is unreadable");
        let audience = decode_audience(audience, derived);
        Resource::new(key.clone(), labels, spec.clone(), status.clone(), audience).unreadable()
    };
    let resource = match serde_json::from_str::<BTreeMap<String, String>>(labels) {
        Err(error) => unreadable(Labels::default(), Audience::default(), &error),
        Ok(labels) => {
            let labels: Labels = labels.iter().map(|(key, value)| (&**key, &**value)).collect();
            let (spec, status) = (spec.clone(), status.clone());
            match kind.resource(key.clone(), labels.clone(), spec, status, peer) {
                Err(error) => unreadable(labels, Audience::default(), &error),
                Ok(resource) => {
                    let audience = decode_audience(audience, resource.head.audience.clone());
                    resource.shown_to(audience)
                }
            }
        }
    };
    let time = |micros| Timestamp::from_microsecond(micros).unwrap_or_default();
    resource.written(Times { created: time(created), modified: time(modified) })
}
