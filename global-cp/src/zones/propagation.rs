//! What became of resources in zones.
//!
//! Kept in memory and not in the store: a zone that comes back says where it was.

use api::{
    author::Author,
    propagation::{Proxies, State, Zone},
};
use daemon::{Clock, Metrics};
use jiff::Timestamp;
use kds::{
    observe::{Call, Event, Observer, StreamId},
    offer::{Forms, Peer},
    standing::{Reached, Removal, Standing, When, reached, removal},
    transit::{Hop, TransitKey},
};
use kinds::{
    zone,
    zone_insight::{self, ZoneInsight},
};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        gauge::ConstGauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use resource::{Features, Kind, ResourceKey, ZoneName};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
    sync::Arc,
};
use store::view::{History, KindId, Reader};
use tokio::sync::watch;

/// Knows how far each zone is with each kind.
pub(crate) struct Propagation {
    author: Author,
    reader: Reader,
    clock: Clock,
    zones: Mutex<BTreeMap<ZoneName, Known>>,
    /// Changes whenever something of a kind may have become something else in a zone.
    moved: BTreeMap<&'static str, watch::Sender<u64>>,
    took: Histogram,
    next: Arc<dyn Observer>,
}

/// What is known of a zone.
#[derive(Debug, Default)]
struct Known {
    /// The stream that tells where it is: the newest, as long as it is open.
    stream: Option<StreamId>,
    is_open: bool,
    /// What it understands; unknown before it was here.
    features: Option<Features>,
    kinds: BTreeMap<&'static str, Standing>,
}

impl Propagation {
    /// Notes what `next` is told too.
    pub(crate) fn new(
        author: Author,
        reader: Reader,
        clock: Clock,
        metrics: &Metrics,
        next: Arc<dyn Observer>,
    ) -> Arc<Self> {
        let zones = Mutex::default();
        let took = metrics.register(
            "propagation_seconds",
            "Time from the sending of a response to the answer of its zone",
            Histogram::new(exponential_buckets(0.001, 2.0, 16)),
        );
        let kinds = author.kinds.iter().map(|(_, kind)| kind.name);
        let moved = kinds.map(|kind| (kind, watch::Sender::new(0))).collect();
        let propagation = Arc::new(Self { author, reader, clock, zones, moved, took, next });
        metrics.collect(Behind(propagation.clone()));
        propagation
    }

    fn note(&self, stream: StreamId, zone: &ZoneName, event: &Event<'_>) {
        let now = self.clock.now();
        let mut zones = self.zones.lock();
        let known = match zones.entry(zone.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Known::default()),
        };
        let mut moved = None;
        match event {
            Event::Opened { call: Call::GlobalToZone, .. } => {
                known.stream = Some(stream);
                known.is_open = true;
                // Of zones that are gone for good nothing is kept.
                let there = self.reader.rows(self.author.id(zone::KIND)).1;
                if zones.len() > 16 + 2 * there.len() {
                    zones.retain(|zone, known| {
                        known.is_open || there.get(&ResourceKey::global(zone.as_str())).is_some()
                    });
                }
            }
            Event::Introduced(introduction) if known.listens_to(stream) => {
                known.features = Some(introduction.features);
            }
            Event::Sent { kind, .. } if known.listens_to(stream) => {
                known.kinds.entry(kind).or_default().sent(now);
                moved = Some(*kind);
            }
            Event::TooLarge { kind, bytes } if known.listens_to(stream) => {
                known.kinds.entry(kind).or_default().too_large(*bytes);
                moved = Some(*kind);
            }
            Event::Begins { kind, until, refused } if known.listens_to(stream) => {
                known.kinds.entry(kind).or_default().begins(*until, refused, now);
                moved = Some(*kind);
            }
            Event::Stands { kind, until, refused, said } if known.listens_to(stream) => {
                let standing = known.kinds.entry(kind).or_default();
                if let Some(sent) = standing.unanswered() {
                    self.took.observe(now.duration_since(sent).as_secs_f64());
                }
                standing.stands(*until, refused, said, now);
                moved = Some(*kind);
            }
            Event::Closed if known.stream == Some(stream) => {
                known.is_open = false;
                known.kinds.values_mut().for_each(Standing::ended);
            }
            // Of other calls, of older streams, or of what they count for themselves.
            Event::Opened { .. }
            | Event::Introduced(_)
            | Event::Sent { .. }
            | Event::Acked { .. }
            | Event::Refused { .. }
            | Event::Begins { .. }
            | Event::Stands { .. }
            | Event::TooLarge { .. }
            | Event::Applied { .. }
            | Event::Remembered
            | Event::Held(_)
            | Event::HealthChecked { .. }
            | Event::Declined { .. }
            | Event::Ended(_)
            | Event::Closed => return,
        }
        drop(zones);
        // What is about no kind is about all.
        let told = self.moved.iter().filter(|(kind, _)| moved.is_none_or(|moved| moved == **kind));
        told.for_each(|(_, told)| told.send_modify(|moved| *moved += 1));
    }

    fn kind(&self, id: KindId) -> Option<&Kind> {
        self.author.kinds.iter().find(|(known, _)| *known == id).map(|(_, kind)| kind)
    }

    /// What `zone` calls a resource that it is shown; `None` if it is not.
    pub(crate) fn key_in(
        &self,
        id: KindId,
        key: &ResourceKey,
        zone: &ZoneName,
    ) -> Option<(&'static str, ResourceKey)> {
        let kind = self.kind(id)?;
        let row = self.reader.get(id, key)?;
        let features = self.zones.lock().get(zone).and_then(|known| known.features);
        let (name, _) = forms(kind, zone, features).seen(&row.head)?;
        Some((kind.name, name.parse::<TransitKey>().ok()?.into()))
    }

    fn of_zone(&self, kind: &Kind, history: &History, name: &str, known: Option<&Known>) -> Zone {
        let mut zone = Zone::new(name, State::Pending);
        let Ok(named) = ZoneName::new(name) else { return zone };
        let forms = forms(kind, &named, known.and_then(|known| known.features));
        let standing = known.and_then(|known| known.kinds.get(kind.name));
        if history.now.is_none() {
            self.without(&mut zone, removal(history, &forms, standing), (known, standing));
            return zone;
        }
        match reached(history, &forms, standing) {
            Reached::NotShown => {
                zone.state = State::NotForThisZone;
                zone.reason = history.now.as_ref().map(|row| forms.not_seen(&row.head));
            }
            Reached::Applied(when) => {
                zone.state = State::Applied;
                (zone.since, zone.before) = times(when);
                zone.proxies = Some(Proxies { note: Some(ZONE_ONLY.into()), ..Proxies::default() });
            }
            Reached::Refused(refused) => {
                zone.state = State::Refused;
                zone.since = Some(refused.since);
                zone.by = Some(format!("zone {name}"));
                zone.reason = Some(refused.reason.to_string());
            }
            Reached::Unreadable => {
                zone.state = State::Refused;
                zone.by = Some("global".into());
                zone.reason = Some("global cannot read it, so no zone is sent it".into());
            }
            Reached::Pending => {
                zone.since = history.now.as_ref().map(|row| row.head.times.modified);
                zone.reason = Some(self.why(name, known, standing));
            }
        }
        zone
    }

    /// A zone in which the end of a resource came so far.
    fn without(
        &self,
        zone: &mut Zone,
        removal: Removal,
        (known, standing): (Option<&Known>, Option<&Standing>),
    ) {
        match removal {
            Removal::Acknowledged(when) => {
                zone.state = State::Applied;
                (zone.since, zone.before) = times(when);
            }
            Removal::NotHeld => {
                zone.state = State::NotForThisZone;
                zone.reason = Some("nothing says that the zone ever had it".into());
            }
            Removal::Pending => {
                zone.reason = Some(self.why(&zone.zone, known, standing));
                if zone.reason.as_deref() == Some(NEVER) {
                    zone.state = State::NotForThisZone;
                }
            }
        }
    }

    /// Why a zone does not have what is for it.
    fn why(&self, zone: &str, known: Option<&Known>, standing: Option<&Standing>) -> String {
        let row = self.author.get(&self.reader, zone_insight::KIND, &ResourceKey::global(zone));
        if !known.is_some_and(|known| known.is_open) {
            let insight = row.and_then(|row| kinds::read::<ZoneInsight>(&row).ok());
            return match insight.and_then(|insight| insight.since()) {
                None => NEVER.into(),
                Some(since) => format!("the zone is not connected since {}", seconds(since)),
            };
        }
        let status = row.and_then(|row| kinds::status::<ZoneInsight>(&row).ok());
        if let Some(why) = status.and_then(|status| status.held) {
            return format!("the zone applies nothing of this global: {why}");
        }
        if let Some(bytes) = standing.and_then(Standing::oversize) {
            return format!("the state of its kind has {bytes} bytes, more than the zone takes");
        }
        match standing.and_then(Standing::unanswered) {
            Some(sent) => format!("the zone has not answered what was sent at {}", seconds(sent)),
            None => "it is about to be sent".into(),
        }
    }
}

/// What a zone sees of a kind. Of one that was not here yet it is supposed that it is one of today.
fn forms(kind: &Kind, zone: &ZoneName, features: Option<Features>) -> Forms {
    let features = features.unwrap_or_else(kds::dialect::own_features);
    let peer = Peer { zone: Some(zone.clone()), features };
    Forms::new(*kind, &Hop::Down, &peer, Forms::NO_EPOCH)
}

/// When, and not later than when.
const fn times(when: When) -> (Option<Timestamp>, Option<Timestamp>) {
    match when {
        When::At(at) => (Some(at), None),
        When::Before(at) => (None, Some(at)),
        When::Unknown => (None, None),
    }
}

const NEVER: &str = "the zone never was connected";
const ZONE_ONLY: &str = "the zone is not asked about its proxies";

/// To the second, for people.
fn seconds(at: Timestamp) -> String {
    let rounded = at.round(jiff::Unit::Second).unwrap_or(at);
    rounded.to_string()
}

impl Known {
    /// Whether `stream` says where the zone is. Of two that overlap the newer one does.
    fn listens_to(&mut self, stream: StreamId) -> bool {
        let listens = self.stream.is_none_or(|newest| stream >= newest) || !self.is_open;
        if listens {
            self.stream = Some(stream);
            self.is_open = true;
        }
        listens
    }
}

impl fmt::Debug for Propagation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Propagation").finish_non_exhaustive()
    }
}

impl Observer for Propagation {
    fn observe(&self, stream: StreamId, zone: &ZoneName, event: Event<'_>) {
        self.note(stream, zone, &event);
        self.next.observe(stream, zone, event);
    }
}

impl Propagation {
    /// What became of a resource in each zone, or in those of `only`; `None` if none asks for its kind.
    pub(crate) fn of(
        &self,
        id: KindId,
        key: &ResourceKey,
        only: Option<&BTreeSet<String>>,
    ) -> Option<Vec<Zone>> {
        let kind = self.kind(id).filter(|kind| kind.flow.requested_by_zones())?;
        let (_, rows) = self.reader.rows(self.author.id(zone::KIND));
        let names: Vec<Arc<str>> = match only {
            None => rows.iter().map(|row| row.head.key.name.clone()).collect(),
            Some(only) => {
                let rows = only.iter().filter_map(|name| rows.get(&ResourceKey::global(name)));
                rows.map(|row| row.head.key.name.clone()).collect()
            }
        };
        let zones = self.zones.lock();
        // After the lock: what it says of zones is never older than what they have.
        let history = self.reader.history(id, key);
        let of_zone = |name: &Arc<str>| {
            let known = ZoneName::new(name).ok().and_then(|name| zones.get(&name));
            self.of_zone(kind, &history, name, known)
        };
        Some(names.iter().map(of_zone).collect())
    }

    /// Changes whenever a zone took something of a kind.
    pub(crate) fn changes(&self, kind: KindId) -> watch::Receiver<u64> {
        let kind = self.kind(kind).and_then(|kind| self.moved.get(kind.name));
        // Nothing changes of a kind that there is not.
        kind.map_or_else(|| watch::Sender::new(0).subscribe(), watch::Sender::subscribe)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfZone {
    zone: String,
}

/// How far zones are behind, counted when somebody asks.
#[derive(Debug)]
struct Behind(Arc<Propagation>);

impl Collector for Behind {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(propagation) = self;
        let now = propagation.clock.now();
        let kinds = &propagation.author.kinds;
        let asked: Vec<_> = kinds.iter().filter(|(_, it)| it.flow.requested_by_zones()).collect();
        let (_, rows) = propagation.reader.rows(propagation.author.id(zone::KIND));
        let (mut behind, mut refused, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        let zones = propagation.zones.lock();
        for row in rows.iter() {
            let name = row.head.key.name.to_string();
            let known = ZoneName::new(&name).ok().and_then(|name| zones.get(&name));
            let standing = |kind: &str| known.and_then(|known| known.kinds.get(kind));
            let lacks = |(id, kind): &&(KindId, &Kind)| {
                let until = standing(kind.name).and_then(Standing::until);
                until.is_none_or(|until| until < propagation.reader.rows(*id).0)
            };
            let each = || asked.iter().filter_map(|(_, kind)| standing(kind.name));
            let oldest = each().filter_map(Standing::unanswered).min();
            let age = oldest.map_or(0.0, |sent| now.duration_since(sent).as_secs_f64());
            behind.push((name.clone(), asked.iter().filter(lacks).count()));
            refused.push((name.clone(), each().map(Standing::refusals).sum()));
            waiting.push((name, age));
        }
        drop(zones);
        let none = ConstGauge::new(0_i64).metric_type();
        let counts = [
            ("propagation_behind", "Kinds of which a zone may lack something", behind),
            ("propagation_refused", "Resources that a zone refused and has not taken", refused),
        ];
        for (metric, help, counts) in counts {
            let mut family = encoder.encode_descriptor(metric, help, None, none)?;
            for (zone, count) in counts {
                let count = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
                count.encode(family.encode_family(&OfZone { zone })?)?;
            }
        }
        let help = "Time since the oldest response was sent that the zone has not answered";
        let mut family =
            encoder.encode_descriptor("propagation_unanswered_seconds", help, None, none)?;
        for (zone, age) in waiting {
            ConstGauge::new(age).encode(family.encode_family(&OfZone { zone })?)?;
        }
        Ok(())
    }
}
