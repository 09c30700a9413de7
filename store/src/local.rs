//! A backend of one process: one writer, group commit.
//!
//! Only the writer changes the view, so the view is what conditions are checked against and the
//! journal is never read after it was loaded. While a group is being made durable the next one
//! gathers in the queue; nobody waits for a timer. Those who were answered together often come back
//! together: the writer lets them run before it begins with the first of them.

use super::{
    Backend, Committed, Embedded, Expected, Item, Kinds, OpenError, Outcome, StoreError,
    view::{self, Edit, KindId, Loaded, Reader, Revision, Writer, view_at},
};
use daemon::Clock;
use jiff::Timestamp;
use resource::{Resource, ResourceKey, Times};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, OnceLock},
};
use tokio::{
    sync::{mpsc, oneshot},
    task,
};

/// What a journal holds.
#[derive(Debug)]
pub struct Contents {
    /// By kind, in the order of [`Kinds`].
    pub kinds: Vec<Loaded>,
    /// The last revision of all, also of kinds that are not asked for: revisions never go back.
    pub revision: Revision,
}

/// Makes groups of changes durable. Owned by one writer; blocks.
pub trait Journal: Send {
    /// Names the history; drawn anew by a journal that begins empty.
    fn epoch(&self) -> u64;

    /// Everything there is of `kinds`.
    fn load(&mut self, kinds: &Kinds) -> Result<Contents, StoreError>;

    /// Makes `edits` and the revision they get durable, all or nothing.
    fn write(
        &mut self,
        kinds: &Kinds,
        revision: Revision,
        edits: &[(KindId, Edit)],
    ) -> Result<(), StoreError>;
}

/// What somebody wants written.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) batch: Vec<Item>,
    pub(super) done: oneshot::Sender<Result<Committed, StoreError>>,
}

/// The handle that commits. Cloneable.
#[derive(Clone, Debug)]
pub struct Local {
    requests: mpsc::Sender<Request>,
    reader: Reader,
    epoch: u64,
    failure: Arc<OnceLock<StoreError>>,
}

/// The one that writes. It must run for commits to return.
pub struct LocalWriter<J> {
    journal: J,
    kinds: Kinds,
    clock: Clock,
    requests: mpsc::Receiver<Request>,
    view: Writer,
    reader: Reader,
    /// Why nothing can be written any more, for those who come later.
    failure: Arc<OnceLock<StoreError>>,
}

impl<J> std::fmt::Debug for LocalWriter<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalWriter").field("view", &self.view).finish_non_exhaustive()
    }
}

// Bounds how long the first of a group waits for the last.
const GROUP: usize = 256;
/// How often the writer lets others run before it goes on without them: some microseconds when
/// nobody has anything to do, and little beside what a disk takes.
const YIELDS: usize = 100;
/// How many changes of each kind a view remembers.
pub(super) const HISTORY: usize = 4096;

/// Loads what `journal` holds.
pub fn open<J: Journal>(
    mut journal: J,
    kinds: Kinds,
    clock: Clock,
) -> Result<(Local, LocalWriter<J>), StoreError> {
    let contents = journal.load(&kinds)?;
    let (view, reader) = view_at(contents.revision, contents.kinds, HISTORY);
    let (sender, requests) = mpsc::channel(GROUP);
    let (epoch, failure) = (journal.epoch(), Arc::default());
    let local =
        Local { requests: sender, reader: reader.clone(), epoch, failure: Arc::clone(&failure) };
    Ok((local, LocalWriter { journal, kinds, clock, requests, view, reader, failure }))
}

/// A store file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenFileError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It could not be read.
    #[error(transparent)]
    Load(#[from] StoreError),
    /// The program ends.
    #[error("loading the store was given up")]
    Cancelled,
    /// It is no file.
    #[error("type: kubernetes is for zones that are Kubernetes clusters")]
    Elsewhere,
}

/// Opens or creates the file at `path` and loads it, without blocking the runtime.
pub async fn open_file(
    path: PathBuf,
    kinds: Kinds,
    clock: Clock,
) -> Result<(Local, LocalWriter<Embedded>), OpenFileError> {
    let opened = task::spawn_blocking(move || Ok(open(Embedded::open(&path)?, kinds, clock)?));
    opened.await.map_err(|_| OpenFileError::Cancelled)?
}

impl<J: Journal> LocalWriter<J> {
    /// Writes until every [`Local`] is gone. Blocks while the journal does: a program calls
    /// [`LocalWriter::run_on_thread`]. Meant for simulations and tests, where the writer is polled
    /// in place: the disk is simulated too and threads would make runs differ.
    pub async fn run(mut self) -> Result<(), StoreError> {
        while let Some(first) = self.requests.recv().await {
            let mut group = vec![first];
            self.gather(&mut group);
            self.commit_group(group)?;
        }
        Ok(())
    }

    /// Writes on a thread of its own until every [`Local`] is gone. Meant for
    /// [`daemon::Tasks`]: when it ends with an error, the store is of no use any more.
    pub async fn run_on_thread(mut self) -> Result<(), StoreError>
    where
        J: 'static,
    {
        let writing = task::spawn_blocking(move || {
            // About how many there were.
            let mut before: usize = 0;
            while let Some(first) = self.requests.blocking_recv() {
                let mut group = vec![first];
                self.gather(&mut group);
                for _ in 0..YIELDS {
                    if group.len() >= before {
                        break;
                    }
                    std::thread::yield_now();
                    self.gather(&mut group);
                }
                before = group.len().max(before - before.div_ceil(8));
                self.commit_group(group)?;
            }
            Ok(())
        });
        writing.await.unwrap_or_else(|error| Err(StoreError::Storage(Arc::new(error))))
    }

    /// Adds those who wait.
    fn gather(&mut self, group: &mut Vec<Request>) {
        while group.len() < GROUP
            && let Ok(next) = self.requests.try_recv()
        {
            group.push(next);
        }
    }

    fn commit_group(&mut self, group: Vec<Request>) -> Result<(), StoreError> {
        let (mut waiting, mut batches) = (Vec::new(), Vec::new());
        for Request { batch, done } in group {
            waiting.push(done);
            batches.push(batch);
        }
        match self.commit(batches) {
            Ok((revision, outcomes)) => {
                for (done, outcomes) in waiting.into_iter().zip(outcomes) {
                    // Who asked may have left; what it asked for is done nevertheless.
                    done.send(Ok(Committed { revision, outcomes })).ok();
                }
                Ok(())
            }
            Err(error) => {
                self.failure.get_or_init(|| error.clone());
                for done in waiting {
                    done.send(Err(error.clone())).ok();
                }
                Err(error)
            }
        }
    }

    fn commit(
        &mut self,
        batches: Vec<Vec<Item>>,
    ) -> Result<(Revision, Vec<Vec<Outcome>>), StoreError> {
        let now = self.clock.now();
        // As precise as a journal keeps it: a time must not change when the store is loaded again.
        let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        let (rows, edits) = (BTreeMap::new(), Vec::new());
        let mut pending = Pending { reader: &self.reader, now, rows, edits };
        let mut decide =
            |batch: Vec<Item>| batch.into_iter().map(|item| pending.decide(item)).collect();
        let outcomes = batches.into_iter().map(&mut decide).collect();
        let edits = pending.edits;
        if edits.is_empty() {
            return Ok((self.reader.revision(), outcomes));
        }
        let next = Revision(self.reader.revision().0 + 1);
        self.journal.write(&self.kinds, next, &edits)?;
        Ok((self.view.apply(edits), outcomes))
    }
}

/// A group on top of the view: a request sees what those before it in the group did.
struct Pending<'a> {
    reader: &'a Reader,
    now: Timestamp,
    rows: BTreeMap<(KindId, ResourceKey), Option<Arc<Resource>>>,
    edits: Vec<(KindId, Edit)>,
}

impl Pending<'_> {
    fn decide(&mut self, Item { kind, expected, edit }: Item) -> Outcome {
        let (key, after) = match &edit {
            Edit::Put(row) => (row.head.key.clone(), Some(row.clone())),
            Edit::Delete(key) => (key.clone(), None),
        };
        let here = (kind, key);
        let before = match self.rows.get(&here) {
            Some(row) => row.clone(),
            None => self.reader.get(kind, &here.1),
        };
        let found = before.as_ref().map(|row| row.head.version);
        let met = match expected {
            Expected::Anything => true,
            Expected::Nothing => found.is_none(),
            Expected::Version(version) => found == Some(version),
        };
        if !met {
            return Outcome::Conflict { found };
        }
        let said = |row: &Option<Arc<Resource>>| {
            row.as_ref().map(|row| (row.head.version, row.head.audience.clone()))
        };
        if said(&before) == said(&after) {
            return Outcome::Unchanged;
        }
        let edit = match edit {
            Edit::Put(row) => {
                let created = before.map_or(self.now, |before| before.head.times.created);
                let row = Arc::unwrap_or_clone(row).written(Times { created, modified: self.now });
                Edit::Put(Arc::new(row))
            }
            Edit::Delete(key) => Edit::Delete(key),
        };
        let after = match &edit {
            Edit::Put(row) => Some(row.clone()),
            Edit::Delete(_) => None,
        };
        self.rows.insert(here, after);
        self.edits.push((kind, edit));
        Outcome::Done
    }
}

impl Local {
    pub(super) const fn of(
        requests: mpsc::Sender<Request>,
        reader: Reader,
        epoch: u64,
        failure: Arc<OnceLock<StoreError>>,
    ) -> Self {
        Self { requests, reader, epoch, failure }
    }
}

impl Backend for Local {
    async fn commit(&self, batch: Vec<Item>) -> Result<Committed, StoreError> {
        let (done, committed) = oneshot::channel();
        let request = Request { batch, done };
        let closed = || self.failure.get().cloned().unwrap_or(StoreError::Closed);
        self.requests.send(request).await.map_err(|_| closed())?;
        committed.await.map_err(|_| closed())?
    }

    async fn wait_for(&self, revision: Revision) -> Result<(), StoreError> {
        let mut reader = self.reader();
        reader.wait_for(revision).await.map_err(|view::Closed| StoreError::Closed)
    }

    fn reader(&self) -> Reader {
        self.reader.clone()
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Memory,
        conformance::{SAMPLES, clock, kept, kinds, put},
    };

    /// A disk with room for so many groups.
    struct Full(Memory, usize);

    impl Journal for Full {
        fn epoch(&self) -> u64 {
            self.0.epoch()
        }

        fn load(&mut self, kinds: &Kinds) -> Result<Contents, StoreError> {
            self.0.load(kinds)
        }

        fn write(
            &mut self,
            kinds: &Kinds,
            revision: Revision,
            edits: &[(KindId, Edit)],
        ) -> Result<(), StoreError> {
            let full = || StoreError::Storage(Arc::new(std::io::Error::other("full")));
            self.1 = self.1.checked_sub(1).ok_or_else(full)?;
            self.0.write(kinds, revision, edits)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_made_durable_is_not_shown_and_everybody_later_is_told_why() {
        let (store, writer) = open(Full(Memory::new(1), 1), kinds(), clock()).unwrap();
        let asking = async {
            store.commit(vec![put("a", "1")]).await.unwrap();
            let before = kept(&store, SAMPLES);
            let refused = store.commit(vec![put("a", "2"), put("b", "1")]).await;
            assert!(kept(&store, SAMPLES) == before, "something of it can be read");
            [refused, store.commit(vec![put("a", "3")]).await]
        };
        let (ended, told) = tokio::join!(writer.run(), asking);
        let ended = ended.unwrap_err();
        for told in told {
            let error = told.unwrap_err();
            assert!(matches!(error, StoreError::Storage(_)), "{error}");
            assert_eq!(error.to_string(), ended.to_string());
        }
    }
}
