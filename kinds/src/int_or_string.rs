//! A number or a name, as Kubernetes has them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A number or a name.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(i32),
    /// A name.
    String(String),
}

impl IntOrString {
    /// The number that it is or says; `None` if it says none.
    #[must_use]
    pub fn to_f64(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(f64::from(*number)),
            Self::String(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        }
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            Self::String(name) => f.write_str(name),
        }
    }
}
