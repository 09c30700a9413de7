//! What is counted.

use super::{problems::Problems, watch::Failure};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge},
};
use std::fmt;

/// A sort of request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    verb: &'static str,
    /// Of HTTP; 0 if there was no answer.
    code: u16,
}

/// See the module. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    requests: Family<Request, Counter>,
    pub(crate) retries: Counter,
    pub(crate) watches_restarted: Counter,
}

impl Metrics {
    pub(crate) fn new(metrics: &daemon::Metrics, problems: Problems) -> Self {
        let this = Self::default();
        let (requests, retries) = (this.requests.clone(), this.retries.clone());
        let restarted = this.watches_restarted.clone();
        metrics.register("store_kubernetes_requests", "Requests to the API server", requests);
        metrics.register("store_kubernetes_retries", "Writes that were tried again", retries);
        let help = "Watches that ended before their time";
        metrics.register("store_kubernetes_watches_restarted", help, restarted);
        metrics.collect(Refused(problems));
        this
    }

    pub(crate) fn requested(&self, verb: &'static str, failure: Option<&Failure>) {
        let code = failure.map_or(200, Failure::code);
        self.requests.get_or_create(&Request { verb, code }).inc();
    }
}

/// How many objects are not taken as they are.
#[derive(Debug)]
struct Refused(Problems);

impl Collector for Refused {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let count = ConstGauge::new(i64::try_from(self.0.not_taken()).unwrap_or(i64::MAX));
        let help = "Objects that are not taken as they are";
        let metric = count.metric_type();
        count.encode(encoder.encode_descriptor("store_kubernetes_problems", help, None, metric)?)
    }
}
