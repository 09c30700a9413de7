//! What a zone knows of its connection with global.

use crate::{
    dialect::Dialect,
    limit,
    memory::{Held, Identity},
    observe::{Event, Observer, StreamId},
};
use daemon::Clock;
use jiff::Timestamp;
use resource::ZoneName;
use std::collections::{BTreeMap, BTreeSet};
use store::view::Revision;
use tokio::sync::watch;

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
    /// Set while nothing of global is applied: why. Ended by [`super::Handle::adopt`], or by a global
    /// that is taken again.
    pub held: Option<Held>,
}

/// Keeps a state up to date.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    pub(super) state: watch::Sender<State>,
    pub(super) clock: Clock,
    /// All that the zone asks for.
    pub(super) kinds: BTreeSet<&'static str>,
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
        self.state.send_modify(|state| state.complete.clear());
    }

    /// Both streams of resources are open.
    pub(super) fn connected(&self, dialect: Dialect) {
        let now = self.clock.now();
        self.heard(|state| {
            state.connected_since = Some(now);
            state.dialect = Some(dialect);
        });
    }

    /// The connection ended.
    pub(super) fn ended(&self, why: Option<String>) {
        self.state.send_modify(|state| {
            state.connected_since = None;
            state.last_failure = why;
        });
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
            | Event::Sent { .. }
            | Event::Begins { .. }
            | Event::Stands { .. }
            | Event::Remembered
            | Event::Declined { .. }
            | Event::Ended(_)
            | Event::Closed => {}
            Event::TooLarge { kind, bytes } => {
                tracing::error!(%zone, kind, bytes, "a state is too large to be sent");
            }
            Event::HealthChecked { .. } => self.heard(|_| {}),
            Event::Acked { kind, until } => self.heard(|state| {
                state.refused_by_global.remove(kind);
                if let Some(until) = until {
                    state.known_to_global.insert(kind, until);
                }
            }),
            Event::Refused { kind, refusals } => {
                tracing::warn!(%zone, kind, text = ?refusals.text, "global refused resources");
                let list = refusals.list.iter();
                let mut list: BTreeMap<String, String> =
                    list.map(|one| (one.name.to_string(), one.reason.clone())).collect();
                if list.is_empty() {
                    list.insert(String::new(), refusals.text.clone());
                }
                self.heard(|state| drop(state.refused_by_global.insert(kind, list)));
            }
            Event::Applied { kind, complete, refused, .. } => {
                for refusal in refused.iter().take(limit::REASONS) {
                    tracing::warn!(%zone, kind, name = ?refusal.name, reason = ?refusal.reason,
                        "resource of global refused");
                }
                if refused.len() > limit::REASONS {
                    tracing::warn!(%zone, kind, all = refused.len(), "and more of them");
                }
                self.heard(|state| {
                    state.held = None;
                    if complete {
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
