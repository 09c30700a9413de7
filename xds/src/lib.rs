//! Envoy configuration. Knows no kind.
