//! Which proxies are there. Decides who is withdrawn, and when; does nothing itself.
//!
//! A proxy that said good-bye is withdrawn at once. One whose session ended otherwise has a while to
//! come back; so has everybody after our own start. When most vanish together, the fault is more
//! likely on our side, and nobody is withdrawn.

use resource::ResourceKey;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// How long a proxy may be absent.
const ABSENCE: Duration = Duration::from_secs(5);
/// How long after our own start nobody is missed.
const START: Duration = Duration::from_secs(30);
/// So few may always vanish together.
const FEW: usize = 3;

/// What is wrong with a proxy, by what said so.
pub(super) type Problems = BTreeMap<&'static str, String>;

/// A session, as seen by those that come later.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) id: u64,
    /// Names the process of the proxy.
    pub(super) instance: String,
    /// Ends the session.
    pub(super) replaced: CancellationToken,
    /// Asks it whether its proxy still answers.
    pub(super) ask: mpsc::Sender<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Life {
    session: Option<Open>,
    absent_since: Option<Instant>,
    problems: watch::Sender<Problems>,
}

/// The proxies that have sessions, or had.
#[derive(Debug)]
pub(super) struct Lives {
    started: Instant,
    last: u64,
    proxies: BTreeMap<Arc<ResourceKey>, Life>,
    /// When those that are suspiciously many are looked at again.
    again: Option<Instant>,
}

/// Who is to be withdrawn now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// These.
    Withdraw(Vec<ResourceKey>),
    /// Nobody: too many are absent together.
    Suspicious { absent: usize, known: usize },
}

impl Lives {
    pub(super) const fn new(started: Instant) -> Self {
        Self { started, last: 0, proxies: BTreeMap::new(), again: None }
    }

    /// The proxy was there before we started.
    pub(super) fn known(&mut self, key: ResourceKey) {
        let started = self.started;
        self.life(&key).absent_since.get_or_insert(started);
    }

    fn life(&mut self, key: &ResourceKey) -> &mut Life {
        let new = || Life { session: None, absent_since: None, problems: watch::Sender::default() };
        self.proxies.entry(Arc::new(key.clone())).or_insert_with(new)
    }

    /// The session that the proxy has.
    pub(super) fn session(&self, key: &ResourceKey) -> Option<Open> {
        self.proxies.get(key)?.session.clone()
    }

    /// A number for a new session.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The proxy has a session; an earlier one ends.
    pub(super) fn begin(&mut self, key: &ResourceKey, open: Open) -> watch::Receiver<Problems> {
        let life = self.life(key);
        if let Some(before) = life.session.replace(open) {
            before.replaced.cancel();
        }
        life.absent_since = None;
        life.problems.subscribe()
    }

    /// The session `id` ended without a good-bye. Says whether it was the current one.
    pub(super) fn end(&mut self, key: &ResourceKey, id: u64, now: Instant) -> bool {
        let Some(life) = self.proxies.get_mut(key) else { return false };
        if life.session.take_if(|session| session.id == id).is_none() {
            return false;
        }
        life.absent_since = Some(now);
        true
    }

    /// The proxy of session `id` said good-bye. Says whether it was the current one.
    pub(super) fn leave(&mut self, key: &ResourceKey, id: u64) -> bool {
        let current = self
            .proxies
            .get(key)
            .and_then(|life| life.session.as_ref())
            .is_some_and(|s| s.id == id);
        if current {
            self.proxies.remove(key);
        }
        current
    }

    /// Says what is wrong with a proxy, or, with `None`, that something is right again.
    pub(super) fn problem(&self, key: &ResourceKey, what: &'static str, text: Option<String>) {
        let Some(life) = self.proxies.get(key) else { return };
        life.problems.send_if_modified(|problems| match text {
            Some(text) => problems.insert(what, text.clone()) != Some(text),
            None => problems.remove(what).is_some(),
        });
    }

    fn due_at(&self, absent_since: Instant) -> Instant {
        let due = (absent_since + ABSENCE).max(self.started + START);
        self.again.map_or(due, |again| due.max(again))
    }

    /// When somebody is to be looked at.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.proxies.values().filter_map(|life| life.absent_since).map(|at| self.due_at(at)).min()
    }

    /// Takes those who have been absent for too long.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        let absent: Vec<Arc<ResourceKey>> = self
            .proxies
            .iter()
            .filter(|(_, life)| life.absent_since.is_some_and(|at| self.due_at(at) <= now))
            .map(|(key, _)| key.clone())
            .collect();
        let known = self.proxies.len();
        if absent.len() > FEW && absent.len() * 2 > known {
            self.again = Some(now + START);
            return Due::Suspicious { absent: absent.len(), known };
        }
        for key in &absent {
            self.proxies.remove(key);
        }
        Due::Withdraw(absent.iter().map(|key| (**key).clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> ResourceKey {
        ResourceKey::global(&format!("web-{n}"))
    }

    fn open(lives: &mut Lives) -> Open {
        let id = lives.next_id();
        let (ask, _) = mpsc::channel(1);
        Open { id, instance: "a".into(), replaced: CancellationToken::new(), ask }
    }

    fn withdrawn(due: Due) -> Vec<ResourceKey> {
        match due {
            Due::Withdraw(keys) => keys,
            Due::Suspicious { .. } => panic!("suspicious"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_absent_proxy_is_withdrawn_after_a_while_but_not_soon_after_our_start() {
        let start = Instant::now();
        let mut lives = Lives::new(start);
        let session = open(&mut lives);
        drop(lives.begin(&key(1), session.clone()));
        assert_eq!(lives.deadline(), None);
        assert!(lives.end(&key(1), session.id, start + Duration::from_secs(1)));
        assert_eq!(lives.deadline(), Some(start + START));
        let late = start + Duration::from_secs(100);
        let session = open(&mut lives);
        drop(lives.begin(&key(1), session.clone()));
        assert_eq!(lives.deadline(), None, "it came back");
        lives.end(&key(1), session.id, late);
        assert_eq!(withdrawn(lives.due(late + Duration::from_secs(4))), []);
        assert_eq!(withdrawn(lives.due(late + ABSENCE)), [key(1)]);
        assert_eq!(withdrawn(lives.due(late + ABSENCE * 2)), []);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_an_older_session_means_nothing() {
        let mut lives = Lives::new(Instant::now());
        let (one, two) = (open(&mut lives), open(&mut lives));
        drop(lives.begin(&key(1), one.clone()));
        drop(lives.begin(&key(1), two.clone()));
        assert!(one.replaced.is_cancelled() && !two.replaced.is_cancelled());
        assert!(!lives.end(&key(1), one.id, Instant::now()));
        assert!(!lives.leave(&key(1), one.id));
        assert_eq!(lives.deadline(), None);
        assert!(lives.leave(&key(1), two.id));
        assert!(lives.session(&key(1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn when_most_vanish_together_nobody_is_withdrawn() {
        let start = Instant::now();
        let mut lives = Lives::new(start);
        for n in 0..6 {
            lives.known(key(n));
        }
        let session = open(&mut lives);
        drop(lives.begin(&key(0), session));
        assert_eq!(lives.due(start + START), Due::Suspicious { absent: 5, known: 6 });
        assert_eq!(lives.deadline(), Some(start + START * 2), "looked at again later");
        for n in 1..4 {
            let session = open(&mut lives);
            drop(lives.begin(&key(n), session));
        }
        assert_eq!(withdrawn(lives.due(start + START * 2)), [key(4), key(5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn problems_reach_the_session_and_go_away() {
        let mut lives = Lives::new(Instant::now());
        let session = open(&mut lives);
        let mut problems = lives.begin(&key(1), session);
        lives.problem(&key(1), "listeners", Some("taken".into()));
        assert!(problems.has_changed().unwrap());
        assert_eq!(*problems.borrow_and_update(), [("listeners", "taken".into())].into());
        lives.problem(&key(1), "listeners", Some("taken".into()));
        assert!(!problems.has_changed().unwrap(), "said already");
        lives.problem(&key(1), "listeners", None);
        assert_eq!(*problems.borrow_and_update(), Problems::new());
    }
}
