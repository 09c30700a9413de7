use crate::{GoDuration, TelemetryRef, policy};
use resource::cel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xds::TargetRef;

/// Says which metrics proxies offer, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    policy::NO_SECTION,
])))]
pub struct MeshMetric {
    /// Which proxies; all of the mesh without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Which, and to whom.
    #[serde(default)]
    pub default: Conf,
}

/// Which metrics there are, and who gets them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// Those of the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<Sidecar>,
    /// Those of applications beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applications: Option<Vec<Application>>,
    /// Who gets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<Backend>>,
}

/// Metrics of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// Which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<Profiles>,
    /// Whether also those of what was not used yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_unused: Option<bool>,
}

/// Which metrics of a proxy there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Profiles {
    /// Those of all of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_profiles: Option<Vec<Profile>>,
    /// Without these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Vec<Selector>>,
    /// And these, whatever was said before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<Selector>>,
}

/// Metrics under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// The name.
    pub name: ProfileName,
}

/// The names of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProfileName {
    /// All.
    All,
    /// Those that dashboards need.
    Basic,
    /// None.
    None,
}

/// Metrics by their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// How names are compared.
    pub r#type: SelectorType,
    /// With what.
    pub r#match: String,
}

/// How names are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectorType {
    /// They begin so.
    Prefix,
    /// They fit a regular expression.
    Regex,
    /// They are the same.
    Exact,
    /// They contain it.
    Contains,
}

/// An application that tells its metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    /// Its name among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The path under which it does.
    #[serde(default = "metrics")]
    pub path: String,
    /// Its address; that of the proxy's inbounds without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Its port.
    pub port: u32,
}

/// Somebody who gets metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (".prometheus", "self.type != 'Prometheus' || has(self.prometheus)", "must be defined"),
    (
        ".openTelemetry",
        "self.type != 'OpenTelemetry' || has(self.openTelemetry)",
        "must be defined",
    ),
])))]
pub struct Backend {
    /// Which of the following it is.
    pub r#type: BackendType,
    /// One who fetches them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
    /// One who is sent them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_telemetry: Option<OpenTelemetry>,
}

/// Who gets metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackendType {
    /// One who fetches them.
    Prometheus,
    /// One who is sent them.
    OpenTelemetry,
}

/// A Prometheus that fetches metrics of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prometheus {
    /// Its name, where several find different proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The port under which the proxy tells them.
    #[serde(default = "port")]
    pub port: u32,
    /// The path.
    #[serde(default = "metrics")]
    pub path: String,
    /// How it is secured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// How fetching is secured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// How.
    #[serde(default)]
    pub mode: TlsMode,
}

/// How fetching is secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// Not at all.
    #[default]
    Disabled,
    /// By a certificate beside the proxy.
    #[serde(rename = "ProvidedTLS")]
    ProvidedTls,
    /// By the identity of the proxy.
    #[serde(rename = "ActiveMTLSBackend")]
    ActiveMtlsBackend,
}

/// A collector that is sent metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenTelemetry {
    /// The collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<TelemetryRef>,
    /// How often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_interval: Option<GoDuration>,
}

fn metrics() -> String {
    "/metrics".into()
}

const fn port() -> u32 {
    5670
}
