//! Who a proxy is: its token.

use api::keys::TokenKeys;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use daemon::Clock;
use identity::token::{DataplaneClaims, DataplaneFacts};
use parking_lot::Mutex;
use resource::{Labels, MeshName, ResourceKey, label};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};
use store::{Kinds, view::Reader};
use tonic::{Status, metadata::MetadataMap};

/// So many meshes may be named by tokens before one of them is verified.
const MESHES: usize = 1000;

/// Verifies dataplane tokens.
pub(super) struct Tokens {
    kinds: Kinds,
    reader: Reader,
    clock: Clock,
    by_mesh: Mutex<BTreeMap<MeshName, Arc<TokenKeys>>>,
}

/// A verified token.
pub(super) struct Accepted {
    pub(super) claims: DataplaneClaims,
    pub(super) token: String,
}

/// What a token says before anything about it is known to be true.
#[derive(Deserialize)]
struct Unverified {
    #[serde(rename = "Mesh")]
    mesh: String,
}

impl Tokens {
    pub(super) fn new(kinds: &Kinds, reader: Reader, clock: Clock) -> Self {
        Self { kinds: kinds.clone(), reader, clock, by_mesh: Mutex::default() }
    }

    /// Accepts the token of a call, or says why not. Nothing else of the call was looked at.
    pub(super) fn accept(&self, metadata: &MetadataMap) -> Result<Accepted, Status> {
        let header = metadata.get("authorization");
        let header =
            header.ok_or_else(|| Status::unauthenticated("a dataplane token is missing"))?;
        let header = header.to_str().map_err(|_| Status::unauthenticated("malformed token"))?;
        // Kuma's proxies send the token alone.
        let token = header.strip_prefix("Bearer ").unwrap_or(header).trim();
        let mesh = claimed_mesh(token).ok_or_else(|| Status::unauthenticated("malformed token"))?;
        let keys = self.keys(&mesh)?;
        match keys.verify::<DataplaneClaims>(&self.reader, &self.clock, token) {
            Ok(claims) => Ok(Accepted { claims, token: token.to_owned() }),
            Err(error) => {
                tracing::warn!(%mesh, reason = %error, "dataplane token refused");
                Err(Status::unauthenticated(error.to_string()))
            }
        }
    }

    fn keys(&self, mesh: &MeshName) -> Result<Arc<TokenKeys>, Status> {
        let mut by_mesh = self.by_mesh.lock();
        if by_mesh.len() >= MESHES {
            by_mesh.clear();
        }
        Ok(match by_mesh.entry(mesh.clone()) {
            Entry::Occupied(keys) => keys.get().clone(),
            Entry::Vacant(none) => {
                none.insert(Arc::new(TokenKeys::of_mesh(&self.kinds, mesh))).clone()
            }
        })
    }
}

/// The mesh that a token names; which keys count for it depends on that.
fn claimed_mesh(token: &str) -> Option<MeshName> {
    let payload = token.split('.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let unverified: Unverified = serde_json::from_slice(&json).ok()?;
    MeshName::new(&unverified.mesh).ok()
}

/// What is asked for by a bearer.
pub(super) struct Wanted<'a> {
    pub(super) key: &'a ResourceKey,
    pub(super) labels: &'a Labels,
    /// Whether it is a zone ingress.
    pub(super) ingress: bool,
    /// Whether its identity depends on its workload, which the token must then name.
    pub(super) needs_workload: bool,
}

/// Whether the bearer of a token may be the Dataplane.
pub(super) fn admit(claims: &DataplaneClaims, wanted: &Wanted<'_>) -> Result<(), Status> {
    let labels: BTreeMap<String, String> =
        wanted.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let facts = DataplaneFacts {
        mesh: wanted.key.mesh.as_ref().map_or("", MeshName::as_str),
        name: &wanted.key.name,
        r#type: if wanted.ingress { "ingress" } else { "dataplane" },
        labels: &labels,
        workload: wanted.labels.get(label::WORKLOAD),
    };
    let refuse = |reason: String| {
        tracing::warn!(dataplane = %wanted.key, reason, "dataplane token refused");
        Status::permission_denied(reason)
    };
    claims.admits(&facts).map_err(|error| refuse(error.to_string()))?;
    if wanted.needs_workload && claims.workload.is_empty() {
        let reason = "the identity of this Dataplane contains its workload, so its token must be \
                      bound to one";
        return Err(refuse(reason.into()));
    }
    Ok(())
}
