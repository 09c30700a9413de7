//! How much a zone may have in global.
//!
//! What is over it is refused by name, and the rest is taken. What there is already stays, and may
//! be changed, as long as it does not grow over the quota, and deleted.

use crate::{
    apply::Applied,
    incoming::Incoming,
    limit::{OWN_ROW, WAITING, WAITING_BYTES},
    received::Received,
    refusal::Refusal,
};
use delta::Name;
use resource::{Resource, ResourceKey, ZoneName};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};
use store::view::{Edit, KindId, Rows, Usage};

/// How much a zone may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Resources, of all kinds together.
    pub resources: u64,
    /// Bytes of their names, labels, specs and statuses.
    pub bytes: u64,
}

impl Quota {
    /// As much as it wants.
    pub const NONE: Self = Self { resources: u64::MAX, bytes: u64::MAX };

    /// One row, of a kind by which we see how the line is: a zone without room has it too.
    pub(crate) const OWN: Self = Self { resources: 1, bytes: OWN_ROW };

    /// Why a zone that has `used` may not replace `before` by `now`, if so. `what` is counted.
    fn refuses(
        &self,
        (zone, what): (&ZoneName, &str),
        used: Usage,
        before: Usage,
        now: Usage,
    ) -> Option<String> {
        let after = used.minus(before).plus(now);
        if before.resources == 0 && after.resources > self.resources {
            let (has, may) = (used.resources, self.resources);
            return Some(format!("quota: zone {zone} has {has} {what}, and may have {may}"));
        }
        if now.bytes > before.bytes && after.bytes > self.bytes {
            let (has, may, more) = (used.bytes, self.bytes, now.bytes - before.bytes);
            let reason =
                format!("quota: zone {zone} has {has} bytes of {what}, and may have {may}");
            return Some(format!("{reason}: this is {more} more"));
        }
        None
    }
}

/// How much each zone may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Of all kinds together.
    pub all: Quota,
    /// Of some kinds, by their names.
    pub kinds: BTreeMap<String, Quota>,
}

impl Quotas {
    /// As much as they want.
    pub const NONE: Self = Self { all: Quota::NONE, kinds: BTreeMap::new() };

    /// How much of `kind`.
    pub(crate) fn of(&self, kind: &str) -> Quota {
        self.kinds.get(kind).copied().unwrap_or(Quota::NONE)
    }
}

/// What a zone has, and may have: of all kinds, and of that of the batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room<'a> {
    pub(crate) zone: &'a ZoneName,
    pub(crate) kind: &'static str,
    pub(crate) used: [Usage; 2],
    pub(crate) quotas: [Quota; 2],
}

impl Room<'_> {
    /// What it has after `before` became `now`, or why it may not.
    fn after(&self, used: [Usage; 2], before: Usage, now: Usage) -> Result<[Usage; 2], String> {
        let of_kind = format!("{} resources", self.kind);
        for ((quota, what), used) in self.quotas.iter().zip(["resources", &*of_kind]).zip(used) {
            if let Some(reason) = quota.refuses((self.zone, what), used, before, now) {
                return Err(reason);
            }
        }
        Ok(used.map(|used| used.minus(before).plus(now)))
    }
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Fitted {
    /// What was refused although nothing else is wrong with it, by its name in transit.
    pub(crate) over: BTreeSet<Name>,
    /// Whether the zone has less than before.
    pub(crate) freed: bool,
}

/// Takes out of a batch what does not fit, in its order. What goes makes room for what comes.
pub(crate) fn fit(
    room: Room<'_>,
    rows: &Rows,
    applied: &mut Applied,
    names: &BTreeMap<ResourceKey, Name>,
) -> Fitted {
    let before =
        |key: &ResourceKey| rows.get(key).map_or_else(Usage::default, |row| Usage::of(row));
    let mut used = room.used;
    for item in &applied.batch {
        if let Edit::Delete(key) = &item.edit {
            used = used.map(|used| used.minus(before(key)));
        }
    }
    let mut fitted = Fitted::default();
    let mut grows = |row: &Resource| {
        let (key, was, now) = (&row.head.key, before(&row.head.key), Usage::of(row));
        match room.after(used, was, now) {
            Ok(after) => used = after,
            Err(reason) => {
                let name = names.get(key).cloned().unwrap_or_default();
                fitted.over.insert(name.clone());
                applied.refused.push(Refusal { name, reason });
                return false;
            }
        }
        true
    };
    applied.batch.retain(|item| match &item.edit {
        Edit::Put(row) => grows(row),
        Edit::Delete(_) => true,
    });
    let ([used, _], [before, _]) = (used, room.used);
    fitted.freed = used.resources < before.resources || used.bytes < before.bytes;
    fitted
}

/// What was refused because there was no room, as long as it is little: it is tried again when there
/// is. More than that passes with its next change, or on the next stream that says everything.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    all: BTreeMap<(KindId, ResourceKey), Received>,
    bytes: usize,
}

impl Waiting {
    /// Forgets what a response says anew, or a state that `begins` with it, and keeps what it had no
    /// room for.
    pub(crate) fn note(&mut self, incoming: &Incoming, begins: bool, over: &BTreeSet<Name>) {
        let kind = incoming.kind;
        if begins {
            let of_kind: Vec<_> = self.all.keys().filter(|(of, _)| *of == kind).cloned().collect();
            of_kind.iter().for_each(|key| self.forget(key));
        }
        if !self.all.is_empty() {
            for key in incoming.keys().chain(&incoming.removals) {
                self.forget(&(kind, key.clone()));
            }
        }
        if over.is_empty() {
            return;
        }
        for received in incoming.upserts.iter().flatten() {
            let bytes = received.spec.len() + received.status.len();
            let fits = self.all.len() < WAITING && self.bytes + bytes <= WAITING_BYTES;
            if fits && over.contains(&received.name) {
                self.bytes += bytes;
                self.all.insert((kind, received.key.clone()), received.clone());
            }
        }
    }

    fn forget(&mut self, key: &(KindId, ResourceKey)) {
        if let Some(received) = self.all.remove(key) {
            self.bytes -= received.spec.len() + received.status.len();
        }
    }

    /// What waits, kind by kind, as if it had come once more.
    pub(crate) fn again(&mut self) -> Vec<Incoming> {
        self.bytes = 0;
        let mut again: Vec<Incoming> = Vec::new();
        for ((kind, _), received) in mem::take(&mut self.all) {
            match again.last_mut().filter(|last| last.kind == kind) {
                Some(last) => last.upserts.push(Ok(received)),
                None => again.push(Incoming::again(kind, received)),
            }
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_may_be_changed_but_not_grow_over_the_quota() {
        let zone = ZoneName::new("east").unwrap();
        let usage = |resources, bytes| Usage { resources, bytes };
        let quota = Quota { resources: 2, bytes: 100 };
        let refused = |used, before, now| quota.refuses((&zone, "resources"), used, before, now);
        let new = Usage::default();
        assert_eq!(refused(usage(1, 60), new, usage(1, 40)), None, "to the brim");
        let reason =
            "quota: zone east has 60 bytes of resources, and may have 100: this is 41 more";
        assert_eq!(refused(usage(1, 60), new, usage(1, 41)), Some(reason.into()));
        let reason = "quota: zone east has 2 resources, and may have 2";
        assert_eq!(refused(usage(2, 60), new, usage(1, 1)), Some(reason.into()));
        // More than allowed, because the setting was lowered.
        assert_eq!(refused(usage(9, 900), usage(1, 50), usage(1, 50)), None);
        assert_eq!(refused(usage(9, 900), usage(1, 50), usage(1, 49)), None);
        let reason =
            "quota: zone east has 900 bytes of resources, and may have 100: this is 1 more";
        assert_eq!(refused(usage(9, 900), usage(1, 50), usage(1, 51)), Some(reason.into()));
    }
    #[test]
    fn a_kind_has_a_quota_of_its_own_besides() {
        let zone = ZoneName::new("east").unwrap();
        let usage = |resources, bytes| Usage { resources, bytes };
        let kinds = [("Workload".to_owned(), Quota { resources: 1, bytes: 50 })].into();
        let quotas = Quotas { all: Quota { resources: 3, bytes: 100 }, kinds };
        let room = |kind, used| {
            let quotas = [quotas.all, quotas.of(kind)];
            Room { zone: &zone, kind, used, quotas }
        };
        let new = |kind, used, now| room(kind, used).after(used, Usage::default(), now);
        let used = [usage(2, 60), usage(1, 20)];
        assert_eq!(new("Dataplane", used, usage(1, 40)), Ok([usage(3, 100), usage(2, 60)]));
        let reason = "quota: zone east has 1 Workload resources, and may have 1";
        assert_eq!(new("Workload", used, usage(1, 1)), Err(reason.into()));
        let grown = room("Workload", used).after(used, usage(1, 20), usage(1, 51));
        let reason =
            "quota: zone east has 20 bytes of Workload resources, and may have 50: this is 31 more";
        assert_eq!(grown, Err(reason.into()));
        let full = [usage(3, 60), usage(0, 0)];
        let reason = "quota: zone east has 3 resources, and may have 3";
        assert_eq!(new("Workload", full, usage(1, 1)), Err(reason.into()), "both count");
    }
}
