//! Envoy configuration. Knows no kind.

pub mod names;
mod protocol;
pub mod target;

pub use self::{
    protocol::{Protocol, UnknownProtocol},
    target::{Match, Rule, TargetKind, TargetRef, To, ToKind, ToRef},
};
