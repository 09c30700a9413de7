//! What changes, and what that is to proxies.

use delta::Name;
use jiff::Timestamp;
use resource::{Resource, ResourceKey};
use std::{collections::BTreeSet, sync::Arc};
use xds::{Type, policy::PolicyKind};

/// What a change is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    Mesh,
    Policy(&'static PolicyKind),
    ZoneAddress,
    Dataplane,
    Service,
    Beacon,
}

impl Input {
    /// The name of the kind.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Mesh => kinds::mesh::KIND.name,
            Self::Policy(kind) => kind.kind.name,
            Self::ZoneAddress => kinds::mesh_zone_address::KIND.name,
            Self::Dataplane => kinds::dataplane::KIND.name,
            Self::Service => kinds::mesh_service::KIND.name,
            Self::Beacon => kinds::beacon::KIND.name,
        }
    }
}

/// A proxy that a change concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concerned {
    /// Its Dataplane.
    pub proxy: Name,
    /// It has not answered about all of it.
    pub pending: bool,
    /// When it had; `None` if it has not, or if that is not known any more.
    pub answered: Option<Timestamp>,
    /// When it was told.
    pub since: Timestamp,
    /// What of it is another one since.
    pub names: BTreeSet<(Type, Name)>,
}

/// The kinds in meshes that reach proxies.
pub(crate) fn reaching() -> impl Iterator<Item = &'static str> {
    let others = [Input::ZoneAddress, Input::Dataplane, Input::Service];
    kinds::POLICIES.iter().map(Input::Policy).chain(others).map(Input::kind)
}

/// A resource that appeared, changed or is gone.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) input: Input,
    pub(super) key: ResourceKey,
    pub(super) now: Option<Arc<Resource>>,
}
