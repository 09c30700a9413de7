//! What a zone shows of its own freshness.

use super::{Beacons, Passed};
use api::freshness::{Freshness, Stage, Zone};
use kds::{limit::STALE, zone::Handle};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::gauge::ConstGauge,
};
use resource::ZoneName;
use std::{fmt, time::Duration};
use tokio::time::Instant;

/// The freshness of this zone.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) zone: ZoneName,
    pub(crate) beacons: Beacons,
    pub(crate) global: Option<Handle>,
}

impl Own {
    pub(crate) fn stages(&self) -> Vec<(Stage, Duration)> {
        let progress = self.beacons.progress.borrow();
        let (now, began) = (Instant::now(), self.beacons.began);
        let age = |passed: Option<Passed>, began| now - passed.map_or(began, |passed| passed.at);
        if progress.stored.is_none() {
            return Vec::new();
        }
        let proxy = progress.proxy.as_ref().map(|asked| age(asked.answered, asked.since));
        let all = [
            (Stage::Zone, Some(age(progress.stored, began))),
            (Stage::Tables, Some(age(progress.reconciled, began))),
            (Stage::Proxy, proxy),
        ];
        all.into_iter().filter_map(|(stage, age)| Some((stage, age?))).collect()
    }
}

impl Freshness for Own {
    fn zones(&self) -> Vec<Zone> {
        let (name, stages) = (self.zone.as_str(), self.stages());
        let Some(global) = &self.global else {
            return vec![Zone::unknown(name, "the zone has no global")];
        };
        if stages.is_empty() {
            return vec![Zone::unknown(name, "no beacon of global came yet")];
        }
        let proxy = self.beacons.progress.borrow().proxy.as_ref().map(|it| it.name.to_string());
        let shown = Zone { proxy, ..Zone::of(name, &stages, STALE) };
        let away = global.state().borrow().connected_since.is_none();
        vec![if away { shown.away("the zone is not connected with global") } else { shown }]
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct At {
    stage: &'static str,
}

impl Collector for Own {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Time since a beacon of global came to a stage of the line";
        let kind = ConstGauge::new(0.0).metric_type();
        let mut family = encoder.encode_descriptor("freshness_seconds", help, None, kind)?;
        for (stage, age) in self.stages() {
            let at = At { stage: stage.name() };
            ConstGauge::new(age.as_secs_f64()).encode(family.encode_family(&at)?)?;
        }
        Ok(())
    }
}
