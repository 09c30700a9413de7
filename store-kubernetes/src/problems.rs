//! What is wrong with objects of the cluster, for those who say it to their owners.

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

/// The objects of which no resource could be made as they are now, and why. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    all: Arc<Mutex<BTreeMap<ObjectRef, Arc<str>>>>,
    changed: watch::Sender<()>,
}

impl Problems {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> BTreeMap<ObjectRef, Arc<str>> {
        self.all.lock().clone()
    }

    /// Tells whenever there are others.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.lock().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn set(&self, object: ObjectRef, reason: String) {
        let mut all = self.all.lock();
        if all.get(&object).is_some_and(|known| **known == *reason) {
            return;
        }
        tracing::warn!(%object, reason, "object is not taken as it is");
        all.insert(object, reason.into());
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
