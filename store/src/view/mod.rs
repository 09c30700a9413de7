//! What everybody reads: tables with a revision, and what changed since one.
//!
//! One [`Writer`] publishes batches; any number of [`Reader`]s look. A reader is told *that* a kind
//! changed, by a bit, and asks *what* changed since the revision it knows. Nothing is queued for a
//! reader, so a slow one costs nothing and misses nothing.
//!
//! A revision counts the batches of the whole view. A kind's own revision is that of the last
//! batch that touched it, so an idle kind keeps its revision, also over a restart.

mod feed;
mod interest;
mod log;
#[cfg(test)]
mod tests;
mod usage;

pub use self::{
    feed::{Feed, Update},
    interest::{KindId, KindSet, Watch},
    log::{Change, Changes, History},
    usage::Usage,
};

use self::{interest::Interests, log::Log, usage::Usages};
use super::table::{Keyed, Table};
use parking_lot::RwLock;
use resource::{Resource, ResourceKey, ZoneName};
use std::sync::Arc;
use tokio::sync::watch;

/// Counts the batches of a view; never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

impl Keyed for Resource {
    fn name(&self) -> &str {
        &self.head.key.name
    }

    type Key = ResourceKey;

    fn key(&self) -> &ResourceKey {
        &self.head.key
    }
}

/// The resources of a kind.
pub type Rows = Table<Resource>;

/// One step of a batch.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Adds or replaces.
    Put(Arc<Resource>),
    /// Removes.
    Delete(ResourceKey),
}

#[derive(Debug)]
struct Shelf {
    rows: Rows,
    log: Log,
}

#[derive(Debug)]
struct State {
    revision: Revision,
    shelves: Box<[Shelf]>,
    usages: Usages,
}

/// Holds the tables as they were at one revision.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts the batches it contains.
    pub revision: Revision,
    kinds: Box<[Rows]>,
}

impl Snapshot {
    /// The resources of `kind`.
    #[must_use]
    pub fn rows(&self, kind: KindId) -> &Rows {
        self.kinds.get(kind.index()).expect("a kind's id comes from the list the view was made of")
    }
}

/// The only handle that can change the view.
#[derive(Debug)]
pub struct Writer {
    state: Arc<RwLock<State>>,
    interests: Arc<Interests>,
    published: watch::Sender<Revision>,
}

/// A cheap, cloneable, read-only handle.
#[derive(Clone, Debug)]
pub struct Reader {
    state: Arc<RwLock<State>>,
    interests: Arc<Interests>,
    published: watch::Receiver<Revision>,
}

/// What a kind held when the process started.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Its resources.
    pub rows: Rows,
    /// The last revision that touched it.
    pub revision: Revision,
}

/// A view of `kinds`, as loaded. The log keeps at least `history` changes of each kind.
#[must_use]
pub fn view(kinds: impl IntoIterator<Item = Loaded>, history: usize) -> (Writer, Reader) {
    view_at(Revision::default(), kinds, history)
}

/// The same, with a revision of at least `at`: the store may have kinds that are not loaded.
#[must_use]
pub fn view_at(
    at: Revision,
    kinds: impl IntoIterator<Item = Loaded>,
    history: usize,
) -> (Writer, Reader) {
    let shelves: Box<[Shelf]> = kinds
        .into_iter()
        .map(|Loaded { rows, revision }| Shelf { rows, log: Log::new(revision, history) })
        .collect();
    let revision = shelves.iter().map(|shelf| shelf.log.revision()).fold(at, Revision::max);
    let mut usages = Usages::default();
    for (kind, shelf) in (0..).map_while(KindId::new).zip(&shelves) {
        shelf.rows.iter().for_each(|row| usages.add(kind, row));
    }
    let interests = Arc::new(Interests::of(shelves.len()));
    let (published, receiver) = watch::channel(revision);
    let state = Arc::new(RwLock::new(State { revision, shelves, usages }));
    let reader = Reader { state: state.clone(), interests: interests.clone(), published: receiver };
    (Writer { state, interests, published }, reader)
}

impl Writer {
    /// Publishes a batch: readers see all of it or nothing. Returns its revision.
    pub fn apply(&self, batch: impl IntoIterator<Item = (KindId, Edit)>) -> Revision {
        let mut touched = KindSet::default();
        let mut state = self.state.write();
        let revision = Revision(state.revision.0 + 1);
        state.revision = revision;
        for (kind, edit) in batch {
            let State { shelves, usages, .. } = &mut *state;
            let shelf = shelf_mut(shelves, kind);
            if let Edit::Put(row) = &edit {
                usages.add(kind, row);
            }
            let (key, before) = match edit {
                Edit::Put(row) => (row.head.key.clone(), shelf.rows.insert(row)),
                Edit::Delete(key) => {
                    let before = shelf.rows.remove(&key);
                    (key, before)
                }
            };
            before.iter().for_each(|row| usages.remove(kind, row));
            shelf.log.push(revision, key, before.map(|row| row.head.clone()), shelf.rows.len());
            touched = touched.with(kind);
        }
        drop(state);
        self.published.send_replace(revision);
        // After the lock: whoever wakes reads at once.
        self.interests.mark(touched);
        revision
    }
}

/// The writer is gone, so nothing will change any more.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the view is closed")]
pub struct Closed;

impl Drop for Writer {
    fn drop(&mut self) {
        self.interests.close();
    }
}

impl Reader {
    /// All tables as they are now. Free: the tables are shared until they change.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.read();
        let kinds = state.shelves.iter().map(|shelf| shelf.rows.clone()).collect();
        Snapshot { revision: state.revision, kinds }
    }

    /// The revision that can be read now.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state.read().revision
    }

    /// The table of `kind` as it is now, and the last revision that touched it.
    #[must_use]
    pub fn rows(&self, kind: KindId) -> (Revision, Rows) {
        let state = self.state.read();
        let shelf = state.shelf(kind);
        (shelf.log.revision(), shelf.rows.clone())
    }

    /// The resource `key` as it is now.
    #[must_use]
    pub fn get(&self, kind: KindId, key: &ResourceKey) -> Option<Arc<Resource>> {
        self.state.read().shelf(kind).rows.get(key).cloned()
    }

    /// How much there is of `zone`, of all kinds.
    #[must_use]
    pub fn usage(&self, zone: &ZoneName) -> Usage {
        self.state.read().usages.of(zone)
    }

    /// How much there is of a zone, of `kind` alone. Costs nothing.
    #[must_use]
    pub fn usage_of_kind(&self, zone: &ZoneName, kind: KindId) -> Usage {
        self.state.read().usages.of_kind(zone, kind)
    }

    /// What happened to `kind` after `since`. Costs what changed.
    #[must_use]
    pub fn changes(&self, kind: KindId, since: Revision) -> Changes {
        let state = self.state.read();
        let shelf = state.shelf(kind);
        shelf.log.changes(since, &shelf.rows)
    }

    /// What happened to the resource `key`, as far back as is known. Looks through the whole log of
    /// its kind, which is bounded.
    #[must_use]
    pub fn history(&self, kind: KindId, key: &ResourceKey) -> History {
        let state = self.state.read();
        let shelf = state.shelf(kind);
        shelf.log.history(key, &shelf.rows)
    }

    /// Tells from now on which of `kinds` changed.
    #[must_use]
    pub fn watch(&self, kinds: KindSet) -> Watch {
        Interests::watch(&self.interests, kinds)
    }

    /// Waits until what was committed at `revision` can be read here.
    pub async fn wait_for(&mut self, revision: Revision) -> Result<(), Closed> {
        self.published.wait_for(|now| *now >= revision).await.map(drop).map_err(|_| Closed)
    }
}

impl State {
    fn shelf(&self, kind: KindId) -> &Shelf {
        self.shelves
            .get(kind.index())
            .expect("a kind's id comes from the list the view was made of")
    }
}

fn shelf_mut(shelves: &mut [Shelf], kind: KindId) -> &mut Shelf {
    shelves.get_mut(kind.index()).expect("a kind's id comes from the list the view was made of")
}
