use crate::policy;
use resource::cel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xds::TargetRef;

/// Says what applications may reach outside the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    policy::NO_SECTION,
])))]
pub struct MeshPassthrough {
    /// Which proxies; all of the mesh without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// What they may reach.
    #[serde(default)]
    pub default: Conf,
}

/// What applications may reach outside the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// Whether all, some or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passthrough_mode: Option<PassthroughMode>,
    /// What they may reach, where it is some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_match: Option<Vec<Match>>,
}

/// What may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PassthroughMode {
    /// Everything.
    All,
    /// What is listed.
    Matched,
    /// Nothing.
    None,
}

/// A place outside the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        ".port",
        "self.protocol != 'mysql' || has(self.port)",
        "port must be defined for Mysql protocol",
    ),
    (
        ".protocol",
        "self.type != 'Domain' || !(self.protocol in ['tcp', 'mysql'])",
        "is not supported for a domain",
    ),
])))]
pub struct Match {
    /// What its value is.
    pub r#type: MatchType,
    /// A name, an address or a network.
    pub value: String,
    /// Its port; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// What is spoken.
    #[serde(default)]
    pub protocol: Protocol,
}

/// What a place is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchType {
    /// A name, or a wildcard for names.
    Domain,
    /// An address.
    #[serde(rename = "IP")]
    Ip,
    /// A network.
    #[serde(rename = "CIDR")]
    Cidr,
}

/// What is spoken outside the mesh.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Bytes.
    #[default]
    Tcp,
    /// TLS, told apart by server name.
    Tls,
    /// gRPC.
    Grpc,
    /// HTTP/1.
    Http,
    /// HTTP/2.
    Http2,
    /// MySQL, where the server speaks first.
    Mysql,
}
