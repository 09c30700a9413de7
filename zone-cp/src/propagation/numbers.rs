//! How many proxies lack something or refused it, counted when somebody asks.

use super::Own;
use crate::reconcile::Lacking;
use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::gauge::ConstGauge,
};
use std::{collections::BTreeMap, fmt, sync::Arc};
use xds::Type;

/// The numbers of a zone: as many as there are kinds and types, whatever the number of proxies.
#[derive(Debug)]
pub(crate) struct Numbers(pub(crate) Arc<Own>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfType {
    resources: &'static str,
}

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(own) = self;
        write(encoder, &own.meshes.lacking(), &own.envoys.refusing(), own.clock.now())
    }
}

fn write(
    mut encoder: DescriptorEncoder<'_>,
    lacking: &BTreeMap<&'static str, Lacking>,
    refusing: &BTreeMap<Type, usize>,
    now: Timestamp,
) -> Result<(), fmt::Error> {
    let count = |count: usize| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
    let (metric, help) = ("propagation_proxies_pending", "Proxies that lack a change of a kind");
    let mut family = encoder.encode_descriptor(metric, help, None, count(0).metric_type())?;
    for (&kind, lacking) in lacking {
        count(lacking.proxies).encode(family.encode_family(&OfKind { kind })?)?;
    }
    let metric = "propagation_proxies_pending_seconds";
    let help = "Time since the oldest change of a kind that a proxy lacks was worked out";
    let none = ConstGauge::new(0.0);
    let mut family = encoder.encode_descriptor(metric, help, None, none.metric_type())?;
    for (&kind, lacking) in lacking {
        let age = lacking.since.map_or(0.0, |since| now.duration_since(since).as_secs_f64());
        ConstGauge::new(age.max(0.0)).encode(family.encode_family(&OfKind { kind })?)?;
    }
    let (metric, help) = ("propagation_proxies_refused", "Proxies that refused resources of Envoy");
    let mut family = encoder.encode_descriptor(metric, help, None, count(0).metric_type())?;
    for of in Type::ALL {
        let proxies = refusing.get(&of).copied().unwrap_or_default();
        count(proxies).encode(family.encode_family(&OfType { resources: of.name() })?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::Metrics;

    #[derive(Debug)]
    struct Fixed;

    impl Collector for Fixed {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            let since = Timestamp::from_second(10).ok();
            let lacking = [
                ("MeshRetry", Lacking { proxies: 0, since: None }),
                ("MeshTimeout", Lacking { proxies: 3, since }),
            ];
            let now = Timestamp::from_second(17).unwrap();
            write(encoder, &lacking.into(), &[(Type::Listener, 2)].into(), now)
        }
    }

    #[test]
    fn proxies_are_counted_by_kind_and_type_and_not_named() {
        let metrics = Metrics::default();
        metrics.collect(Fixed);
        let text = metrics.encode().unwrap();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("propagation_")).collect();
        let expected = [
            "propagation_proxies_pending{kind=\"MeshRetry\"} 0",
            "propagation_proxies_pending{kind=\"MeshTimeout\"} 3",
            "propagation_proxies_pending_seconds{kind=\"MeshRetry\"} 0.0",
            "propagation_proxies_pending_seconds{kind=\"MeshTimeout\"} 7.0",
            "propagation_proxies_refused{resources=\"clusters\"} 0",
            "propagation_proxies_refused{resources=\"endpoints\"} 0",
            "propagation_proxies_refused{resources=\"listeners\"} 2",
            "propagation_proxies_refused{resources=\"routes\"} 0",
            "propagation_proxies_refused{resources=\"secrets\"} 0",
            "propagation_proxies_refused{resources=\"extensions\"} 0",
            "propagation_proxies_refused{resources=\"runtime\"} 0",
        ];
        assert_eq!(lines, expected);
    }
}
