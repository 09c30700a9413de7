//! The Envoy through which other zones come in.
