//! What a resource is: names, kinds, content. No I/O.

mod content;
mod custom;
mod feature;
mod fields;
mod flow;
mod go_duration;
pub mod inspect;
mod kind;
mod kri;
pub mod label;
pub mod limit;
mod memo;
mod name;
mod schema;
mod spec;
mod violation;

pub use self::{
    content::{Audience, Exported, Head, Labels, Resource, Times, Version},
    custom::{CustomResource, cel},
    feature::{Feature, Features},
    fields::KnownFields,
    flow::{Export, Flow, Peer, Scope, TransitName},
    go_duration::{GoDuration, InvalidDuration},
    kind::{AnySpec, Kind},
    kri::{InvalidKri, Kri},
    memo::Memo,
    name::{InvalidName, MeshName, NameRule, ResourceKey, ZoneName},
    spec::{Access, BoxError, Encoding, Json, NoStatus, RejectedSpec, Spec, Status, Targets},
    violation::{Violation, Violations},
};
