//! The labels of a document.

use super::limits;
use resource::{Labels, Violations};
use serde_json::{Map, Value};

/// Takes the labels out of a document. What they may be is the business of [`kinds::labels`].
pub(crate) fn given(fields: &mut Map<String, Value>, violations: &mut Violations) -> Labels {
    let labels = match fields.remove("labels") {
        None | Some(Value::Null) => return Labels::default(),
        Some(Value::Object(labels)) => labels,
        Some(_) => {
            violations.add("labels", "must be a map of texts");
            return Labels::default();
        }
    };
    if labels.len() > limits::LABELS {
        violations.add("labels", format_args!("must be no more than {}", limits::LABELS));
        return Labels::default();
    }
    for (key, _) in labels.iter().filter(|(_, value)| !value.is_string()) {
        violations.add(format_args!("labels[{key:?}]"), "must be a text");
    }
    labels.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect()
}
