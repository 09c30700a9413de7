//! Generations of the permissions of TCP inbounds.
//!
//! Envoy asks permissions with each read, but a connection keeps those it was opened under. Each set
//! of permissions of an inbound is therefore a generation with a number of its own, and a generation
//! that admitted somebody who may not come any more is withdrawn: its connections are cut. Which
//! generations may still have connections must be known as long as these can live, so it is written
//! down before a generation is used.

use crate::generate::{TcpPermissions, Withdrawn};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use xds::{
    Match,
    draft::{Grant, Permissions},
};

/// What is written down about the TCP inbounds of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Record {
    pub(super) inbounds: BTreeMap<String, Current>,
    withdrawn: BTreeSet<Cut>,
    last: u64,
}

/// The permissions of an inbound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Current {
    generation: u64,
    permissions: Permissions,
    /// Earlier generations that admitted nobody else.
    also: BTreeSet<u64>,
}

/// A generation whose connections are cut.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Cut {
    section: String,
    generation: u64,
    /// When the last connection of it is gone; never, if it may idle for ever.
    until: Option<Timestamp>,
}

/// What an inbound shall admit.
pub(super) struct Wanted<'a> {
    pub(super) section: &'a str,
    pub(super) permissions: &'a Permissions,
    /// How long a silent connection lives; zero is for ever.
    pub(super) idle: Duration,
}

/// Longer than a listener that is gone drains its connections.
const DRAINED: Duration = Duration::from_secs(3600);

/// When something is written down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Timestamp,
    /// Higher than at any time before.
    pub(super) revision: u64,
}

impl Record {
    /// The permissions of an inbound that hold, because they are written down.
    pub(super) fn current(&self, section: &str) -> Option<TcpPermissions> {
        let Current { generation, permissions, .. } = self.inbounds.get(section)?;
        Some(TcpPermissions { generation: *generation, permissions: permissions.clone() })
    }

    /// The record in which all of `wanted` hold, and nothing else.
    pub(super) fn next(&self, wanted: &[Wanted<'_>], moment: Moment) -> Self {
        let mut next = self.clone();
        next.withdrawn.retain(|cut| !cut.is_over(moment.now));
        let gone = |section: &String| wanted.iter().all(|it| it.section != section);
        let gone: Vec<String> = self.inbounds.keys().filter(|it| gone(it)).cloned().collect();
        for section in gone {
            next.withdraw(&section, Some(DRAINED), moment.now);
            next.inbounds.remove(&section);
        }
        for inbound in wanted {
            let current = next.inbounds.get(inbound.section);
            if current.is_none_or(|current| current.permissions != *inbound.permissions) {
                next.change(inbound, moment);
            }
        }
        next
    }

    fn change(&mut self, wanted: &Wanted<'_>, moment: Moment) {
        let also = match self.inbounds.get(wanted.section) {
            Some(before) if widens(&before.permissions, wanted.permissions) => {
                before.also.iter().copied().chain([before.generation]).collect()
            }
            Some(_) => {
                let life = Some(wanted.idle).filter(|idle| !idle.is_zero());
                self.withdraw(wanted.section, life, moment.now);
                BTreeSet::new()
            }
            None => BTreeSet::new(),
        };
        self.last = moment.revision.max(self.last + 1);
        let permissions = wanted.permissions.clone();
        let current = Current { generation: self.last, permissions, also };
        self.inbounds.insert(wanted.section.to_owned(), current);
    }

    /// Cuts every connection of an inbound. None of them lives longer than `life`, if that is known.
    fn withdraw(&mut self, section: &str, life: Option<Duration>, now: Timestamp) {
        let Some(current) = self.inbounds.get(section) else { return };
        // Time that cannot be said is for ever.
        let until = life.and_then(|life| now.checked_add(life).ok());
        for generation in current.also.iter().copied().chain([current.generation]) {
            self.withdrawn.insert(Cut { section: section.to_owned(), generation, until });
        }
    }

    /// What cuts connections.
    pub(super) fn withdrawn(&self) -> BTreeSet<Withdrawn> {
        let cut =
            |cut: &Cut| Withdrawn { section: cut.section.clone(), generation: cut.generation };
        self.withdrawn.iter().map(cut).collect()
    }
}

impl Cut {
    fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// Whether everybody whom `before` admits is admitted by `now`. It may say no although it is so; then
/// connections are cut that could have stayed, and come back.
fn widens(before: &Permissions, now: &Permissions) -> bool {
    fn callers(grants: &[Grant]) -> BTreeSet<&Match> {
        grants.iter().flat_map(|grant| &grant.callers).collect()
    }
    callers(&before.allow).is_subset(&callers(&now.allow))
        && callers(&now.deny).is_subset(&callers(&before.deny))
}
