use crate::{TelemetryRef, policy};
use resource::cel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xds::{Rule, TargetRef, To};

/// Says where proxies write down what they did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    policy::SOME_TRAFFIC,
    policy::ONE_DIRECTION,
    policy::SECTION_OF_INBOUND,
])))]
pub struct MeshAccessLog {
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

/// Where it is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// All of these; an empty list is nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<Backend>>,
}

/// One place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Which of the following it is.
    pub r#type: BackendType,
    /// A server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// A file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<File>,
    /// A collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_telemetry: Option<OpenTelemetry>,
}

/// The sorts of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackendType {
    /// A server.
    Tcp,
    /// A file.
    File,
    /// A collector.
    OpenTelemetry,
}

/// A server that takes lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tcp {
    /// Its host and port.
    #[schemars(length(min = 1))]
    pub address: String,
    /// What a line looks like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

/// A file on the machine of the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// Its path.
    #[schemars(length(min = 1))]
    pub path: String,
    /// What a line looks like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

/// What a line looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Format {
    /// Which of the following it is.
    pub r#type: FormatType,
    /// A text in which commands such as `%START_TIME%` are filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<String>,
    /// The fields of an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Vec<Field>>,
    /// Whether fields without a value are left out.
    #[serde(default)]
    pub omit_empty_values: bool,
}

/// The sorts of formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FormatType {
    /// A text.
    Plain,
    /// An object.
    Json,
}

/// A named value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// Its name.
    pub key: String,
    /// The value, in which commands are filled in.
    pub value: String,
}

/// A collector that speaks OpenTelemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenTelemetry {
    /// What each record says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Vec<Attribute>>,
    /// What a record contains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// The collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<TelemetryRef>,
}

/// A named value of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attribute {
    /// Its name.
    #[schemars(regex(pattern = r"^[a-z]([a-z0-9]|[._][a-z0-9])*$"))]
    pub key: String,
    /// The value, in which commands are filled in.
    pub value: String,
}
