//! The Envoy beside a workload.
