//! What is about to be generated, as named slots that policies fill.
//!
//! Where a slot ends up decides what a change of it costs: what stands in a route reaches the next
//! request and disturbs nobody, what stands in a cluster makes its connections anew, what stands in
//! a listener drains it.

use crate::protocol::Protocol;
use crate::target::Match;
use ipnet::IpNet;
use resource::{Kri, Version};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// What calls to one destination will look like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutboundDraft {
    /// The connections to it.
    pub cluster: ClusterDraft,
    /// The connections of the application.
    pub listener: ListenerDraft,
    /// The requests.
    pub route: RouteDraft,
}

/// What calls to one inbound will look like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InboundDraft {
    /// The connections to the application.
    pub cluster: ClusterDraft,
    /// The connections of callers.
    pub listener: ListenerDraft,
    /// The requests.
    pub route: RouteDraft,
    /// The requests of some callers: the first that fits counts. Only identities tell them apart:
    /// which server name they asked for is not seen at requests.
    pub callers: Vec<(Match, RouteDraft)>,
    /// Who may call.
    pub permissions: Permissions,
}

/// What a proxy does besides calls to destinations and of inbounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyDraft {
    /// What its application reaches outside the mesh.
    pub passthrough: Passthrough,
}

/// What an application reaches outside the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Passthrough {
    /// Everything.
    #[default]
    Everything,
    /// These places, and nothing else.
    Places(BTreeSet<Place>),
}

/// A place outside the mesh. Of one draft, no two differ in how requests or bytes are spoken alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its port; every port without one.
    pub port: Option<u16>,
    /// Where it is.
    pub at: At,
    /// What is spoken there.
    pub speaks: Speaks,
}

/// Where a place outside the mesh is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// At these addresses.
    Network(IpNet),
    /// Where the name leads to, in lower case.
    Host(String),
    /// Where names lead to that end in a dot and this, in lower case.
    Under(String),
    /// Where any name leads to.
    Anywhere,
}

/// What is spoken at a place outside the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speaks {
    /// Bytes, of which the client sends the first.
    Bytes,
    /// MySQL: the server sends the first bytes.
    MySql,
    /// TLS of the application's own.
    Tls,
    /// Requests in this form.
    Requests(Protocol),
}

/// The connections that a proxy opens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterDraft {
    /// How long an attempt to connect may take. Never zero.
    pub connect_timeout: Duration,
    /// How long a connection without requests is kept; zero is for ever.
    pub idle_timeout: Duration,
    /// How long a connection is used at most; zero is for ever.
    pub max_connection_duration: Duration,
}

/// The connections that a proxy accepts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListenerDraft {
    /// How long a TCP connection without bytes is kept; zero is for ever.
    pub idle_timeout: Duration,
    /// How long an HTTP connection is used at most; zero is for ever.
    pub max_connection_duration: Duration,
    /// How long the headers of a request may take; zero is for ever.
    pub request_headers_timeout: Duration,
}

/// The requests that a proxy forwards.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteDraft {
    /// How long the whole answer may take, retries included; zero is for ever.
    pub timeout: Duration,
    /// How long a request may carry nothing; zero is for ever.
    pub stream_idle_timeout: Duration,
    /// How long a request and its answer may take; zero is for ever.
    pub max_stream_duration: Duration,
}

/// Who may call. Whom nobody allows is refused, and a refusal outranks every permission.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// Who is refused, in the order of the policies.
    pub deny: Vec<Grant>,
    /// Who is let in, unless refused.
    pub allow: Vec<Grant>,
}

/// What one rule of a policy says about callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The policy, by which Envoy's statistics name what it did.
    pub policy: Kri,
    /// The callers: who is any of these. Never empty.
    pub callers: Vec<Match>,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Default for ListenerDraft {
    fn default() -> Self {
        Self {
            idle_timeout: seconds(7200),
            max_connection_duration: Duration::ZERO,
            request_headers_timeout: Duration::ZERO,
        }
    }
}

impl Default for OutboundDraft {
    fn default() -> Self {
        Self {
            cluster: ClusterDraft {
                connect_timeout: seconds(5),
                idle_timeout: seconds(3600),
                max_connection_duration: Duration::ZERO,
            },
            listener: ListenerDraft { idle_timeout: seconds(3600), ..ListenerDraft::default() },
            route: RouteDraft {
                timeout: seconds(15),
                stream_idle_timeout: seconds(1800),
                max_stream_duration: Duration::ZERO,
            },
        }
    }
}

impl Default for InboundDraft {
    fn default() -> Self {
        Self {
            cluster: ClusterDraft {
                connect_timeout: seconds(10),
                idle_timeout: seconds(7200),
                max_connection_duration: Duration::ZERO,
            },
            listener: ListenerDraft::default(),
            route: RouteDraft {
                timeout: Duration::ZERO,
                stream_idle_timeout: seconds(3600),
                max_stream_duration: Duration::ZERO,
            },
            callers: Vec::new(),
            permissions: Permissions::default(),
        }
    }
}

fn version(draft: &impl Serialize) -> Version {
    Version::of(&serde_json::to_vec(draft).expect("a draft is plain JSON"))
}

impl OutboundDraft {
    /// Equal for equal drafts.
    #[must_use]
    pub fn version(&self) -> Version {
        version(self)
    }
}

impl InboundDraft {
    /// Equal for equal drafts.
    #[must_use]
    pub fn version(&self) -> Version {
        version(self)
    }
}

impl Permissions {
    /// Equal for equal permissions: another one is another generation.
    #[must_use]
    pub fn version(&self) -> Version {
        version(self)
    }
}
