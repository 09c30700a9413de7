//! What must be looked at again when a time has come.

use jiff::Timestamp;
use resource::ResourceKey;
use std::collections::{BTreeMap, BTreeSet};

/// One time for each resource, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_key: BTreeMap<ResourceKey, Timestamp>,
    by_time: BTreeSet<(Timestamp, ResourceKey)>,
}

impl Deadlines {
    /// Sets or takes away the time of `key`.
    pub(super) fn set(&mut self, key: &ResourceKey, time: Option<Timestamp>) {
        if let Some(old) = self.by_key.remove(key) {
            self.by_time.remove(&(old, key.clone()));
        }
        if let Some(time) = time {
            self.by_key.insert(key.clone(), time);
            self.by_time.insert((time, key.clone()));
        }
    }

    /// The earliest.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(time, _)| *time)
    }

    /// Takes one whose time has come.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<ResourceKey> {
        let (_, key) = self.by_time.first().filter(|(time, _)| *time <= now)?.clone();
        self.set(&key, None);
        Some(key)
    }
}
