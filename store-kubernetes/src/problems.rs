//! What is wrong with objects of the cluster, for those who say it to their owners.

use super::place::Unreadable;
use parking_lot::Mutex;
use std::{collections::BTreeMap, fmt, sync::Arc};
use tokio::sync::watch;

/// Names an object of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// The group and version.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// `None` for objects of the whole cluster.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// Tells it from another one that had the name before.
    pub uid: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No resource could be made of it as it is now, and why.
    NotTaken(Arc<str>),
    /// It has fields that nobody here reads, and which.
    UnknownFields(Arc<str>),
}

/// The objects with which something is wrong. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    all: Arc<Mutex<BTreeMap<ObjectRef, Problem>>>,
    changed: watch::Sender<()>,
}

impl From<Unreadable> for Problem {
    fn from(unreadable: Unreadable) -> Self {
        Self::NotTaken(unreadable.0.into())
    }
}

impl Problems {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> BTreeMap<ObjectRef, Problem> {
        self.all.lock().clone()
    }

    /// Tells whenever there are others.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How many objects are not taken.
    pub(crate) fn not_taken(&self) -> usize {
        let all = self.all.lock();
        all.values().filter(|it| matches!(it, Problem::NotTaken(_))).count()
    }

    pub(crate) fn set(&self, object: ObjectRef, problem: Problem) {
        let mut all = self.all.lock();
        if all.get(&object) == Some(&problem) {
            return;
        }
        match &problem {
            Problem::NotTaken(reason) => {
                tracing::warn!(%object, %reason, "object is not taken as it is");
            }
            Problem::UnknownFields(fields) => {
                tracing::warn!(%object, %fields, "object has fields that nobody here reads");
            }
        }
        all.insert(object, problem);
        drop(all);
        self.changed.send_replace(());
    }

    pub(crate) fn clear(&self, object: &ObjectRef) {
        if self.all.lock().remove(object).is_some() {
            tracing::info!(%object, "nothing is wrong with the object any more");
            self.changed.send_replace(());
        }
    }
}
