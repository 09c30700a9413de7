//! The numbers that a process publishes.

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::text,
    registry::{Metric, Registry},
};
use std::{fmt, sync::Arc};

/// The metrics of a process, named after the module that counts: `kds_responses`.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// Publishes `metric` and returns it, to be counted with.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.0.lock().register(name, help, metric.clone());
        metric
    }

    /// Publishes what `collector` counts whenever somebody asks.
    pub fn collect(&self, collector: impl Collector) {
        self.0.lock().register_collector(Box::new(collector));
    }

    /// All of them, in the OpenMetrics text format.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0.lock())?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
