//! Envoy configuration. Knows no kind.

pub mod ads;
pub mod bootstrap;
pub mod draft;
mod merge;
pub mod names;
pub mod policy;
mod protocol;
mod snapshot;
pub mod target;

pub use self::{
    protocol::{Protocol, UnknownProtocol},
    snapshot::{Changes, Gone, Marker, Marks, Source, Type, changes, item},
    target::{Match, Rule, TargetKind, TargetRef, To, ToKind, ToRef},
};
