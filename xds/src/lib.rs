//! Envoy configuration. Knows no kind.

pub mod ads;
mod snapshot;

pub use self::snapshot::{Changes, Gone, Marker, Marks, Source, Type, changes, item};
