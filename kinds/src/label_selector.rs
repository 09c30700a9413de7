//! Selects resources by their labels.

use resource::Labels;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Selects by labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must all be there.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
}

impl LabelSelector {
    /// Whether `labels` have all that it wants.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        labels.contain(self.match_labels.iter().map(|(key, value)| (&**key, &**value)))
    }
}
