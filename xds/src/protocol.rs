use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What an application speaks.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Anything; only bytes are seen.
    #[default]
    Tcp,
    /// HTTP/1.1.
    Http,
    /// HTTP/2 in clear.
    Http2,
    /// gRPC.
    Grpc,
}

impl Protocol {
    /// Whether requests are seen.
    #[must_use]
    pub const fn is_http(self) -> bool {
        match self {
            Self::Tcp => false,
            Self::Http | Self::Http2 | Self::Grpc => true,
        }
    }

    /// As it is written in resources.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no protocol that is known here.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is none of tcp, http, http2, grpc")]
pub struct UnknownProtocol(String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        let all = [Self::Tcp, Self::Http, Self::Http2, Self::Grpc];
        let known = all.into_iter().find(|protocol| protocol.as_str() == text);
        known.ok_or_else(|| UnknownProtocol(text.into()))
    }
}
