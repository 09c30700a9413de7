//! From a destination, an inbound or an identity to an Envoy resource. Pure.
