//! What is about to be generated, as named slots that policies fill.
//!
//! Where a slot ends up decides what a change of it costs: what stands in a route reaches the next
//! request and disturbs nobody, what stands in a cluster makes its connections anew, what stands in
//! a listener drains it.

use crate::target::Match;
use resource::{Kri, Version};
use serde::{Deserialize, Serialize};
use std::time::Duration;

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
