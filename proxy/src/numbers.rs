//! What a proxy publishes about itself.

use daemon::Metrics;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

/// The numbers of one proxy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    /// Whether Envoy serves.
    pub(crate) ready: Gauge,
    /// Whether there is a session.
    pub(crate) connected: Gauge,
    /// How often Envoy was started.
    pub(crate) starts: Counter,
}

impl Numbers {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let gauge = |name, help| metrics.register(name, help, Gauge::default());
        Self {
            ready: gauge("proxy_ready", "1 while Envoy serves"),
            connected: gauge("proxy_connected", "1 while there is a session"),
            starts: metrics.register("proxy_envoy_starts", "Starts of Envoy", Counter::default()),
        }
    }
}
