//! What the builders need to know, and nothing else.

use super::permission;
use identity::{SpiffeId, TrustDomain};
use resource::Kri;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use xds::{Protocol, draft::Permissions, names::Sni};

/// Where Envoy has the certificate of its proxy from, and those that it believes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Credentials {
    /// From us, in a secret that is named after the MeshIdentity.
    Zone(Arc<Kri>),
    /// From the SPIRE agent beside it.
    Agent(SpireAgent),
}

impl Credentials {
    /// Whether a SPIRE agent has them.
    #[must_use]
    pub const fn are_of_agent(&self) -> bool {
        matches!(self, Self::Agent(_))
    }
}

/// What a SPIRE agent is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpireAgent {
    /// Who the proxy is: the agent names its certificates so.
    pub id: SpiffeId,
    /// How long Envoy waits for an answer before it goes on without.
    pub timeout: Duration,
}

/// A port of a service, as its callers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The service, with the port as section: what everything that belongs to it is named.
    pub kri: Kri,
    /// How it is asked for at an ingress; sidecars do not look at it.
    pub sni: Sni,
    /// What its application speaks.
    pub protocol: Protocol,
    /// Who may answer. Nobody, if it is empty.
    pub identities: BTreeSet<SpiffeId>,
}

/// Where a destination is. Ordered as it is generated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Used as long as those of lower priorities suffice; 0 is first.
    pub priority: u32,
    /// The zone it is in.
    pub zone: String,
    /// A replica, or an ingress in front of some.
    pub address: SocketAddr,
}

/// A destination, as a proxy offers it to its application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// The destination's name.
    pub kri: Kri,
    /// What its application speaks.
    pub protocol: Protocol,
    /// Where the proxy listens for it. Without any there is no listener.
    pub binds: BTreeSet<SocketAddr>,
    /// Whether the kernel redirects connections to there, so that nothing is bound.
    pub redirected: bool,
}

/// A port on which a proxy takes calls for its application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Its name, or its port where it has none.
    pub section: String,
    /// What the application speaks.
    pub protocol: Protocol,
    /// Where the proxy listens.
    pub bind: SocketAddr,
    /// Where the application listens.
    pub application: SocketAddr,
    /// Whether the kernel redirects connections to the proxy, so that nothing is bound.
    pub redirected: bool,
}

/// Whom a TCP inbound admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpPermissions {
    /// Which permissions of this inbound these are: another number for each change, never used
    /// again.
    pub generation: u64,
    /// The permissions.
    pub permissions: Permissions,
}

impl TcpPermissions {
    /// Whether the handshake lets the same callers through by both.
    #[must_use]
    pub fn same_callers(&self, other: &Self) -> bool {
        permission::callers(&self.permissions) == permission::callers(&other.permissions)
    }
}

/// Permissions of a TCP inbound that no longer hold, also not on open connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Withdrawn {
    /// The inbound's section.
    pub section: String,
    /// The generation.
    pub generation: u64,
}

/// Whose certificates count: the authorities of each trust domain, as PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust(pub BTreeMap<TrustDomain, BTreeSet<String>>);

/// A listener of a zone ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressListener {
    /// Its name, or its port where it has none.
    pub section: String,
    /// Where it listens.
    pub bind: SocketAddr,
}

/// A port of a service that an ingress exposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressService {
    /// How other zones ask for it.
    pub sni: Sni,
    /// The service, with the port as section.
    pub kri: Kri,
    /// The destination whose endpoints it has: that of the one service behind it, or itself.
    pub endpoints: Kri,
}
