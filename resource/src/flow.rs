//! Which way the resources of a kind travel.

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
}

impl Flow {
    /// Whether a zone subscribes to this kind.
    #[must_use]
    pub const fn requested_by_zones(self) -> bool {
        match self {
            Self::GlobalToZones
            | Self::GlobalToZonesOrLocal
            | Self::ZoneToZones
            | Self::BothWays
            | Self::Everywhere => true,
            Self::Local | Self::ZoneToGlobal => false,
        }
    }

    /// Whether global subscribes to this kind.
    #[must_use]
    pub const fn requested_by_global(self) -> bool {
        match self {
            Self::ZoneToGlobal | Self::ZoneToZones | Self::BothWays | Self::Everywhere => true,
            Self::Local | Self::GlobalToZones | Self::GlobalToZonesOrLocal => false,
        }
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
