//! Which way the resources of a kind travel.

use super::Feature;

/// Whether a kind lives inside a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One per control plane.
    Global,
    /// Belongs to a mesh.
    Mesh,
}

/// Who writes a kind, and who else gets to see it. These are all combinations that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Stays where it was written.
    Local,
    /// Global writes, zones read.
    GlobalToZones,
    /// Global writes, zones read; what a zone writes stays there.
    GlobalToZonesOrLocal,
    /// A zone writes, global reads.
    ZoneToGlobal,
    /// A zone writes, global and every other zone read.
    ZoneToZones,
    /// Both write; what a zone writes stops at global.
    BothWays,
    /// Both write; what a zone writes also reaches the other zones.
    Everywhere,
    /// Global writes, zones read, where both ends announced [`Feature::Beacon`].
    BeaconToZones,
    /// A zone writes, global reads, where both ends announced [`Feature::Beacon`].
    BeaconToGlobal,
}

impl Flow {
    /// What both ends must have announced, for the kinds that the protocol does not have. Whether
    /// they travel down or up is all that there is to know about them.
    #[must_use]
    pub const fn only_with(self) -> Option<Feature> {
        match self {
            Self::BeaconToZones | Self::BeaconToGlobal => Some(Feature::Beacon),
            Self::Local
            | Self::GlobalToZones
            | Self::GlobalToZonesOrLocal
            | Self::ZoneToGlobal
            | Self::ZoneToZones
            | Self::BothWays
            | Self::Everywhere => None,
        }
    }

    /// Whether every zone subscribes to this kind.
    #[must_use]
    pub const fn requested_by_zones(self) -> bool {
        match self {
            Self::GlobalToZones
            | Self::GlobalToZonesOrLocal
            | Self::ZoneToZones
            | Self::BothWays
            | Self::Everywhere => true,
            Self::Local | Self::ZoneToGlobal | Self::BeaconToZones | Self::BeaconToGlobal => false,
        }
    }

    /// Whether every global subscribes to this kind.
    #[must_use]
    pub const fn requested_by_global(self) -> bool {
        match self {
            Self::ZoneToGlobal | Self::ZoneToZones | Self::BothWays | Self::Everywhere => true,
            Self::Local
            | Self::GlobalToZones
            | Self::GlobalToZonesOrLocal
            | Self::BeaconToZones
            | Self::BeaconToGlobal => false,
        }
    }

    /// Whether resources go down to some zones.
    #[must_use]
    pub const fn goes_down(self) -> bool {
        self.requested_by_zones() || matches!(self, Self::BeaconToZones)
    }

    /// Whether resources go up to some globals.
    #[must_use]
    pub const fn goes_up(self) -> bool {
        self.requested_by_global() || matches!(self, Self::BeaconToGlobal)
    }

    /// Whether a federated zone may write this kind.
    #[must_use]
    pub const fn written_in_zones(self) -> bool {
        !matches!(self, Self::GlobalToZones)
    }
}

/// What becomes of a name on its way to another control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransitName {
    /// A hash of the origin is appended, so that names from different zones cannot clash.
    Hashed,
    /// The name stays.
    Kept,
}

/// The sort of control plane that resources are offered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A zone control plane.
    Zone,
    /// The global control plane.
    Global,
}

/// What to send of a resource.
#[derive(Debug, PartialEq, Eq)]
pub enum Export<S> {
    /// All of it.
    AsIs,
    /// This instead.
    Changed(S),
    /// Nothing.
    Withheld,
}
