use crate::{GoDuration, IntOrString, policy};
use resource::cel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xds::{Rule, TargetRef, To};

/// Makes requests fail on purpose, to see how callers cope.
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
])))]
pub struct MeshFaultInjection {
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

/// Which faults there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// Faults of requests, in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Vec<Fault>>,
}

/// Faults of some requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// They are answered without being served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
    /// They wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Their answers come slowly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_bandwidth: Option<ResponseBandwidth>,
}

/// Answers requests without serving them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Abort {
    /// With this status.
    pub http_status: i32,
    /// How many, of a hundred.
    pub percentage: IntOrString,
}

/// Lets requests wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delay {
    /// How long.
    pub value: GoDuration,
    /// How many, of a hundred.
    pub percentage: IntOrString,
}

/// Slows down answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResponseBandwidth {
    /// How fast they may be, such as `50 Mbps`.
    pub limit: String,
    /// How many, of a hundred.
    pub percentage: IntOrString,
}
