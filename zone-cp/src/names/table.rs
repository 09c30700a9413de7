//! The names of one mesh: who claims which, who gets it, and what changed since when.

use dns::Change;
use jiff::Timestamp;
use resource::ResourceKey;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

/// However few names there are, who missed fewer changes than this is told only of them.
const HISTORY: usize = 1024;

/// Names that a service asks for, all with the same address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) since: Timestamp,
    pub(super) names: BTreeSet<Arc<str>>,
    pub(super) address: IpAddr,
}

/// What a session is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// The upserts are everything.
    pub complete: bool,
    /// Names with their addresses.
    pub upserts: Vec<(Arc<str>, Arc<[IpAddr]>)>,
    /// Names that are gone.
    pub removals: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    revision: u64,
    claims: BTreeMap<ResourceKey, Claim>,
    /// Who wants a name, the one who has it first: a host name stays with its first owner.
    wanted: BTreeMap<Arc<str>, BTreeSet<(Timestamp, ResourceKey)>>,
    shown: BTreeMap<Arc<str>, Arc<[IpAddr]>>,
    /// Which name changed at which revision, oldest first.
    log: VecDeque<(u64, Arc<str>)>,
    /// Everything after this revision is in the log.
    complete_after: u64,
}

impl Table {
    /// Counts the changes.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// The service `key` claims this from now on. Returns what that changed.
    pub(super) fn claim(&mut self, key: &ResourceKey, claim: Option<Claim>) -> Change {
        let before = match &claim {
            Some(claim) => self.claims.insert(key.clone(), claim.clone()),
            None => self.claims.remove(key),
        };
        let mut names = BTreeSet::new();
        if let Some(Claim { since, names: wanted, .. }) = &before {
            for name in wanted {
                names.insert(name.clone());
                if let Some(who) = self.wanted.get_mut(name) {
                    who.remove(&(*since, key.clone()));
                }
            }
        }
        if let Some(Claim { since, names: wanted, .. }) = &claim {
            for name in wanted {
                names.insert(name.clone());
                self.wanted.entry(name.clone()).or_default().insert((*since, key.clone()));
            }
        }
        let mut change = Change::default();
        for name in names {
            self.show(name, &mut change);
        }
        change
    }

    fn show(&mut self, name: Arc<str>, change: &mut Change) {
        let owner = self.wanted.get(&name).and_then(|who| who.first());
        let address = owner.and_then(|(_, key)| self.claims.get(key)).map(|claim| claim.address);
        let before = self.shown.get(&name).and_then(|addresses| addresses.first().copied());
        if address.is_none() {
            self.wanted.remove(&name);
        }
        if address == before {
            return;
        }
        self.revision += 1;
        self.log.push_back((self.revision, name.clone()));
        while self.log.len() > HISTORY.max(self.shown.len()) {
            if let Some((revision, _)) = self.log.pop_front() {
                self.complete_after = revision;
            }
        }
        match address {
            Some(address) => {
                let addresses: Arc<[IpAddr]> = [address].into();
                self.shown.insert(name.clone(), addresses.clone());
                change.upserts.push((name, addresses));
            }
            None => {
                self.shown.remove(&name);
                change.removals.push(name);
            }
        }
    }

    /// What somebody who knows what was there at `since` must be told; everything if nothing is
    /// known or the log does not reach back.
    pub(super) fn since(&self, since: Option<u64>) -> Delta {
        let Some(since) = since.filter(|since| *since >= self.complete_after) else {
            let all = self.shown.iter().map(|(name, addresses)| (name.clone(), addresses.clone()));
            return Delta { complete: true, upserts: all.collect(), removals: Vec::new() };
        };
        let from = self.log.partition_point(|(revision, _)| *revision <= since);
        let names: BTreeSet<&Arc<str>> = self.log.range(from..).map(|(_, name)| name).collect();
        let mut delta = Delta::default();
        for name in names {
            match self.shown.get(name) {
                Some(addresses) => delta.upserts.push((name.clone(), addresses.clone())),
                None => delta.removals.push(name.clone()),
            }
        }
        delta
    }
}
