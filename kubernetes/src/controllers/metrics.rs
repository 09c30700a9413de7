//! What is counted of controllers.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

/// What became of something: a write, or a thing to tell.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Became {
    outcome: &'static str,
}

/// See the module. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    writes: Family<Became, Counter>,
    /// Pods and Services that are not looked at since they changed, or are being written.
    pub(super) behind: Gauge,
    /// Pods and Services of which something was refused.
    pub(super) refused: Gauge,
}

impl Metrics {
    pub(super) fn new(metrics: &daemon::Metrics) -> Self {
        let this = Self::default();
        let help = "Resources of pods and Services that were written";
        metrics.register("controllers_writes", help, this.writes.clone());
        let help = "Pods and Services that are not worked out since they changed";
        metrics.register("controllers_behind", help, this.behind.clone());
        let help = "Pods and Services of which a resource was refused";
        metrics.register("controllers_refused", help, this.refused.clone());
        this
    }

    pub(super) fn wrote(&self, outcome: &'static str) {
        self.writes.get_or_create(&Became { outcome }).inc();
    }
}

/// What became of events. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct Told(Family<Became, Counter>);

impl Told {
    pub(super) fn new(metrics: &daemon::Metrics) -> Self {
        Self(metrics.register("controllers_events", "Events told of objects", Family::default()))
    }

    pub(super) fn count(&self, outcome: &'static str) {
        self.0.get_or_create(&Became { outcome }).inc();
    }
}
