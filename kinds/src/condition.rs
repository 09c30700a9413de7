//! What a control plane reports about one aspect of a resource.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const ASPECT: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";
const REASON: &str = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";

/// One aspect of a resource, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Condition {
    /// The aspect, such as `Ready`.
    #[serde(rename = "type")]
    #[schemars(length(max = 316), regex(pattern = ASPECT))]
    pub aspect: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, as one word for programs.
    #[schemars(length(min = 1, max = 1024), regex(pattern = REASON))]
    pub reason: String,
    /// Why, for people.
    #[schemars(length(max = 32768))]
    pub message: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It does.
    True,
    /// It does not.
    False,
    /// Nothing is known yet.
    Unknown,
}

/// The status of a kind of which control planes report nothing but conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conditions {
    /// Each aspect once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl resource::Status for Conditions {}

impl Condition {
    /// A condition that holds.
    #[must_use]
    pub fn holds(aspect: &str, reason: &str, message: impl Into<String>) -> Self {
        Self::of(aspect, ConditionStatus::True, reason, message.into())
    }

    /// A condition that does not hold.
    #[must_use]
    pub fn fails(aspect: &str, reason: &str, message: impl Into<String>) -> Self {
        Self::of(aspect, ConditionStatus::False, reason, message.into())
    }

    fn of(aspect: &str, status: ConditionStatus, reason: &str, message: String) -> Self {
        Self { aspect: aspect.into(), status, reason: reason.into(), message }
    }
}
