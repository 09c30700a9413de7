//! A response as it came in, unwrapped.

use crate::{
    dialect::{Broken, Dialect, extent},
    form::parse_hex,
    received::{Received, Unreadable},
    transit::TransitKey,
};
use delta::{Cursor, Extent, Versions};
use proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use resource::{Kind, ResourceKey};
use store::view::KindId;

/// A response of a peer about a kind that it was asked for.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The kind.
    pub kind: KindId,
    /// What an answer to it names.
    pub nonce: String,
    /// How to take it.
    pub extent: Extent,
    /// Where we are when it has been applied.
    pub cursor: Option<Cursor>,
    /// Resources to add or replace.
    pub upserts: Vec<Result<Received, Unreadable>>,
    /// Their versions, as the peer counts them.
    pub versions: Versions,
    /// Resources to drop.
    pub removals: Vec<ResourceKey>,
    /// Names of the dropped ones in transit.
    pub removed: Vec<String>,
}

impl Incoming {
    /// Unwraps a response. `first` tells whether it is the first of its kind on a stream.
    pub fn read(
        (id, kind): (KindId, &Kind),
        response: DeltaDiscoveryResponse,
        dialect: Dialect,
        first: bool,
    ) -> Result<Self, Broken> {
        let (extent, cursor) = extent(&response, dialect, first)?;
        // Plain peers have a longer hash: its beginning tells as much.
        let beginning = |text: &str| parse_hex(text.get(..32).unwrap_or(text));
        let version = |text: &str| beginning(text).unwrap_or(delta::Version([0; 16]));
        let versions = response.resources.iter();
        let versions = versions.map(|r| (r.name.as_str().into(), version(&r.version))).collect();
        let upserts = response.resources.into_iter().map(|r| Received::read(kind, r)).collect();
        // What does not name a resource names nothing that is here.
        let key = |name: &String| match name.parse::<TransitKey>() {
            Ok(key) => Some(ResourceKey::from(key)),
            Err(_) => (!name.contains('.')).then(|| ResourceKey::global(name)),
        };
        let removals = response.removed_resources.iter().filter_map(key).collect();
        let (nonce, removed) = (response.nonce, response.removed_resources);
        Ok(Self { kind: id, nonce, extent, cursor, upserts, versions, removals, removed })
    }

    /// A resource that came before, as a response of its own that nobody waits for.
    pub(crate) fn again(kind: KindId, received: Received) -> Self {
        Self {
            kind,
            nonce: String::new(),
            extent: Extent::Delta,
            cursor: None,
            upserts: vec![Ok(received)],
            versions: Versions::new(),
            removals: Vec::new(),
            removed: Vec::new(),
        }
    }

    /// The resources to add or replace, as far as they can be told.
    pub fn keys(&self) -> impl Iterator<Item = &ResourceKey> {
        self.upserts.iter().filter_map(|received| match received {
            Ok(received) => Some(&received.key),
            Err(unreadable) => unreadable.key.as_ref(),
        })
    }

    /// Whether there are some that cannot be told.
    #[must_use]
    pub fn has_unknown(&self) -> bool {
        self.upserts.iter().any(|it| it.as_ref().is_err_and(|it| it.key.is_none()))
    }
}
