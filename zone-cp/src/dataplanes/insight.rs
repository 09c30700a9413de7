//! What is shown of a proxy: since when it is connected, what it runs, how it takes what it is sent.

use jiff::Timestamp;
use kinds::dataplane_insight::{DataplaneInsight, PROBLEMS};
use prost_types::{ListValue, Struct, Value, value::Kind};
use proto::kuma::mesh::v1alpha1::{
    DataplaneInsight as Message, DiscoveryServiceStats, DiscoverySubscription,
    DiscoverySubscriptionStatus, EnvoyVersion, KumaDpVersion, Version, dataplane_insight::Mtls,
};
use std::collections::BTreeMap;
use xds::Type;

/// Subscriptions that are kept: the one that is and the one before.
const KEPT: usize = 2;

/// What became of responses of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) sent: u64,
    pub(super) acked: u64,
    pub(super) refused: u64,
}

/// What became of all responses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(BTreeMap<Type, Count>);

impl Counts {
    pub(super) fn of(&mut self, kind: Type) -> &mut Count {
        self.0.entry(kind).or_default()
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            let sum = self.of(*kind);
            sum.sent += count.sent;
            sum.acked += count.acked;
            sum.refused += count.refused;
        }
    }

    fn stats(&self, kinds: &[Type]) -> Option<DiscoveryServiceStats> {
        let mut stats = DiscoveryServiceStats::default();
        for count in kinds.iter().filter_map(|kind| self.0.get(kind)) {
            stats.responses_sent += count.sent;
            stats.responses_acknowledged += count.acked;
            stats.responses_rejected += count.refused;
        }
        Some(stats)
    }
}

/// What a proxy runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Versions {
    pub(super) proxy: String,
    pub(super) envoy: String,
}

/// The certificate that a proxy has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) identity: String,
    /// When it was issued, and when it ends; `None` if a SPIRE agent has it.
    pub(super) life: Option<(Timestamp, Timestamp)>,
}

/// One stay of a proxy.
#[derive(Clone, Debug)]
pub(super) struct Stay<'a> {
    pub(super) id: &'a str,
    pub(super) instance: &'a str,
    pub(super) connected: Timestamp,
    /// Set once it went.
    pub(super) disconnected: Option<Timestamp>,
    pub(super) versions: &'a Versions,
    pub(super) counts: Counts,
    pub(super) updated: Timestamp,
    pub(super) certificate: Option<Certificate>,
    /// The MeshTrusts by which it knows others.
    pub(super) trusts: Vec<String>,
    pub(super) problems: &'a [String],
}

/// The insight of a proxy, of which `before` is known.
pub(super) fn insight(before: Option<&DataplaneInsight>, stay: &Stay<'_>) -> DataplaneInsight {
    let empty = DataplaneInsight::default();
    let before = &before.unwrap_or(&empty).0;
    let others = before.subscriptions.iter().filter(|it| it.id != stay.id).cloned();
    let mut subscriptions: Vec<_> = others
        .map(|mut other| {
            // One that a control plane could not end before it ended itself.
            other.disconnect_time.get_or_insert_with(|| time(stay.connected));
            other
        })
        .collect();
    subscriptions.push(subscription(stay));
    let surplus = subscriptions.len().saturating_sub(KEPT);
    subscriptions.drain(..surplus);
    DataplaneInsight(Message {
        subscriptions,
        m_tls: stay.certificate.as_ref().map_or_else(
            || before.m_tls.clone(),
            |certificate| Some(mtls(before.m_tls.as_ref(), certificate, &stay.trusts)),
        ),
        metadata: metadata(stay.problems),
        open_telemetry: None,
    })
}

/// The insight of a proxy that is not there, of which `before` is known; `None` if it says so.
pub(super) fn ended(before: &DataplaneInsight, now: Timestamp) -> Option<DataplaneInsight> {
    if !before.is_online() {
        return None;
    }
    let mut ended = before.clone();
    for subscription in &mut ended.0.subscriptions {
        subscription.disconnect_time.get_or_insert_with(|| time(now));
    }
    Some(ended)
}

fn subscription(stay: &Stay<'_>) -> DiscoverySubscription {
    let counts = &stay.counts;
    let status = DiscoverySubscriptionStatus {
        last_update_time: Some(time(stay.updated)),
        total: counts.stats(&Type::ALL),
        cds: counts.stats(&[Type::Cluster]),
        eds: counts.stats(&[Type::Endpoint]),
        lds: counts.stats(&[Type::Listener]),
        rds: counts.stats(&[Type::Route]),
    };
    DiscoverySubscription {
        id: stay.id.into(),
        control_plane_instance_id: stay.instance.into(),
        connect_time: Some(time(stay.connected)),
        disconnect_time: stay.disconnected.map(time),
        status: Some(status),
        version: Some(Version {
            kuma_dp: Some(KumaDpVersion {
                version: stay.versions.proxy.clone(),
                kuma_cp_compatible: true,
                ..KumaDpVersion::default()
            }),
            envoy: Some(EnvoyVersion {
                version: stay.versions.envoy.clone(),
                kuma_dp_compatible: true,
                ..EnvoyVersion::default()
            }),
            dependencies: BTreeMap::new(),
        }),
        generation: 0,
    }
}

fn mtls(before: Option<&Mtls>, certificate: &Certificate, trusts: &[String]) -> Mtls {
    let issued = certificate.life.map(|(issued, _)| time(issued));
    let last = before.and_then(|before| before.last_certificate_regeneration.as_ref());
    let is_new = issued.is_some() && issued.as_ref() != last;
    let count = before.map_or(0, |before| before.certificate_regenerations);
    Mtls {
        certificate_expiration_time: certificate.life.map(|(_, expires)| time(expires)),
        last_certificate_regeneration: issued,
        certificate_regenerations: count.saturating_add(is_new.into()),
        issued_backend: certificate.identity.clone(),
        // Whom a SPIRE agent believes, it knows itself.
        supported_backends: certificate.life.map(|_| trusts.to_vec()).unwrap_or_default(),
    }
}

fn metadata(problems: &[String]) -> Option<Struct> {
    if problems.is_empty() {
        return None;
    }
    let text = |text: &String| Value { kind: Some(Kind::StringValue(text.clone())) };
    let values = problems.iter().map(text).collect();
    let list = Value { kind: Some(Kind::ListValue(ListValue { values })) };
    Some(Struct { fields: [(PROBLEMS.to_owned(), list)].into() })
}

fn time(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn stay<'a>(id: &'a str, versions: &'a Versions) -> Stay<'a> {
        Stay {
            id,
            instance: "cp",
            connected: at(10),
            disconnected: None,
            versions,
            counts: Counts::default(),
            updated: at(11),
            certificate: None,
            trusts: Vec::new(),
            problems: &[],
        }
    }

    #[test]
    fn the_stay_before_is_kept_and_ended() {
        let versions = Versions { proxy: "0.1.0".into(), envoy: "1.40.0".into() };
        let mut insight = insight(None, &stay("a", &versions));
        assert!(insight.is_online());
        for id in ["b", "c"] {
            insight = super::insight(Some(&insight), &stay(id, &versions));
        }
        let shown: Vec<_> = insight
            .0
            .subscriptions
            .iter()
            .map(|it| (it.id.as_str(), it.disconnect_time.map(|at| at.seconds)))
            .collect();
        assert_eq!(shown, [("b", Some(10)), ("c", None)]);
        let ended = ended(&insight, at(99)).unwrap();
        assert!(!ended.is_online());
        assert_eq!(super::ended(&ended, at(100)), None);
    }

    #[test]
    fn a_certificate_counts_once() {
        let versions = Versions::default();
        let certificate = |second| {
            Some(Certificate { identity: "kri".into(), life: Some((at(second), at(900))) })
        };
        let mut now = DataplaneInsight::default();
        for issued in [100, 100, 200] {
            let certificate = certificate(issued);
            let trusts = vec![format!("trust-{issued}")];
            now = insight(Some(&now), &Stay { certificate, trusts, ..stay("a", &versions) });
        }
        let spire = Some(Certificate { identity: "spire".into(), life: None });
        let trusts = vec!["trust".to_owned()];
        let other =
            insight(Some(&now), &Stay { certificate: spire, trusts, ..stay("a", &versions) });
        let mtls = other.0.m_tls.unwrap();
        assert_eq!((mtls.issued_backend.as_str(), mtls.certificate_regenerations), ("spire", 2));
        assert_eq!((mtls.certificate_expiration_time, mtls.supported_backends.len()), (None, 0));
        let kept = insight(Some(&now), &stay("a", &versions));
        assert_eq!(kept.0.m_tls, now.0.m_tls, "known until there is another one");
        let mtls = now.0.m_tls.unwrap();
        assert_eq!((mtls.certificate_regenerations, mtls.issued_backend.as_str()), (2, "kri"));
        assert_eq!(mtls.supported_backends, ["trust-200"], "those of now");
    }

    #[test]
    fn responses_are_counted_by_type_and_in_all() {
        let mut counts = Counts::default();
        counts.of(Type::Cluster).sent = 2;
        counts.of(Type::Secret).refused = 1;
        let mut sum = counts.clone();
        sum.add(&counts);
        let stats = |sent, rejected| DiscoveryServiceStats {
            responses_sent: sent,
            responses_acknowledged: 0,
            responses_rejected: rejected,
        };
        assert_eq!(sum.stats(&[Type::Cluster]), Some(stats(4, 0)));
        assert_eq!(sum.stats(&Type::ALL), Some(stats(4, 2)));
    }
}
