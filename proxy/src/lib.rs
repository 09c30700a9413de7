//! Runs one Envoy: session with its zone, bootstrap, supervision, drain.
