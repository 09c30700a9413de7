//! Who is there, and who is withdrawn when, as a value.
//!
//! A proxy that went without a word is withdrawn 5 s after its last stream ended, and not before 30 s
//! after our own start: then all of them have to find us again. When most proxies vanish together
//! none is withdrawn. The fault is then on our side, and traffic goes on without us.

use resource::ResourceKey;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// How long a proxy may be away.
pub(super) const ABSENCE: Duration = Duration::from_secs(5);
/// How long proxies have to find a control plane that started.
pub(super) const START: Duration = Duration::from_secs(30);
/// Fewer proxies than these do not vanish together.
const CROWD: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Place {
    Here { connections: usize },
    Away { since: Instant },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Presence {
    started: Instant,
    proxies: BTreeMap<ResourceKey, Place>,
    away: usize,
    held: bool,
}

/// What is to be done about those who are away.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// They were away for too long.
    pub(super) withdraw: Vec<ResourceKey>,
    /// So many would be withdrawn, were they not most of all.
    pub(super) held: Option<Held>,
}

/// How many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowd {
    pub(super) here: usize,
    pub(super) away: usize,
    /// Nobody is withdrawn for now.
    pub(super) held: bool,
}

/// Most proxies are away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) away: usize,
    pub(super) of: usize,
}

impl Presence {
    pub(super) const fn new(started: Instant) -> Self {
        Self { started, proxies: BTreeMap::new(), away: 0, held: false }
    }

    /// Proxies can come from now on.
    pub(super) const fn opened(&mut self, now: Instant) {
        self.started = now;
    }

    /// A proxy that was there before we started.
    pub(super) fn remembered(&mut self, key: ResourceKey) {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.proxies.entry(key) {
            entry.insert(Place::Away { since: self.started });
            self.away += 1;
        }
    }

    /// A connection of the proxy began.
    pub(super) fn arrived(&mut self, key: &ResourceKey, now: Instant) {
        match self.proxies.get_mut(key) {
            Some(Place::Here { connections }) => *connections += 1,
            Some(place @ Place::Away { .. }) => {
                *place = Place::Here { connections: 1 };
                self.away -= 1;
            }
            None => {
                self.proxies.insert(key.clone(), Place::Here { connections: 1 });
            }
        }
        self.release(now);
    }

    /// A connection of the proxy ended. Whether it was the last one.
    pub(super) fn departed(&mut self, key: &ResourceKey, now: Instant) -> bool {
        let Some(place @ Place::Here { .. }) = self.proxies.get_mut(key) else { return false };
        match place {
            Place::Here { connections } if *connections > 1 => {
                *connections -= 1;
                false
            }
            Place::Here { .. } | Place::Away { .. } => {
                *place = Place::Away { since: now };
                self.away += 1;
                true
            }
        }
    }

    /// The proxy is gone for good.
    pub(super) fn forget(&mut self, key: &ResourceKey, now: Instant) {
        if let Some(Place::Away { .. }) = self.proxies.remove(key) {
            self.away -= 1;
        }
        self.release(now);
    }

    pub(super) fn is_here(&self, key: &ResourceKey) -> bool {
        matches!(self.proxies.get(key), Some(Place::Here { .. }))
    }

    /// When to look who is due. `None` while nobody is, or all are held.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.held {
            return None;
        }
        self.proxies.values().filter_map(|place| self.due_at(place)).min()
    }

    /// Who is due now. They are forgotten.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        let is_due = |place: &Place| self.due_at(place).is_some_and(|at| at <= now);
        let withdraw: Vec<_> = self
            .proxies
            .iter()
            .filter(|(_, place)| is_due(place))
            .map(|(key, _)| key.clone())
            .collect();
        if withdraw.is_empty() {
            return Due::default();
        }
        if self.is_most() {
            self.held = true;
            return Due { withdraw: Vec::new(), held: Some(self.counts()) };
        }
        for key in &withdraw {
            self.proxies.remove(key);
        }
        self.away -= withdraw.len();
        Due { withdraw, held: None }
    }

    pub(super) fn crowd(&self) -> Crowd {
        let (away, held) = (self.away, self.held);
        Crowd { here: self.proxies.len() - away, away, held }
    }

    fn due_at(&self, place: &Place) -> Option<Instant> {
        match place {
            Place::Here { .. } => None,
            Place::Away { since } => Some((*since + ABSENCE).max(self.started + START)),
        }
    }

    fn counts(&self) -> Held {
        Held { away: self.away, of: self.proxies.len() }
    }

    fn is_most(&self) -> bool {
        self.away >= CROWD && self.away * 2 > self.proxies.len()
    }

    /// Enough came back: the others are given their time again, since they may be on their way.
    fn release(&mut self, now: Instant) {
        if !self.held || self.is_most() {
            return;
        }
        self.held = false;
        for place in self.proxies.values_mut() {
            if let Place::Away { since } = place {
                *since = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use resource::MeshName;

    fn key(name: &str) -> ResourceKey {
        ResourceKey::in_mesh(&MeshName::new("shop").unwrap(), name)
    }

    fn keys(names: &[&str]) -> Vec<ResourceKey> {
        names.iter().map(|name| key(name)).collect()
    }

    /// A control plane that started long ago, with these proxies.
    fn with(names: &[&str]) -> (Presence, Instant) {
        let started = Instant::now();
        let now = started + Duration::from_secs(3600);
        let mut presence = Presence::new(started);
        for name in names {
            presence.arrived(&key(name), now);
        }
        (presence, now)
    }

    fn withdraw(names: &[&str]) -> Due {
        Due { withdraw: keys(names), held: None }
    }

    #[test]
    fn who_is_away_for_too_long_is_withdrawn() {
        let (mut presence, now) = with(&["a", "b"]);
        assert_eq!(presence.deadline(), None);
        assert!(presence.departed(&key("a"), now));
        assert_eq!(presence.deadline(), Some(now + ABSENCE));
        assert_eq!(presence.due(now + ABSENCE - Duration::from_millis(1)), Due::default());
        assert_eq!(presence.due(now + ABSENCE), withdraw(&["a"]));
        assert_eq!(presence.due(now + ABSENCE), Due::default(), "only once");
        assert_eq!(presence.deadline(), None);
    }

    #[test]
    fn who_comes_back_in_time_stays() {
        let (mut presence, now) = with(&["a", "b"]);
        presence.departed(&key("a"), now);
        presence.arrived(&key("a"), now + Duration::from_secs(4));
        assert_eq!(presence.due(now + ABSENCE), Due::default());
        assert!(presence.is_here(&key("a")));
    }

    #[test]
    fn one_connection_of_two_is_enough() {
        let (mut presence, now) = with(&["a", "b", "a"]);
        assert!(!presence.departed(&key("a"), now));
        assert_eq!(presence.deadline(), None);
        assert!(presence.departed(&key("a"), now));
        assert_eq!(presence.deadline(), Some(now + ABSENCE));
    }

    #[test]
    fn those_known_before_have_half_a_minute_from_our_start() {
        let started = Instant::now();
        let mut presence = Presence::new(started);
        for name in ["a", "b", "c", "d"] {
            presence.remembered(key(name));
        }
        for name in ["a", "b", "c"] {
            presence.arrived(&key(name), started + Duration::from_secs(1));
        }
        presence.departed(&key("c"), started + Duration::from_secs(2));
        assert_eq!(presence.deadline(), Some(started + START));
        assert_eq!(presence.due(started + START), withdraw(&["c", "d"]));
    }

    #[test]
    fn when_most_vanish_nobody_is_withdrawn() {
        let (mut presence, now) = with(&["a", "b", "c", "d", "e"]);
        for name in ["a", "b", "c"] {
            presence.departed(&key(name), now);
        }
        let late = now + Duration::from_secs(60);
        assert_eq!(presence.due(late).held, Some(Held { away: 3, of: 5 }));
        assert_eq!(presence.deadline(), None, "nothing is due while they are held");
        assert_eq!(presence.due(late).withdraw, []);

        presence.arrived(&key("a"), late);
        assert_eq!(presence.deadline(), Some(late + ABSENCE), "the others may be on their way");
        presence.arrived(&key("b"), late + Duration::from_secs(1));
        assert_eq!(presence.due(late + ABSENCE), withdraw(&["c"]));
    }

    #[test]
    fn who_says_good_bye_is_no_crowd() {
        let (mut presence, now) = with(&["a", "b", "c", "d"]);
        for name in ["a", "b", "c"] {
            presence.departed(&key(name), now);
            presence.forget(&key(name), now);
        }
        assert_eq!(presence.deadline(), None);
        presence.departed(&key("d"), now);
        assert_eq!(presence.due(now + ABSENCE), withdraw(&["d"]));
    }
}
