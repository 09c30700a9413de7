use crate::{IntOrString, TelemetryRef, policy};
use resource::cel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xds::TargetRef;

/// Says where proxies tell the way of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    policy::NO_SECTION,
])))]
pub struct MeshTrace {
    /// Which proxies; all of the mesh without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Where, and of which requests.
    #[serde(default)]
    pub default: Conf,
}

/// Where proxies tell the way of requests, and of which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// Where: at one place, or at none if the list is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1))]
    pub backends: Option<Vec<Backend>>,
    /// Of which requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// What else is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
}

/// A place where ways are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (".zipkin", "self.type != 'Zipkin' || has(self.zipkin)", "must be defined"),
    (".datadog", "self.type != 'Datadog' || has(self.datadog)", "must be defined"),
    (
        ".openTelemetry",
        "self.type != 'OpenTelemetry' || has(self.openTelemetry)",
        "must be defined",
    ),
])))]
pub struct Backend {
    /// Which of the following it is.
    pub r#type: BackendType,
    /// A Zipkin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zipkin: Option<Zipkin>,
    /// A Datadog agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datadog: Option<Datadog>,
    /// A collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_telemetry: Option<OpenTelemetry>,
}

/// The sorts of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackendType {
    /// A Zipkin.
    Zipkin,
    /// A Datadog agent.
    Datadog,
    /// A collector.
    OpenTelemetry,
}

/// A Zipkin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Zipkin {
    /// Where it is.
    pub url: String,
    /// Whether ids have 128 bits.
    #[serde(default, rename = "traceId128bit")]
    pub trace_id128bit: bool,
    /// How it is spoken to.
    #[serde(default)]
    pub api_version: ApiVersion,
    /// Whether caller and server share a span.
    #[serde(default = "yes")]
    pub shared_span_context: bool,
}

/// How a Zipkin is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// In JSON.
    #[default]
    #[serde(rename = "httpJson")]
    HttpJson,
    /// In protobuf.
    #[serde(rename = "httpProto")]
    HttpProto,
}

/// A Datadog agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Datadog {
    /// Where it is: `http://`, host and port.
    pub url: String,
    /// Whether each direction has a service name of its own.
    #[serde(default)]
    pub split_service: bool,
}

/// A collector that speaks OpenTelemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenTelemetry {
    /// The collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<TelemetryRef>,
}

/// The ways of how many requests are told, each of a hundred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sampling {
    /// Of all, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overall: Option<IntOrString>,
    /// Of those for which a client asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IntOrString>,
    /// Of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<IntOrString>,
}

/// Something else that is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        "",
        "has(self.header) != has(self.literal)",
        "tag must have only one type defined: header, literal",
    ),
])))]
pub struct Tag {
    /// Its name.
    pub name: String,
    /// What it always is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub literal: Option<String>,
    /// The header that it is taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<TagHeader>,
}

/// A header that something is taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TagHeader {
    /// Its name.
    pub name: String,
    /// What it is without that header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

const fn yes() -> bool {
    true
}
