//! Limits to some zones: a resource of global is for those whose Zone has certain labels.

use super::{Labels, ZoneName};
use std::sync::Arc;

/// The prefix of labels that limit a resource: what follows is a label of a Zone, which must have
/// the same value.
pub const PREFIX: &str = "zones.atoll.io/";

/// The zones that a limited resource is for, in order.
pub type Zones = Arc<[ZoneName]>;

/// What the Zones that a resource is for must be labelled with; nothing if it is for all.
pub fn limits(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
    labels.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)))
}

/// Whether a resource is for some zones only.
#[must_use]
pub fn is_limited(labels: &Labels) -> bool {
    limits(labels).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_with_the_prefix_are_labels_of_zones() {
        let labels = Labels::from_iter([
            ("stage", "x"),
            ("zones.atoll.io/stage", "canary"),
            ("zones.atoll.io/region", ""),
        ]);
        assert_eq!(limits(&labels).collect::<Vec<_>>(), [("region", ""), ("stage", "canary")]);
        assert!(
            is_limited(&labels)
                && !is_limited(
                    &labels
                        .without("x")
                        .without("zones.atoll.io/stage")
                        .without("zones.atoll.io/region")
                )
        );
    }
}
