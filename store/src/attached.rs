//! A store whose writer is not ours: what is kept lives elsewhere, and others change it too.
//!
//! Such a writer owns the [`Writer`] of the view. It answers requests in whatever order it can, and
//! puts into the view what it wrote as well as what it heard of others.

use super::{
    Committed, Contents, Item, Local, StoreError,
    local::{HISTORY, Request},
    view::{Reader, Writer, view_at},
};
use std::sync::{Arc, OnceLock};
use tokio::sync::{mpsc, oneshot};

/// How many batches may wait.
const WAITING: usize = 256;

/// The ends of such a store.
#[derive(Debug)]
pub struct Attached {
    /// For everybody.
    pub store: Local,
    /// What everybody asks.
    pub asked: Requests,
    /// Changes what everybody sees.
    pub view: Writer,
}

/// What is asked of the writer of an attached store.
#[derive(Debug)]
pub struct Requests {
    waiting: mpsc::Receiver<Request>,
    failure: Arc<OnceLock<StoreError>>,
}

/// Who waits for what became of a batch.
#[derive(Debug)]
pub struct Waiting {
    done: oneshot::Sender<Result<Committed, StoreError>>,
}

/// A store that begins with `contents`. `epoch` names its history.
#[must_use]
pub fn attach(contents: Contents, epoch: u64) -> Attached {
    let (view, reader) = view_at(contents.revision, contents.kinds, HISTORY);
    let (sender, waiting) = mpsc::channel(WAITING);
    let failure = Arc::<OnceLock<StoreError>>::default();
    let store = Local::of(sender, reader, epoch, failure.clone());
    Attached { store, asked: Requests { waiting, failure }, view }
}

impl Requests {
    /// The next batch; `None` when every handle of the store is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<(Vec<Item>, Waiting)> {
        let Request { batch, done } = self.waiting.recv().await?;
        Some((batch, Waiting { done }))
    }

    /// Tells everybody who asks from now on, and finds the writer gone, why.
    pub fn fail(&self, error: &StoreError) {
        self.failure.get_or_init(|| error.clone());
    }
}

impl Waiting {
    /// Says what became of the batch.
    pub fn answer(self, committed: Result<Committed, StoreError>) {
        // Who asked may have left; what it asked for is done nevertheless.
        self.done.send(committed).ok();
    }

    /// Whether nobody waits any more.
    #[must_use]
    pub fn left(&self) -> bool {
        self.done.is_closed()
    }
}

impl Attached {
    /// What everybody sees.
    #[must_use]
    pub fn reader(&self) -> Reader {
        use super::Backend as _;
        self.store.reader()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Backend as _, Outcome,
        conformance::{SAMPLES, key, kinds, put, resource},
        view::{Edit, Revision},
    };
    use resource::Version;
    use view::Loaded;

    use crate::view;

    fn empty() -> Contents {
        let kinds = kinds().iter().map(|_| Loaded::default()).collect();
        Contents { kinds, revision: Revision(7) }
    }

    #[tokio::test]
    async fn who_commits_waits_for_the_writer_and_sees_what_others_wrote() {
        let Attached { store, mut asked, view } = attach(empty(), 3);
        assert_eq!((store.epoch(), store.reader().revision()), (3, Revision(7)));
        let writer = async {
            let (batch, waiting) = asked.next().await.unwrap();
            assert_eq!(batch.len(), 1);
            let theirs = view.apply([(SAMPLES, Edit::Put(resource("theirs", "1")))]);
            assert!(theirs > Revision(7));
            let revision = view.apply(batch.into_iter().map(|item| (item.kind, item.edit)));
            waiting.answer(Ok(Committed { revision, outcomes: vec![Outcome::Done] }));
        };
        let (committed, ()) = tokio::join!(store.commit(vec![put("ours", "1")]), writer);
        assert_eq!(committed.unwrap().outcomes, [Outcome::Done]);
        let version = |name: &str| -> Option<Version> {
            store.reader().get(SAMPLES, &key(name)).map(|row| row.head.version)
        };
        assert!(version("ours").is_some() && version("theirs").is_some());
    }

    #[tokio::test]
    async fn without_a_writer_everybody_is_told_why() {
        let Attached { store, asked, .. } = attach(empty(), 3);
        asked.fail(&StoreError::Storage(Arc::new(std::io::Error::other("no API server"))));
        drop(asked);
        let error = store.commit(vec![put("a", "1")]).await.unwrap_err();
        assert!(matches!(error, StoreError::Storage(_)), "{error}");
    }
}
