use super::PolicyKind;
use crate::target::{TargetKind, TargetRef};
use resource::{Head, ResourceKey, label};
use std::cmp::Reverse;

/// The place of a policy among all: what comes later wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    phase: super::Phase,
    kind: &'static str,
    attributes: Attributes,
    /// Alphabetically first wins.
    name: Reverse<String>,
    /// Two policies may have one display name, when one of them comes from elsewhere.
    key: Reverse<ResourceKey>,
}

/// What decides before names do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attributes {
    target: TargetKind,
    has_section: bool,
    origin: Origin,
    role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Global,
    Unknown,
    Zone,
}

/// For whom a policy was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    System,
    Producer,
    Consumer,
    WorkloadOwner,
}

impl Role {
    pub(super) fn of(head: &Head) -> Self {
        match head.labels.get(label::ROLE) {
            Some(label::ROLE_PRODUCER) => Self::Producer,
            Some(label::ROLE_CONSUMER) => Self::Consumer,
            Some(label::ROLE_WORKLOAD_OWNER) => Self::WorkloadOwner,
            _ => Self::System,
        }
    }
}

impl Order {
    pub(super) fn of(kind: &PolicyKind, head: &Head, target: &TargetRef) -> Self {
        let origin = match head.labels.get(label::ORIGIN) {
            Some(label::ORIGIN_GLOBAL) => Origin::Global,
            Some(label::ORIGIN_ZONE) => Origin::Zone,
            _ => Origin::Unknown,
        };
        let attributes = Attributes {
            target: target.kind,
            has_section: target.section_name.is_some(),
            origin,
            role: Role::of(head),
        };
        let name = Reverse(kind.kind.kri(head).name);
        let key = Reverse(head.key.clone());
        Self { phase: kind.phase, kind: kind.kind.name, attributes, name, key }
    }

    pub(super) const fn attributes(&self) -> Attributes {
        self.attributes
    }
}
