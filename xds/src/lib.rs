//! Envoy configuration. Knows no kind.

pub mod draft;
mod merge;
pub mod names;
pub mod policy;
mod protocol;
pub mod target;

pub use self::{
    protocol::{Protocol, UnknownProtocol},
    target::{Match, Rule, TargetKind, TargetRef, To, ToKind, ToRef},
};
