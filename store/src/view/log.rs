//! What happened to the resources of a kind, newest last.
//!
//! An entry says which resource changed and what it was *before*, without its spec. With that, a
//! reader that knows a revision can work out what any peer saw of the resource at that revision and
//! what it sees now, so nobody needs to remember what was sent to whom. It is also what makes a
//! deletion and a change of visibility the same thing: seen before, not seen now.
//!
//! The log is bounded: by `history`, or by a part of the rows if that is more. Who is further behind
//! is better served with everything.

use super::{Revision, Rows};
use resource::{Head, Resource, ResourceKey};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// What happened to a kind since a revision.
#[derive(Debug)]
pub enum Changes {
    /// This.
    Keys {
        /// The last revision that touched the kind.
        revision: Revision,
        /// Each key once, in order, however often it changed.
        changes: Vec<Change>,
    },
    /// Too much to know; look at everything.
    Lost,
}

/// What happened to one resource.
#[derive(Debug)]
pub struct Change {
    /// Its name here.
    pub key: ResourceKey,
    /// What it was at the revision asked for; `None` if it was not there.
    pub before: Option<Arc<Head>>,
    /// What it is now; `None` if it is gone.
    pub now: Option<Arc<Resource>>,
}

/// What is known of the past of one resource.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Every change after this revision is known.
    pub known_after: Revision,
    /// When it changed, newest first, and what it was before; `None` if it was not there.
    pub changes: Vec<(Revision, Option<Arc<Head>>)>,
    /// What it is now; `None` if it is not there.
    pub now: Option<Arc<Resource>>,
}

#[derive(Debug)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    /// Everything after this revision is in `entries`.
    complete_after: Revision,
    /// Of the newest entry.
    revision: Revision,
    history: usize,
}

#[derive(Debug)]
struct Entry {
    revision: Revision,
    key: ResourceKey,
    before: Option<Arc<Head>>,
}

impl Log {
    pub(super) const fn new(revision: Revision, history: usize) -> Self {
        Self { entries: VecDeque::new(), complete_after: revision, revision, history }
    }

    pub(super) const fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn push(
        &mut self,
        revision: Revision,
        key: ResourceKey,
        before: Option<Arc<Head>>,
        rows: usize,
    ) {
        self.revision = revision;
        self.entries.push_back(Entry { revision, key, before });
        while self.entries.len() > self.history.max(rows / 4) {
            if let Some(oldest) = self.entries.pop_front() {
                self.complete_after = oldest.revision;
            }
        }
    }

    pub(super) fn history(&self, key: &ResourceKey, rows: &Rows) -> History {
        let of_key = self.entries.iter().rev().filter(|entry| entry.key == *key);
        History {
            known_after: self.complete_after,
            changes: of_key.map(|entry| (entry.revision, entry.before.clone())).collect(),
            now: rows.get(key).cloned(),
        }
    }

    pub(super) fn changes(&self, since: Revision, rows: &Rows) -> Changes {
        // A revision from the future is one of another life of the store; see `Epoch`.
        if since < self.complete_after || since > self.revision {
            return Changes::Lost;
        }
        let from = self.entries.partition_point(|entry| entry.revision <= since);
        let mut first = BTreeMap::new();
        for entry in self.entries.range(from..) {
            // Only the oldest entry knows what was there at `since`.
            first.entry(&entry.key).or_insert(&entry.before);
        }
        let changes = first
            .into_iter()
            .map(|(key, before)| Change {
                key: key.clone(),
                before: before.clone(),
                now: rows.get(key).cloned(),
            })
            .collect();
        Changes::Keys { revision: self.revision, changes }
    }
}
