//! What is to be done for one item, by what is known now.

use super::{
    Job,
    memory::only_moves,
    request::{Ask, Write},
};
use crate::{
    cluster::Cluster,
    object::{chain, keep},
    place::ObjectName,
};
use jiff::Timestamp;
use resource::{Kind, Resource, ResourceKey, Times};
use std::sync::Arc;
use store::{Expected, Outcome, view::Edit};

/// What is to be done.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing more.
    Finish(Outcome),
    /// Something that the cluster need not know.
    Show(Edit),
    Ask(Ask),
}

impl Job {
    pub(super) fn decide(&self, cluster: &mut Cluster, kind: &Kind, now: Timestamp) -> Step {
        let found = cluster.reader.get(self.kind, &self.key);
        let version = found.as_ref().map(|row| row.head.version);
        let met = match self.expected {
            Expected::Anything => true,
            Expected::Nothing => version.is_none(),
            Expected::Version(expected) => version == Some(expected),
        };
        // What nobody answered may have been done: then what is there now is ours.
        if !met && !self.uncertain {
            return Step::Finish(Outcome::Conflict { found: version });
        }
        if cluster.shelf(self.kind).is_none() {
            return self.in_memory(found, now);
        }
        match &self.edit {
            Edit::Put(row) => {
                let moves = found.as_ref().is_some_and(|found| only_moves(kind, found, row));
                if self.quiet && moves {
                    if let Some(shelf) = cluster.shelf(self.kind) {
                        shelf.asked(&self.key, None);
                    }
                    return self.in_memory(found, now);
                }
                self.put(cluster, row, found, met)
            }
            Edit::Delete(key) => self.delete(cluster, key, found),
        }
    }

    fn unchanged(&self) -> Step {
        Step::Finish(if self.uncertain { Outcome::Done } else { Outcome::Unchanged })
    }

    fn in_memory(&self, found: Option<Arc<Resource>>, now: Timestamp) -> Step {
        let said = |row: &Resource| (row.head.version, row.head.audience.clone());
        match &self.edit {
            Edit::Put(row) if found.as_ref().is_some_and(|found| said(found) == said(row)) => {
                self.unchanged()
            }
            Edit::Put(row) => {
                let created = found.map_or(now, |found| found.head.times.created);
                let row = Resource::clone(row).written(Times { created, modified: now });
                Step::Show(Edit::Put(row.into()))
            }
            Edit::Delete(_) if found.is_none() => self.unchanged(),
            Edit::Delete(key) => Step::Show(Edit::Delete(key.clone())),
        }
    }

    fn put(
        &self,
        cluster: &mut Cluster,
        row: &Arc<Resource>,
        found: Option<Arc<Resource>>,
        met: bool,
    ) -> Step {
        let refused = |reason: &str| Step::Finish(Outcome::Refused { reason: reason.into() });
        if cluster.is_unknown(self.kind) {
            return refused("the cluster does not define the kind: `atoll install crds` does");
        }
        let Some(shelf) = cluster.shelf(self.kind) else { return refused("kept in memory") };
        let owner = shelf.owner(&self.key);
        let asked = (row.head.version, row.head.audience.clone());
        if owner.is_some_and(|(_, known)| !known.unreadable && known.asked.as_ref() == Some(&asked))
        {
            return self.unchanged();
        }
        let place = &shelf.place;
        let at = match owner {
            Some((name, _)) => name.clone(),
            None => {
                let home = place.home(&self.key, &row.head.labels);
                let taken = self.renamed || shelf.is_taken(&home, &self.key);
                if taken { place.otherwise(&self.key, &home) } else { home }
            }
        };
        let foreign = owner.and_then(|(_, known)| known.foreign.as_deref());
        let mut settled = match place.settle(row, &at, foreign) {
            Ok(settled) => settled,
            Err(error) => return refused(&chain(&error)),
        };
        if let Some(raw) = owner.and_then(|(_, known)| known.raw.as_deref())
            && let Some(before) = found.as_ref().and_then(|it| place.kind.to_json(&it.spec).ok())
        {
            settled.content = keep(settled.content, &before, raw);
        }
        let readable = owner.is_some_and(|(_, known)| !known.unreadable);
        let wanted = &settled.row.head;
        if let Some(found) = found.filter(|found| readable && found.head.version == wanted.version)
        {
            if found.head.audience != wanted.audience {
                let found = found.shown_to(wanted.audience.clone());
                return Step::Show(Edit::Put(found.into()));
            }
            let at = owner.map(|(_, known)| known.version.clone());
            shelf.asked(&self.key, at.map(|at| (asked, at)));
            return self.unchanged();
        }
        if !met {
            return Step::Finish(Outcome::Conflict { found: found_version(cluster, self) });
        }
        let wanted = Arc::new(settled.row.clone());
        let replaced = owner.map(|(_, known)| (&*known.uid, &*known.version));
        let object = place.object(settled, &at, foreign, replaced);
        let write = Box::new(Write { object, row: wanted });
        Step::Ask(match owner {
            Some(_) => Ask::Replace { at, write },
            None => Ask::Create { at, write },
        })
    }

    fn delete(
        &self,
        cluster: &mut Cluster,
        key: &ResourceKey,
        found: Option<Arc<Resource>>,
    ) -> Step {
        if found.is_none() {
            return self.unchanged();
        }
        let owner = cluster.shelf(self.kind).and_then(|shelf| {
            let (name, known) = shelf.owner(key)?;
            Some((name.clone(), known.uid.to_string(), known.version.to_string()))
        });
        let Some((at, uid, version)): Option<(ObjectName, _, _)> = owner else {
            return Step::Show(Edit::Delete(key.clone()));
        };
        let version = match self.expected {
            Expected::Version(_) => Some(version),
            Expected::Anything | Expected::Nothing => None,
        };
        Step::Ask(Ask::Delete { at, uid, version })
    }
}

fn found_version(cluster: &Cluster, job: &Job) -> Option<resource::Version> {
    cluster.reader.get(job.kind, &job.key).map(|row| row.head.version)
}
