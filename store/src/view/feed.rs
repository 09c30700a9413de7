//! Follows some kinds: first everything they hold, then what changed.

use super::{Changes, Closed, KindId, KindSet, Reader, Revision, Rows, Watch};
use resource::{Head, Resource, ResourceKey};
use std::{collections::BTreeMap, sync::Arc};

/// What a resource is now.
#[derive(Clone, Debug)]
pub struct Update {
    /// Its kind.
    pub kind: KindId,
    /// Its name here.
    pub key: ResourceKey,
    /// What it was when this feed last told of its kind, or somewhat earlier.
    pub before: Option<Arc<Head>>,
    /// What it is now; `None` if it is gone.
    pub now: Option<Arc<Resource>>,
}

/// Tells one task what became of some kinds.
///
/// What it tells is never wrong and never missing, but it may tell something twice: whoever was so
/// slow that the log no longer reaches back is told of every difference from what it may have seen.
#[derive(Debug)]
pub struct Feed {
    reader: Reader,
    watch: Watch,
    seen: BTreeMap<KindId, Seen>,
    /// Kinds that have not been told of at all.
    new: KindSet,
}

#[derive(Debug, Default)]
struct Seen {
    revision: Revision,
    /// As they were at that revision, or before. Shares what did not change.
    rows: Rows,
}

impl Feed {
    /// Follows `kinds`.
    #[must_use]
    pub fn of(reader: &Reader, kinds: KindSet) -> Self {
        // Before anything is read: what changes from now on is marked.
        let watch = reader.watch(kinds);
        Self { reader: reader.clone(), watch, seen: BTreeMap::new(), new: kinds }
    }

    /// What changed since the last call; at the first call everything there is, which may be nothing.
    ///
    /// Cancel safe: what was read is returned in the same step.
    pub async fn next(&mut self) -> Result<Vec<Update>, Closed> {
        let dirty = if self.new.is_empty() {
            self.watch.dirty().await?
        } else {
            std::mem::take(&mut self.new)
        };
        Ok(dirty.iter().flat_map(|kind| self.read(kind)).collect())
    }

    fn read(&mut self, kind: KindId) -> Vec<Update> {
        let Some(seen) = self.seen.get_mut(&kind) else {
            let (revision, rows) = self.reader.rows(kind);
            let updates = difference(kind, &Rows::default(), &rows);
            self.seen.insert(kind, Seen { revision, rows });
            return updates;
        };
        // In this order: the rows are never newer than the changes that were told.
        let (_, rows) = self.reader.rows(kind);
        let updates = match self.reader.changes(kind, seen.revision) {
            Changes::Keys { revision, changes } => {
                seen.revision = revision;
                let update = |change: super::Change| Update {
                    kind,
                    key: change.key,
                    before: change.before,
                    now: change.now,
                };
                changes.into_iter().map(update).collect()
            }
            Changes::Lost => {
                let (revision, now) = self.reader.rows(kind);
                let updates = difference(kind, &seen.rows, &now);
                *seen = Seen { revision, rows: now };
                return updates;
            }
        };
        seen.rows = rows;
        updates
    }
}

fn difference(kind: KindId, old: &Rows, new: &Rows) -> Vec<Update> {
    let (mut updates, mut old) = (Vec::new(), old.iter().peekable());
    let gone = |row: &Arc<Resource>| Update {
        kind,
        key: row.head.key.clone(),
        before: Some(row.head.clone()),
        now: None,
    };
    for row in new.iter() {
        while let Some(before) = old.next_if(|before| before.head.key < row.head.key) {
            updates.push(gone(before));
        }
        let before = old.next_if(|before| before.head.key == row.head.key);
        if before.is_none_or(|before| !Arc::ptr_eq(before, row)) {
            updates.push(Update {
                kind,
                key: row.head.key.clone(),
                before: before.map(|before| before.head.clone()),
                now: Some(row.clone()),
            });
        }
    }
    updates.extend(old.map(gone));
    updates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{Edit, Loaded, Writer, view};
    use resource::{Audience, Labels};

    const HISTORY: usize = 4;

    fn two_kinds() -> (Writer, Reader, [KindId; 2]) {
        let (writer, reader) = view([Loaded::default(), Loaded::default()], HISTORY);
        (writer, reader, [KindId::FIRST, KindId::new(1).unwrap()])
    }

    fn put(name: &str, spec: &'static str) -> Edit {
        let (labels, audience) = (Labels::default(), Audience::default());
        let key = ResourceKey::global(name);
        Edit::Put(Arc::new(Resource::new(key, labels, spec.into(), "".into(), audience)))
    }

    fn delete(name: &str) -> Edit {
        Edit::Delete(ResourceKey::global(name))
    }

    /// What is there, by what was told.
    #[derive(Default)]
    struct Told(BTreeMap<(KindId, ResourceKey), bytes::Bytes>);

    impl Told {
        fn apply(&mut self, updates: Vec<Update>) {
            for Update { kind, key, now, .. } in updates {
                match now {
                    Some(row) => self.0.insert((kind, key), row.spec.clone()),
                    None => self.0.remove(&(kind, key)),
                };
            }
        }

        fn list(&self) -> Vec<String> {
            let spec = |spec: &bytes::Bytes| String::from_utf8(spec.to_vec()).unwrap();
            self.0.iter().map(|((_, key), it)| format!("{key}={}", spec(it))).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn everything_comes_first_and_then_what_changed() {
        let (writer, reader, [one, two]) = two_kinds();
        writer.apply([(one, put("a", "1")), (two, put("x", "1"))]);
        let mut feed = Feed::of(&reader, [one].into_iter().collect());
        let mut told = Told::default();
        told.apply(feed.next().await.unwrap());
        assert_eq!(told.list(), ["a=1"]);

        writer.apply([(two, put("x", "2"))]);
        writer.apply([(one, put("b", "1"))]);
        writer.apply([(one, delete("a")), (one, put("b", "2"))]);
        let updates = feed.next().await.unwrap();
        let keys: Vec<_> = updates.iter().map(|update| update.key.to_string()).collect();
        assert_eq!(keys, ["a", "b"], "each once, and nothing of another kind");
        assert!(updates[0].before.is_some() && updates[1].before.is_none());
        told.apply(updates);
        assert_eq!(told.list(), ["b=2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_kind_is_told_of_at_once() {
        let (_writer, reader, [one, two]) = two_kinds();
        let mut feed = Feed::of(&reader, [one, two].into_iter().collect());
        assert!(feed.next().await.unwrap().is_empty());
        let wait = std::time::Duration::from_secs(60);
        assert!(tokio::time::timeout(wait, feed.next()).await.is_err(), "nothing changed");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_far_behind_is_told_of_every_difference() {
        let (writer, reader, [one, _]) = two_kinds();
        writer.apply(["a", "b", "c", "z"].map(|name| (one, put(name, "1"))));
        let mut feed = Feed::of(&reader, [one].into_iter().collect());
        let mut told = Told::default();
        told.apply(feed.next().await.unwrap());
        for _ in 0..100 {
            writer.apply([(one, put("a", "2")), (one, put("d", "1"))]);
            writer.apply([(one, delete("b")), (one, delete("d"))]);
        }
        writer.apply([(one, put("e", "1")), (one, delete("z"))]);
        let updates = feed.next().await.unwrap();
        let keys: Vec<_> = updates.iter().map(|update| update.key.to_string()).collect();
        assert_eq!(keys, ["a", "b", "e", "z"]);
        told.apply(updates);
        assert_eq!(told.list(), ["a=2", "c=1", "e=1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_view_ends_the_feed() {
        let (writer, reader, [one, _]) = two_kinds();
        let mut feed = Feed::of(&reader, [one].into_iter().collect());
        assert!(feed.next().await.is_ok());
        drop(writer);
        assert_eq!(feed.next().await.map(|_| ()), Err(Closed));
    }
}
