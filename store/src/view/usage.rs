//! How much there is of each zone. Kept with every change, so that nobody counts by listing.

use super::KindId;
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
pub(super) struct Usages(BTreeMap<ZoneName, OfZone>);

#[derive(Debug, Default)]
struct OfZone {
    all: Usage,
    kinds: BTreeMap<KindId, Usage>,
}

impl Usages {
    pub(super) fn add(&mut self, kind: KindId, row: &Resource) {
        let Some(owner) = &row.head.audience.owner else { return };
        let (of_zone, more) = (self.0.entry(owner.clone()).or_default(), Usage::of(row));
        of_zone.all = of_zone.all.plus(more);
        let of_kind = of_zone.kinds.entry(kind).or_default();
        *of_kind = of_kind.plus(more);
    }

    pub(super) fn remove(&mut self, kind: KindId, row: &Resource) {
        let Some(owner) = &row.head.audience.owner else { return };
        let (Some(of_zone), less) = (self.0.get_mut(owner), Usage::of(row)) else { return };
        of_zone.all = of_zone.all.minus(less);
        if let Some(of_kind) = of_zone.kinds.get_mut(&kind) {
            *of_kind = of_kind.minus(less);
        }
        if of_zone.all.resources == 0 {
            self.0.remove(owner);
        }
    }

    pub(super) fn of(&self, zone: &ZoneName) -> Usage {
        self.0.get(zone).map_or_else(Usage::default, |of_zone| of_zone.all)
    }

    pub(super) fn of_kind(&self, zone: &ZoneName, kind: KindId) -> Usage {
        let of_kind = self.0.get(zone).and_then(|of_zone| of_zone.kinds.get(&kind));
        of_kind.copied().unwrap_or_default()
    }
}
