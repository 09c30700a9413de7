use crate::{GoDuration, Header, policy};
use resource::cel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xds::{Rule, TargetRef, To};

/// Bounds how often a proxy may be called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    policy::SOME_TRAFFIC,
    policy::ONE_DIRECTION,
    policy::SECTION_OF_INBOUND,
    (
        ".to",
        "!has(self.targetRef) || self.targetRef.kind == 'Mesh' || !has(self.to) || size(self.to) \
         == 0",
        "must not be defined: it needs a targetRef of kind Mesh",
    ),
    (
        ".rules",
        "!(!has(self.targetRef) || self.targetRef.kind == 'Mesh') || !has(self.rules) || \
         size(self.rules) == 0",
        "must not be defined: it needs a targetRef of kind Dataplane",
    ),
])))]
pub struct MeshRateLimit {
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

/// How often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// By what each proxy counts for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Local>,
}

/// Limits that each proxy counts for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    ("", "has(self.http) || has(self.tcp)", "must have at least one defined: tcp, http"),
])))]
pub struct Local {
    /// Of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// Of connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
}

/// A limit of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        "",
        "has(self.disabled) || has(self.requestRate) || has(self.onRateLimit)",
        "must have at least one defined: disabled, requestRate, onRateLimit",
    ),
])))]
pub struct Http {
    /// Whether there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// How many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<Rate>,
    /// What the answer is beyond that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_rate_limit: Option<OnRateLimit>,
}

/// A limit of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        "",
        "has(self.disabled) || has(self.connectionRate)",
        "must have at least one defined: disabled, connectionRate",
    ),
])))]
pub struct Tcp {
    /// Whether there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// How many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_rate: Option<Rate>,
}

/// So many in a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// How many.
    pub num: u32,
    /// In which time.
    pub interval: GoDuration,
}

/// The answer to a request too many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OnRateLimit {
    /// Its status; 429 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// Its headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
}

/// Headers of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Headers {
    /// Those that are put in place of others with their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub set: Option<Vec<Header>>,
    /// Those that are added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub add: Option<Vec<Header>>,
}
