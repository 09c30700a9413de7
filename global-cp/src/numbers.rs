//! The numbers that global publishes.

use daemon::Metrics;
use kds::observe::{Call, Event, Observer, StreamId};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge, gauge::Gauge},
};
use resource::ZoneName;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};
use store::{Kinds, view::Reader};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCall {
    call: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForReason {
    reason: &'static str,
}

/// Counts what happens on the streams of zones, and passes it on.
pub(crate) struct Numbers {
    next: Arc<dyn Observer>,
    open: Mutex<Open>,
    online: Gauge,
    streams: Family<OfCall, Gauge>,
    sent: Family<OfKind, Counter>,
    acknowledged: Family<OfKind, Counter>,
    rejected: Family<OfKind, Counter>,
    received: Family<OfKind, Counter>,
    refused: Family<OfKind, Counter>,
    declined: Counter,
    ended: Family<ForReason, Counter>,
    turned_away: Family<ForReason, Counter>,
}

impl Numbers {
    /// Publishes in `metrics` what `next` is told too.
    pub(crate) fn new(metrics: &Metrics, next: Arc<dyn Observer>) -> Self {
        let counters = |name, help| metrics.register(name, help, Family::default());
        let reasons = |name, help| metrics.register(name, help, Family::default());
        Self {
            next,
            open: Mutex::default(),
            online: metrics.register("zones_online", "Zones that are connected", Gauge::default()),
            streams: metrics.register(
                "kds_streams",
                "Open streams of zones, by call",
                Family::default(),
            ),
            sent: counters("kds_responses", "Responses sent to zones, by kind"),
            acknowledged: counters("kds_acks", "Responses that zones took, by kind"),
            rejected: counters("kds_nacks", "Responses that zones refused some of, by kind"),
            received: counters("kds_received", "Responses of zones that were applied, by kind"),
            refused: counters("kds_refused", "Resources of zones that were refused, by kind"),
            declined: metrics.register(
                "kds_declined",
                "Responses of zones that were refused as a whole",
                Counter::default(),
            ),
            ended: reasons("kds_streams_ended", "Streams of zones that ended, by reason"),
            turned_away: reasons("kds_calls_refused", "Calls that were not let in, by reason"),
        }
    }

    fn opened(&self, stream: StreamId, call: Call, zone: &ZoneName) {
        let mut open = self.open.lock();
        if open.streams.insert(stream, (call, zone.clone())).is_some() {
            return;
        }
        self.streams.get_or_create(&OfCall { call: name(call) }).inc();
        if call == Call::GlobalToZone {
            *open.zones.entry(zone.clone()).or_default() += 1;
            self.online.set(number(open.zones.len()));
        }
    }

    fn closed(&self, stream: StreamId) {
        let mut open = self.open.lock();
        let Some((call, zone)) = open.streams.remove(&stream) else { return };
        self.streams.get_or_create(&OfCall { call: name(call) }).dec();
        if call == Call::GlobalToZone {
            if let Entry::Occupied(mut of_zone) = open.zones.entry(zone) {
                *of_zone.get_mut() -= 1;
                if *of_zone.get() == 0 {
                    of_zone.remove();
                }
            }
            self.online.set(number(open.zones.len()));
        }
    }
}

/// The streams that are open. A thousand zones that come at once have six thousand, so nothing is
/// counted anew when one opens or closes.
#[derive(Default)]
struct Open {
    streams: BTreeMap<StreamId, (Call, ZoneName)>,
    /// How many streams from global each zone has.
    zones: BTreeMap<ZoneName, usize>,
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

const fn name(call: Call) -> &'static str {
    match call {
        Call::GlobalToZone => "global-to-zone",
        Call::ZoneToGlobal => "zone-to-global",
        Call::Config => "config",
        Call::Stats => "stats",
        Call::Clusters => "clusters",
        Call::Health => "health",
    }
}

impl Observer for Numbers {
    fn observe(&self, stream: StreamId, zone: &ZoneName, event: Event<'_>) {
        let add = |to: &Family<OfKind, Counter>, kind, count| {
            to.get_or_create(&OfKind { kind }).inc_by(count);
        };
        match event {
            Event::Opened { call, .. } => self.opened(stream, call, zone),
            Event::Closed => self.closed(stream),
            Event::Sent { kind, .. } => add(&self.sent, kind, 1),
            Event::Acked { kind, .. } => add(&self.acknowledged, kind, 1),
            Event::Refused { kind, .. } => add(&self.rejected, kind, 1),
            Event::Applied { kind, refused, .. } => {
                add(&self.received, kind, 1);
                add(&self.refused, kind, u64::try_from(refused.len()).unwrap_or(u64::MAX));
            }
            Event::Declined { .. } => drop(self.declined.inc()),
            Event::Ended(why) => count(&self.ended, why.reason()),
            Event::Introduced(_)
            | Event::Begins { .. }
            | Event::Stands { .. }
            | Event::TooLarge { .. }
            | Event::Remembered
            | Event::Held(_)
            | Event::HealthChecked { .. } => {}
        }
        self.next.observe(stream, zone, event);
    }

    fn turned_away(&self, reason: &'static str) {
        count(&self.turned_away, reason);
        self.next.turned_away(reason);
    }
}

fn count(family: &Family<ForReason, Counter>, reason: &'static str) {
    family.get_or_create(&ForReason { reason }).inc();
}

/// What is stored, counted when somebody asks.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) reader: Reader,
    pub(crate) kinds: Arc<Kinds>,
}

impl Collector for Stored {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let revision = i64::try_from(self.reader.revision().0).unwrap_or(i64::MAX);
        let revision = ConstGauge::new(revision);
        let help = "Batches of writes since the store was made";
        let written =
            encoder.encode_descriptor("store_revision", help, None, revision.metric_type())?;
        revision.encode(written)?;
        let help = "Resources that are stored, by kind";
        let none = ConstGauge::new(0_i64).metric_type();
        let mut stored = encoder.encode_descriptor("store_resources", help, None, none)?;
        for (id, kind) in self.kinds.iter() {
            let count = ConstGauge::new(number(self.reader.rows(id).1.len()));
            count.encode(stored.encode_family(&OfKind { kind: kind.name })?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kds::dialect::Broken;
    use kds::ended::StreamEnded;
    use kds::observe::Unobserved;
    use kds::refusal::{Refusal, Refusals};

    /// The lines about `name`.
    fn lines(metrics: &Metrics, name: &str) -> Vec<String> {
        let text = metrics.encode().unwrap();
        text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
    }

    #[test]
    fn streams_and_zones_are_counted_while_they_are_there() {
        let metrics = Metrics::default();
        let numbers = Numbers::new(&metrics, Arc::new(Unobserved));
        let east: ZoneName = "east".parse().unwrap();
        let open = |call| {
            let stream = StreamId::next();
            numbers.observe(stream, &east, Event::Opened { call, token: true });
            stream
        };
        let (old, new) = (open(Call::GlobalToZone), open(Call::GlobalToZone));
        open(Call::ZoneToGlobal);
        assert_eq!(lines(&metrics, "zones_online"), ["zones_online 1"]);
        let mut streams = lines(&metrics, "kds_streams");
        streams.sort();
        let expected =
            [r#"kds_streams{call="global-to-zone"} 2"#, r#"kds_streams{call="zone-to-global"} 1"#];
        assert_eq!(streams, expected);
        numbers.observe(old, &east, Event::Closed);
        assert_eq!(lines(&metrics, "zones_online"), ["zones_online 1"]);
        numbers.observe(new, &east, Event::Closed);
        assert_eq!(lines(&metrics, "zones_online"), ["zones_online 0"]);
    }

    #[test]
    fn why_streams_end_and_calls_are_not_let_in_is_counted() {
        let metrics = Metrics::default();
        let numbers = Numbers::new(&metrics, Arc::new(Unobserved));
        let (east, stream) = ("east".parse().unwrap(), StreamId::next());
        let idle = StreamEnded::Broken(Broken::Idle);
        for ended in [&idle, &StreamEnded::ByPeer, &idle] {
            numbers.observe(stream, &east, Event::Ended(ended));
        }
        numbers.turned_away("denied");
        numbers.observe(stream, &east, Event::Declined { reason: "no" });
        let mut ended = lines(&metrics, "kds_streams_ended_total");
        ended.sort();
        let expected = [
            r#"kds_streams_ended_total{reason="closed"} 1"#,
            r#"kds_streams_ended_total{reason="idle"} 2"#,
        ];
        assert_eq!(ended, expected);
        let refused = lines(&metrics, "kds_calls_refused_total");
        assert_eq!(refused, [r#"kds_calls_refused_total{reason="denied"} 1"#]);
        assert_eq!(lines(&metrics, "kds_declined_total"), ["kds_declined_total 1"]);
    }

    #[test]
    fn what_zones_take_and_refuse_is_counted_by_kind() {
        let metrics = Metrics::default();
        let numbers = Numbers::new(&metrics, Arc::new(Unobserved));
        let (east, stream) = ("east".parse().unwrap(), StreamId::next());
        let refused = [Refusal { name: "a".into(), reason: "bad".into() }];
        let kind = "Mesh";
        for event in [
            Event::Sent { kind, resources: 3, until: None },
            Event::Sent { kind, resources: 0, until: None },
            Event::Acked { kind, until: None },
            Event::Refused { kind, refusals: &Refusals::default() },
            Event::Applied { kind, resources: 2, complete: true, until: None, refused: &refused },
        ] {
            numbers.observe(stream, &east, event);
        }
        let count = |name: &str| lines(&metrics, &format!("kds_{name}_total")).join("\n");
        assert_eq!(count("responses"), r#"kds_responses_total{kind="Mesh"} 2"#);
        assert_eq!(count("acks"), r#"kds_acks_total{kind="Mesh"} 1"#);
        assert_eq!(count("nacks"), r#"kds_nacks_total{kind="Mesh"} 1"#);
        assert_eq!(count("received"), r#"kds_received_total{kind="Mesh"} 1"#);
        assert_eq!(count("refused"), r#"kds_refused_total{kind="Mesh"} 1"#);
    }
}
