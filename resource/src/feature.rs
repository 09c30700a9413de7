//! What two control planes agreed on when they connected.

/// Something that not every peer understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Feature {
    /// Names travel with a hash of their origin.
    HashSuffix,
    /// Policies of producers reach other zones.
    ProducerPolicyFlow,
    /// A hostname generator may select multi-zone services.
    HostnameGeneratorMultiZone,
    /// The first state of a kind may come in several responses, and a later response may be
    /// complete again: `atoll-split`. No Kuma peer announces it.
    Split,
    /// A stream resumes by store epoch and revision: `atoll-resume`.
    Resume,
    /// Beacons travel the line down and up, so that each end sees how fresh the other is:
    /// `atoll-beacon`.
    Beacon,
    /// Global may ask what became of a resource in the proxies of the zone: `atoll-propagation`.
    Propagation,
}

/// A set of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Features(u8);

impl Features {
    /// The same set with `feature`.
    #[must_use]
    pub const fn with(self, feature: Feature) -> Self {
        Self(self.0 | 1 << feature as u8)
    }

    /// Whether `feature` is in the set.
    #[must_use]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u8) != 0
    }

    /// What both sets have.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The set as a number.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether every feature of `needs` is in the set.
    #[must_use]
    pub const fn cover(self, needs: Self) -> bool {
        self.0 & needs.0 == needs.0
    }
}
