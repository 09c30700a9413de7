//! What a zone knows of its connection with global.

use crate::{
    dialect::Dialect,
    limit,
    memory::{Held, Identity},
    observe::{Event, Observer, StreamId},
    refusal::Refusal,
};
use daemon::{Clock, Repeats};
use jiff::Timestamp;
use resource::ZoneName;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::view::Revision;
use tokio::{sync::watch, time::Instant};

/// What a zone knows of its connection with global.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Whether one state of every kind was complete, on this connection or before, so that the zone
    /// can work without global.
    pub complete_once: bool,
    /// Set while both streams of resources are open.
    pub connected_since: Option<Timestamp>,
    /// When something came from global last.
    pub last_heard: Option<Timestamp>,
    /// Why the last connection ended, or could not be made.
    pub last_failure: Option<String>,
    /// How global speaks.
    pub dialect: Option<Dialect>,
    /// The kinds of which a state was complete on this connection.
    pub complete: BTreeSet<&'static str>,
    /// What this zone did not take, by kind and name in transit.
    pub refused: BTreeMap<&'static str, BTreeMap<String, String>>,
    /// What global did not take, by kind and name in transit; a plain one does not say which.
    pub refused_by_global: BTreeMap<&'static str, BTreeMap<String, String>>,
    /// Until which revision of the zone's store global has everything, by kind.
    pub known_to_global: BTreeMap<&'static str, Revision>,
    /// Where the newest beacon that came on this connection stands in the history of global.
    pub beacon: Option<Revision>,
    /// When something of global was applied last on this connection, or the connection began.
    pub heard: Option<Instant>,
    /// What global owes an answer about, if anything.
    pub owed: Option<Owed>,
    /// Set while nothing of global is applied: why. Ended by [`super::Handle::adopt`], or by a global
    /// that is taken again.
    pub held: Option<Held>,
}

/// Answers that global owes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// About responses of these kinds.
    pub kinds: BTreeSet<&'static str>,
    /// It was asked, or answered another, then.
    pub since: Instant,
    /// The newest beacon at that time.
    pub beacon: Option<Revision>,
}

impl Owed {
    fn new(kinds: BTreeSet<&'static str>, beacon: Option<Revision>) -> Option<Self> {
        let since = Instant::now();
        (!kinds.is_empty()).then_some(Self { kinds, since, beacon })
    }
}

impl State {
    /// When it is to be doubted that the streams go on: nothing came for so long, or is answered.
    pub(super) fn doubtful(&self) -> Option<Instant> {
        if self.held.is_some() {
            return None;
        }
        let down = self.heard.map(|heard| heard + limit::STALE);
        let up = self.owed.as_ref().map(|owed| owed.since + limit::BEACON);
        down.into_iter().chain(up).min()
    }

    /// Which stream is stuck, if global is at `beacon`: it goes on then, and the stream does not. A
    /// global that writes nothing itself would do so on another stream too.
    pub(super) fn stuck(&self, beacon: Revision) -> Option<&'static str> {
        let now = Instant::now();
        let is_after = |before: Option<Revision>| beacon > before.unwrap_or_default();
        if self.heard.is_some_and(|heard| heard + limit::STALE <= now) && is_after(self.beacon) {
            return Some("GlobalToZoneSync is stuck: global has a newer beacon than came");
        }
        let late = self.owed.as_ref().filter(|owed| owed.since + limit::BEACON <= now);
        let stuck = late.is_some_and(|owed| is_after(owed.beacon));
        stuck.then_some("ZoneToGlobalSync is stuck: global goes on, and does not answer")
    }

    fn owes(&mut self, kind: &'static str) {
        match &mut self.owed {
            Some(owed) => drop(owed.kinds.insert(kind)),
            None => self.owed = Owed::new([kind].into(), self.beacon),
        }
    }

    fn answered(&mut self, kind: &str) {
        if let Some(Owed { mut kinds, .. }) = self.owed.take() {
            kinds.remove(kind);
            self.owed = Owed::new(kinds, self.beacon);
        }
    }
}

/// Keeps a state up to date.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    pub(super) state: watch::Sender<State>,
    pub(super) clock: Clock,
    /// All that the zone asks every global for.
    pub(super) kinds: BTreeSet<&'static str>,
    /// Those by which it sees how fresh its global is.
    pub(super) beacons: BTreeSet<&'static str>,
    /// A global that is refused something says it again and again.
    pub(super) repeats: Arc<Repeats>,
}

impl Watcher {
    fn heard(&self, change: impl FnOnce(&mut State)) {
        let now = self.clock.now();
        self.state.send_modify(|state| {
            state.last_heard = Some(now);
            change(state);
        });
    }

    /// A connection begins.
    pub(super) fn begin(&self) {
        self.state.send_modify(|state| {
            state.complete.clear();
            (state.beacon, state.heard, state.owed) = (None, None, None);
        });
    }

    /// Both streams of resources are open.
    pub(super) fn connected(&self, dialect: Dialect) {
        let now = self.clock.now();
        self.heard(|state| {
            state.connected_since = Some(now);
            state.dialect = Some(dialect);
            state.heard = Some(Instant::now());
        });
    }

    /// The connection ended.
    pub(super) fn ended(&self, why: Option<String>) {
        self.state.send_modify(|state| {
            state.connected_since = None;
            state.last_failure = why;
        });
    }

    /// Logs what this zone does not take.
    fn say(&self, zone: &ZoneName, kind: &str, refused: &[Refusal]) {
        for refusal in refused.iter().take(limit::REASONS) {
            let (name, reason) = (&refusal.name, limit::cut(&refusal.reason, limit::REASON));
            if let Some(unsaid) = self.repeats.say((kind, name, reason)) {
                tracing::warn!(%zone, kind, ?name, ?reason, unsaid, "resource of global refused");
            }
        }
        let all = refused.len();
        if all > limit::REASONS
            && let Some(unsaid) = self.repeats.say(kind)
        {
            tracing::warn!(%zone, kind, all, unsaid, "and more of them");
        }
    }

    /// The global that an operator may confirm.
    pub(super) fn held(&self) -> Option<Identity> {
        self.state.borrow().held.as_ref().and_then(|held| held.identity().cloned())
    }
}

impl Observer for Watcher {
    fn observe(&self, _stream: StreamId, zone: &ZoneName, event: Event<'_>) {
        match event {
            Event::Opened { .. }
            | Event::Introduced(_)
            | Event::Begins { .. }
            | Event::Stands { .. }
            | Event::Remembered
            | Event::Declined { .. }
            | Event::Ended(_)
            | Event::Closed => {}
            Event::TooLarge { kind, bytes } => {
                tracing::error!(%zone, kind, bytes, "a state is too large to be sent");
            }
            Event::Sent { kind, .. } => self.state.send_modify(|state| state.owes(kind)),
            Event::HealthChecked { .. } => self.heard(|_| {}),
            Event::Acked { kind, until } => self.heard(|state| {
                state.answered(kind);
                state.refused_by_global.remove(kind);
                if let Some(until) = until {
                    state.known_to_global.insert(kind, until);
                }
            }),
            Event::Refused { kind, refusals } => {
                let text = &refusals.text;
                if let Some(unsaid) = self.repeats.say((kind, text)) {
                    tracing::warn!(%zone, kind, ?text, unsaid, "global refused resources");
                }
                let list = refusals.list.iter();
                let mut list: BTreeMap<String, String> =
                    list.map(|one| (one.name.to_string(), one.reason.clone())).collect();
                if list.is_empty() {
                    list.insert(String::new(), refusals.text.clone());
                }
                self.heard(|state| {
                    state.answered(kind);
                    state.refused_by_global.insert(kind, list);
                });
            }
            Event::Applied { kind, complete, until, refused, .. } => {
                self.say(zone, kind, refused);
                self.heard(|state| {
                    state.held = None;
                    state.heard = Some(Instant::now());
                    if self.beacons.contains(kind) {
                        state.beacon = until.or(state.beacon);
                    }
                    if complete && self.kinds.contains(kind) {
                        state.complete.insert(kind);
                    }
                    state.complete_once |= state.complete.is_superset(&self.kinds);
                    let list = refused.iter();
                    let list: BTreeMap<String, String> =
                        list.map(|one| (one.name.to_string(), one.reason.clone())).collect();
                    if list.is_empty() {
                        state.refused.remove(kind);
                    } else {
                        state.refused.insert(kind, list);
                    }
                });
            }
            Event::Held(held) => {
                tracing::error!(%zone, reason = %held, "nothing of global is applied");
                self.heard(|state| state.held = Some(held.clone()));
            }
        }
    }
}
