//! A revisioned view over a backend.
//!
//! `commit` is the only way in, [`view::Reader`] the only way out. A commit is a batch: what it
//! changes has one revision and is seen together, and it says of each item what became of it.

mod attached;
mod config;
#[expect(clippy::unwrap_used, reason = "tests, which the crates of other backends run too")]
pub mod conformance;
mod embedded;
mod local;
mod memory;
mod names;
pub mod table;
pub mod view;

pub use self::{
    attached::{Attached, Requests, Waiting, attach},
    config::{Config, StoreKind, Writing},
    embedded::{Embedded, OpenError, OpenProblem},
    local::{Contents, Journal, Local, LocalWriter, OpenFileError, open, open_file},
    memory::Memory,
};

use self::view::{Edit, KindId, Revision};
use resource::{Kind, Peer, Version};
use std::{error::Error, future::Future, sync::Arc};

/// The kinds of a control plane, and the sort of peer its resources are offered to.
#[derive(Clone, Debug)]
pub struct Kinds {
    /// A kind's id is its place here.
    pub list: Box<[Kind]>,
    /// Global offers to zones, a zone to global.
    pub peer: Peer,
}

impl Kinds {
    /// Every kind with its id.
    pub fn iter(&self) -> impl Iterator<Item = (KindId, &Kind)> {
        self.list.iter().enumerate().filter_map(|(index, kind)| Some((KindId::new(index)?, kind)))
    }

    /// The id of the kind called `name`.
    #[must_use]
    pub fn id_of(&self, name: &str) -> Option<KindId> {
        self.iter().find(|(_, kind)| kind.name == name).map(|(id, _)| id)
    }
}

/// What must be there for an item to be done: the answer to `If-Match` and to lost updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there.
    Anything,
    /// Nothing is there.
    Nothing,
    /// This content is there. A content hash suffices: who saw the same content decides the same.
    Version(Version),
}

/// One step of a commit.
#[derive(Clone, Debug)]
pub struct Item {
    /// The kind of the resource.
    pub kind: KindId,
    /// The condition.
    pub expected: Expected,
    /// The change.
    pub edit: Edit,
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable and can be read.
    Done,
    /// It was so already; nobody hears of it.
    Unchanged,
    /// Something else was there.
    Conflict {
        /// This, or nothing.
        found: Option<Version>,
    },
    /// Where it is kept it is not taken, and trying again does not help; what was there is there
    /// still. Stores of our own never say so.
    Refused {
        /// In the words of who refuses.
        reason: Arc<str>,
    },
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Readers that reached it see the batch.
    pub revision: Revision,
    /// In the order of the items. A conflict of one holds back no other.
    pub outcomes: Vec<Outcome>,
}

/// Nothing can be said about the batch: it may be there or not.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The writer ended.
    #[error("the store is closed")]
    Closed,
    /// The disk or the server failed. The same error for all who waited or come later, and for who
    /// runs the writer.
    #[error("storage failed")]
    Storage(#[source] Arc<dyn Error + Send + Sync>),
}

/// Where resources are kept.
pub trait Backend: Send + Sync {
    /// Makes a batch durable, then visible.
    fn commit(
        &self,
        batch: Vec<Item>,
    ) -> impl Future<Output = Result<Committed, StoreError>> + Send;

    /// Waits until readers here see `revision`. Returns at once unless another process committed it.
    fn wait_for(&self, revision: Revision) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What is kept.
    fn reader(&self) -> view::Reader;

    /// Names the history of this store. Drawn anew when a store is made or restored, so that a peer
    /// that remembers a place of another history notices.
    fn epoch(&self) -> u64;
}
