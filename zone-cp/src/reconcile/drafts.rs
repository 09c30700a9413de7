//! What calls to a destination will look like, under the policies of a group.

use super::services::Entry;
use resource::Version;
use serde::Serialize;
use std::sync::Arc;
use xds::{
    draft::OutboundDraft,
    policy::{self, Applied, DestinationFacts},
};

/// A draft, and the versions of its parts.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) draft: OutboundDraft,
    pub(super) cluster: Version,
    pub(super) listener: Version,
    pub(super) route: Version,
}

impl Draft {
    pub(super) fn of(policies: &[Arc<Applied>], entry: &Entry) -> Self {
        fn version(part: &impl Serialize) -> Version {
            Version::of(&serde_json::to_vec(part).expect("a draft is plain JSON"))
        }
        let draft = policy::outbound(policies, &facts(entry));
        let OutboundDraft { cluster, listener, route } = &draft;
        let (cluster, listener, route) = (version(cluster), version(listener), version(route));
        Self { draft, cluster, listener, route }
    }
}

/// What policies ask about a destination.
pub(super) fn facts(entry: &Entry) -> DestinationFacts<'_> {
    let (kri, labels) = (&entry.destination.kri, &entry.service.labels);
    DestinationFacts { kri, labels, port: entry.number }
}
