//! A response of which only what matters is read.

use bytes::Bytes;
use kds::{dialect, dialect::Dialect, metadata::own_features};
use proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;

/// A `DeltaDiscoveryResponse` whose resources stay bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    #[prost(string, tag = "1")]
    pub(crate) system_version_info: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) resources: Vec<Bytes>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) nonce: String,
    #[prost(string, repeated, tag = "6")]
    pub(crate) removed_resources: Vec<String>,
}

impl Response {
    /// How to take it, and where its receiver then is.
    pub(crate) fn extent(&self) -> anyhow::Result<(delta::Extent, Option<delta::Cursor>)> {
        let said = DeltaDiscoveryResponse {
            system_version_info: self.system_version_info.clone(),
            ..DeltaDiscoveryResponse::default()
        };
        Ok(dialect::extent(&said, ours(), false)?)
    }
}

/// How these zones speak.
pub(crate) fn ours() -> Dialect {
    Dialect::Ours(own_features())
}
