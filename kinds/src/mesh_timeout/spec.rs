use crate::{GoDuration, policy};
use resource::cel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xds::{Rule, TargetRef, To};

/// Bounds how long proxies wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    policy::SOME_TRAFFIC,
    policy::SECTION_OF_INBOUND,
    (
        ".to",
        "!has(self.to) || self.to.all(to, to.targetRef.kind != 'MeshHTTPRoute' || \
         !has(to.default) || (!has(to.default.connectionTimeout) && !has(to.default.idleTimeout) \
         && (!has(to.default.http) || (!has(to.default.http.maxStreamDuration) && \
         !has(to.default.http.maxConnectionDuration) && \
         !has(to.default.http.requestHeadersTimeout)))))",
        "only requestTimeout and streamIdleTimeout may be set when kind is MeshHTTPRoute",
    ),
])))]
pub struct MeshTimeout {
    /// Which proxies; all of the mesh without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// For outgoing traffic, by destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<To<Conf>>,
    /// For incoming traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule<Conf>>,
}

/// Timeouts; zero means no limit, except for connecting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        "",
        "has(self.connectionTimeout) || has(self.idleTimeout) || has(self.http)",
        "at least one timeout should be configured",
    ),
])))]
pub struct Conf {
    /// How long connecting may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_timeout: Option<GoDuration>,
    /// How long a connection may carry nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<GoDuration>,
    /// What applies to requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
}

/// Timeouts of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        "",
        "has(self.requestTimeout) || has(self.streamIdleTimeout) || has(self.maxStreamDuration) \
         || has(self.maxConnectionDuration) || has(self.requestHeadersTimeout)",
        "at least one timeout in this section should be configured",
    ),
])))]
pub struct Http {
    /// How long a request may take, from its end to the end of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<GoDuration>,
    /// How long a stream may carry nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_idle_timeout: Option<GoDuration>,
    /// How long a stream may live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_stream_duration: Option<GoDuration>,
    /// How long a connection may live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connection_duration: Option<GoDuration>,
    /// How long the headers of a request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers_timeout: Option<GoDuration>,
}
