//! What is known about one zone, as a value.

use jiff::Timestamp;
use kds::{
    dialect::Introduction,
    observe::{Call, Event, StreamId},
};
use proto::kuma::system::v1alpha1::{
    HealthCheck, KdsServiceStats, KdsStream, KdsStreams, KdsSubscription, KdsSubscriptionStatus,
    Version, ZoneInsight,
};
use std::collections::{BTreeMap, BTreeSet};

/// So many connections of the past are kept.
const KEPT: usize = 10;

/// How soon others should hear of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Not at all: nothing changed.
    None,
    /// Some time: a counter.
    Later,
    /// At once: the zone came or went.
    Now,
}

/// Whether the connection of a subscription is open.
pub(super) const fn is_open(subscription: &KdsSubscription) -> bool {
    subscription.connect_time.is_some() && subscription.disconnect_time.is_none()
}

pub(super) fn time(now: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() }
}

/// Ends what was open in an earlier life of this process.
pub(super) fn close_all(insight: &mut ZoneInsight, now: Timestamp) -> bool {
    let mut changed = insight.kds_streams.take().is_some();
    for subscription in insight.subscriptions.iter_mut().filter(|one| is_open(one)) {
        subscription.disconnect_time = Some(time(now));
        changed = true;
    }
    changed
}

/// A zone as its streams show it.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) insight: ZoneInsight,
    /// Why the zone applies nothing of this global, if so.
    pub(super) held: Option<String>,
    /// The calls that are open, with the subscription that belongs to each, if one does.
    open: BTreeMap<StreamId, (Call, KdsStream, String)>,
}

impl State {
    /// What was written down last goes on.
    pub(super) fn new(insight: ZoneInsight, held: Option<String>) -> Self {
        Self { insight, held, open: BTreeMap::new() }
    }

    /// Whether a call is open.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Takes note of an event. `id` is for a subscription that begins.
    pub(super) fn apply(
        &mut self,
        stream: StreamId,
        event: &Event<'_>,
        (instance, id): (&str, impl FnOnce() -> String),
        now: Timestamp,
    ) -> Urgency {
        match event {
            Event::Opened { call, token } => {
                self.opened(stream, *call, *token, (instance, id()), now);
                Urgency::Now
            }
            Event::Introduced(introduction) => self.introduced(stream, introduction),
            Event::Sent { kind, .. } => {
                self.count(stream, kind, now, |stats| &mut stats.responses_sent)
            }
            Event::Acked { kind, .. } => {
                self.count(stream, kind, now, |stats| &mut stats.responses_acknowledged)
            }
            Event::Refused { kind, .. } => {
                self.count(stream, kind, now, |stats| &mut stats.responses_rejected)
            }
            Event::HealthChecked { held } => {
                self.insight.health_check = Some(HealthCheck { time: Some(time(now)) });
                let changed = self.held.as_deref() != *held;
                self.held = held.map(str::to_owned);
                if changed { Urgency::Now } else { Urgency::Later }
            }
            Event::Closed => self.closed(stream, now),
            Event::TooLarge { .. }
            | Event::Begins { .. }
            | Event::Stands { .. }
            | Event::Applied { .. }
            | Event::Remembered
            | Event::Declined { .. }
            | Event::Ended(_)
            | Event::Held(_) => Urgency::None,
        }
    }

    fn opened(
        &mut self,
        stream: StreamId,
        call: Call,
        token: bool,
        (instance, id): (&str, String),
        now: Timestamp,
    ) {
        let connected = time(now);
        let shown =
            KdsStream { global_instance_id: instance.into(), connect_time: Some(connected) };
        let subscribes = call == Call::GlobalToZone;
        let subscription = if subscribes { id.clone() } else { String::new() };
        self.open.insert(stream, (call, shown, subscription));
        self.show_streams();
        if !subscribes {
            return;
        }
        // A stream that overlaps with this one is still there, and may outlive it.
        let streams: BTreeSet<&str> = self.open.values().map(|(_, _, id)| &**id).collect();
        let subscriptions = &mut self.insight.subscriptions;
        let gone = |one: &&mut KdsSubscription| is_open(one) && !streams.contains(&*one.id);
        for older in subscriptions.iter_mut().filter(gone) {
            older.disconnect_time = Some(connected);
        }
        subscriptions.push(KdsSubscription {
            id,
            global_instance_id: instance.into(),
            connect_time: Some(connected),
            status: Some(KdsSubscriptionStatus::default()),
            auth_token_provided: token,
            ..KdsSubscription::default()
        });
        while subscriptions.len() > KEPT {
            let past = subscriptions.iter().position(|one| !is_open(one));
            subscriptions.remove(past.unwrap_or_default());
        }
    }

    fn subscription(&mut self, stream: StreamId) -> Option<&mut KdsSubscription> {
        let (_, _, id) = self.open.get(&stream)?;
        self.insight.subscriptions.iter_mut().find(|subscription| subscription.id == *id)
    }

    fn introduced(&mut self, stream: StreamId, introduction: &Introduction) -> Urgency {
        let Some(subscription) = self.subscription(stream) else { return Urgency::None };
        let mut version = introduction.version.clone();
        // Peers are told apart by features, not by versions; nothing is known to be incompatible.
        version.kuma_cp_global_compatible = true;
        subscription.version = Some(Version { kuma_cp: Some(version) });
        subscription.config.clone_from(&introduction.config);
        subscription.zone_instance_id.clone_from(&introduction.instance);
        Urgency::Now
    }

    fn count(
        &mut self,
        stream: StreamId,
        kind: &str,
        now: Timestamp,
        which: impl Fn(&mut KdsServiceStats) -> &mut u64,
    ) -> Urgency {
        let Some(subscription) = self.subscription(stream) else { return Urgency::None };
        let status = subscription.status.get_or_insert_default();
        status.last_update_time = Some(time(now));
        *which(status.total.get_or_insert_default()) += 1;
        *which(status.stat.entry(kind.into()).or_default()) += 1;
        Urgency::Later
    }

    fn closed(&mut self, stream: StreamId, now: Timestamp) -> Urgency {
        if let Some(subscription) = self.subscription(stream).filter(|one| is_open(one)) {
            subscription.disconnect_time = Some(time(now));
        }
        if self.open.remove(&stream).is_none() {
            return Urgency::None;
        }
        self.show_streams();
        Urgency::Now
    }

    /// The newest stream of each call.
    fn show_streams(&mut self) {
        let mut shown = KdsStreams::default();
        for (call, stream, _) in self.open.values() {
            let slot = match call {
                Call::GlobalToZone => &mut shown.global_to_zone,
                Call::ZoneToGlobal => &mut shown.zone_to_global,
                Call::Config => &mut shown.config_dump,
                Call::Stats => &mut shown.stats,
                Call::Clusters => &mut shown.clusters,
                Call::Health => continue,
            };
            *slot = Some(stream.clone());
        }
        self.insight.kds_streams = (!self.open.is_empty()).then_some(shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    fn apply(state: &mut State, stream: StreamId, id: &str, event: &Event<'_>) -> Urgency {
        state.apply(stream, event, ("g-1", || id.into()), now())
    }

    fn open(call: Call) -> Event<'static> {
        Event::Opened { call, token: true }
    }

    fn online(state: &State) -> Vec<(&str, bool)> {
        state.insight.subscriptions.iter().map(|one| (&*one.id, is_open(one))).collect()
    }

    #[test]
    fn a_zone_is_online_while_its_stream_is_open() {
        let (mut state, stream) = (State::default(), StreamId::next());
        assert_eq!(apply(&mut state, stream, "a", &open(Call::GlobalToZone)), Urgency::Now);
        assert_eq!(online(&state), [("a", true)]);
        let sent = Event::Sent { kind: "Mesh", resources: 1, until: None };
        assert_eq!(apply(&mut state, stream, "", &sent), Urgency::Later);
        assert_eq!(
            apply(&mut state, stream, "", &Event::Acked { kind: "Mesh", until: None }),
            Urgency::Later
        );
        assert_eq!(apply(&mut state, stream, "", &Event::Closed), Urgency::Now);
        let [subscription] = &state.insight.subscriptions[..] else { panic!("one subscription") };
        let stats =
            KdsServiceStats { responses_sent: 1, responses_acknowledged: 1, responses_rejected: 0 };
        assert_eq!(
            *subscription,
            KdsSubscription {
                id: "a".into(),
                global_instance_id: "g-1".into(),
                connect_time: Some(time(now())),
                disconnect_time: Some(time(now())),
                status: Some(KdsSubscriptionStatus {
                    last_update_time: Some(time(now())),
                    total: Some(stats),
                    stat: [("Mesh".to_owned(), stats)].into(),
                }),
                auth_token_provided: true,
                ..KdsSubscription::default()
            }
        );
        assert_eq!(state.insight.kds_streams, None);
        assert_eq!(apply(&mut state, stream, "", &Event::Closed), Urgency::None);
    }

    #[test]
    fn streams_that_overlap_do_not_close_each_other() {
        let mut state = State::default();
        let [old, new, up] = [StreamId::next(), StreamId::next(), StreamId::next()];
        apply(&mut state, old, "old", &open(Call::GlobalToZone));
        apply(&mut state, new, "new", &open(Call::GlobalToZone));
        apply(&mut state, up, "up", &open(Call::ZoneToGlobal));
        apply(&mut state, old, "", &Event::Closed);
        assert_eq!(online(&state), [("old", false), ("new", true)]);
        let streams = state.insight.kds_streams.as_ref().unwrap();
        assert!(streams.global_to_zone.is_some() && streams.zone_to_global.is_some());
        apply(&mut state, new, "", &Event::Closed);
        assert_eq!(online(&state), [("old", false), ("new", false)]);
    }

    #[test]
    fn a_zone_stays_online_when_the_newer_of_two_streams_ends_first() {
        let mut state = State::default();
        let [old, new] = [StreamId::next(), StreamId::next()];
        apply(&mut state, old, "old", &open(Call::GlobalToZone));
        apply(&mut state, new, "new", &open(Call::GlobalToZone));
        apply(&mut state, new, "", &Event::Closed);
        assert_eq!(online(&state), [("old", true), ("new", false)]);
        apply(&mut state, old, "", &Event::Closed);
        assert_eq!(online(&state), [("old", false), ("new", false)]);
    }

    #[test]
    fn that_a_zone_takes_nothing_is_told_at_once_and_so_is_its_end() {
        let (mut state, stream) = (State::default(), StreamId::next());
        let mut check = |held| {
            let urgency = apply(&mut state, stream, "", &Event::HealthChecked { held });
            (urgency, state.held.clone())
        };
        assert_eq!(check(None), (Urgency::Later, None));
        assert_eq!(check(Some("other")), (Urgency::Now, Some("other".into())));
        assert_eq!(check(Some("other")), (Urgency::Later, Some("other".into())));
        assert_eq!(check(None), (Urgency::Now, None));
    }

    #[test]
    fn ten_connections_are_remembered() {
        let mut state = State::default();
        for i in 0..12 {
            let stream = StreamId::next();
            apply(&mut state, stream, &i.to_string(), &open(Call::GlobalToZone));
            apply(&mut state, stream, "", &Event::Closed);
        }
        assert_eq!(online(&state).len(), KEPT);
        assert_eq!(online(&state).first(), Some(&("2", false)));
    }

    #[test]
    fn what_an_earlier_life_left_open_is_closed() {
        let mut state = State::default();
        apply(&mut state, StreamId::next(), "a", &open(Call::GlobalToZone));
        let mut insight = state.insight;
        assert!(close_all(&mut insight, now()));
        assert!(!insight.subscriptions.iter().any(is_open) && insight.kds_streams.is_none());
        assert!(!close_all(&mut insight, now()));
    }
}
