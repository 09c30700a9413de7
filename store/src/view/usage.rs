//! How much there is of each zone. Kept with every change, so that nobody counts by listing.

use resource::{Resource, ZoneName};
use std::collections::BTreeMap;

/// How much of something there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resources.
    pub resources: u64,
    /// Bytes of their names, labels, specs and statuses.
    pub bytes: u64,
}

impl Usage {
    /// What one resource takes.
    #[must_use]
    pub fn of(row: &Resource) -> Self {
        let labels = row.head.labels.iter().map(|(key, value)| key.len() + value.len());
        let bytes =
            row.head.key.name.len() + labels.sum::<usize>() + row.spec.len() + row.status.len();
        Self { resources: 1, bytes: bytes as u64 }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            resources: self.resources.saturating_add(other.resources),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// What is left without `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self {
            resources: self.resources.saturating_sub(other.resources),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// By the zone that owns it.
#[derive(Debug, Default)]
pub(super) struct Usages(BTreeMap<ZoneName, Usage>);

impl Usages {
    pub(super) fn add(&mut self, row: &Resource) {
        if let Some(owner) = &row.head.audience.owner {
            let usage = self.0.entry(owner.clone()).or_default();
            *usage = usage.plus(Usage::of(row));
        }
    }

    pub(super) fn remove(&mut self, row: &Resource) {
        let Some(owner) = &row.head.audience.owner else { return };
        if let Some(usage) = self.0.get_mut(owner) {
            *usage = usage.minus(Usage::of(row));
            if usage.resources == 0 {
                self.0.remove(owner);
            }
        }
    }

    pub(super) fn of(&self, zone: &ZoneName) -> Usage {
        self.0.get(zone).copied().unwrap_or_default()
    }
}
