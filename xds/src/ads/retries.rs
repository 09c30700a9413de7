//! When to send again what Envoy could not bind.
//!
//! What Envoy refuses is not sent before it changes, or there would be no end to it. A socket that
//! cannot be bound is the one exception: whoever has the address may go, and nothing that we know
//! changes by that. Nobody waits for these but the listeners themselves.

use super::{Event, Refusal};
use crate::snapshot::Type;
use daemon::Backoff;
use delta::{Name, Update};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// Delays before a listener is sent again.
const DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

#[derive(Debug)]
struct Retry {
    backoff: Backoff,
    /// `None` while it is on its way.
    at: Option<Instant>,
}

/// The listeners of a stream that Envoy could not bind.
#[derive(Debug, Default)]
pub(super) struct Retries(BTreeMap<Name, Retry>);

impl Retries {
    /// Takes note of what happened. `random` is uniform in `0.0..1.0`: listeners that were refused
    /// together are sent again together.
    pub(super) fn hear(&mut self, event: &Event, now: Instant, random: f64) {
        match event {
            Event::Sent { kind: Type::Listener, update } => self.sent(update),
            Event::Acked { kind: Type::Listener, update } => self.forget(update, |_| true),
            Event::Refused { kind: Type::Listener, update, refusal } => {
                self.refused(update, refusal, now, random);
            }
            Event::Sent { .. }
            | Event::Acked { .. }
            | Event::Refused { .. }
            | Event::Beacon(_)
            | Event::Answered(_)
            | Event::Settled => {}
        }
    }

    fn sent(&mut self, update: &Update) {
        if self.0.is_empty() {
            return;
        }
        for item in &*update.upserts {
            if let Some(retry) = self.0.get_mut(&item.name) {
                retry.at = None;
            }
        }
    }

    fn refused(&mut self, update: &Update, refusal: &Refusal, now: Instant, random: f64) {
        let stays = |name: &Name| refusal.cannot_bind(name) || refusal.untold.contains(name);
        self.forget(update, |name| !stays(name));
        for name in refusal.reasons.keys().filter(|name| refusal.cannot_bind(name)) {
            let (min, max) = DELAYS;
            let fresh = || Retry { backoff: Backoff::new(min, max), at: None };
            let retry = self.0.entry(name.clone()).or_insert_with(fresh);
            retry.at = Some(now + retry.backoff.next(random));
        }
    }

    fn forget(&mut self, update: &Update, passed: impl Fn(&Name) -> bool) {
        if self.0.is_empty() {
            return;
        }
        for name in super::names(update).filter(|name| passed(name)) {
            self.0.remove(name);
        }
    }

    /// When the next of them is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.values().filter_map(|retry| retry.at).min()
    }

    /// Those that are due. They are not again before Envoy answered.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Name> {
        let mut due = Vec::new();
        for (name, retry) in &mut self.0 {
            if retry.at.take_if(|at| *at <= now).is_some() {
                due.push(name.clone());
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use delta::{Item, Nonce, Version};

    fn update(name: &str) -> Update {
        let item = Item { name: name.into(), version: Version([1; 16]), bytes: Bytes::new() };
        Update { nonce: Nonce(1), upserts: [item].into(), removals: [].into() }
    }

    fn refused(kind: Type, name: &str) -> Event {
        let update = update(name);
        let refusal = Refusal::of(&update, format!("{name}: cannot bind"));
        Event::Refused { kind, update, refusal }
    }

    #[test]
    fn each_is_tried_ever_more_seldom() {
        let (mut retries, mut now) = (Retries::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..6 {
            retries.hear(&refused(Type::Listener, "a"), now, 1.0);
            let at = retries.deadline().unwrap();
            waits.push((at - now).as_secs());
            now = at;
            assert_eq!(retries.due(now), ["a".into()]);
            assert_eq!(retries.deadline(), None, "not before Envoy answered");
        }
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        retries.hear(&refused(Type::Listener, "a"), now, 1.0);
        retries.hear(&refused(Type::Listener, "b"), now, 1.0);
        assert_eq!(retries.due(now + Duration::from_secs(1)), ["b".into()], "by its own count");
        retries.hear(&Event::Sent { kind: Type::Listener, update: update("a") }, now, 1.0);
        assert_eq!(retries.deadline(), None, "a is on its way");
        retries.hear(&refused(Type::Cluster, "c"), now, 1.0);
        assert_eq!(retries.deadline(), None, "only listeners are bound");
    }
}
