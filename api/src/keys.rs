//! The keys of tokens, as they are stored: secrets named by a prefix and a serial number.

use super::{
    Problem,
    access::{User, unauthenticated},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use daemon::Clock;
use identity::token::{self, Accepted, Claims, KeySet, Refused, Revocations, UserClaims};
use parking_lot::Mutex;
use resource::{Kind, MeshName, Resource, ResourceKey};
use std::sync::Arc;
use store::{
    Kinds,
    view::{KindId, Reader, Revision},
};

/// The kind of secrets outside meshes.
pub const GLOBAL_SECRET: &str = "GlobalSecret";
/// The kind of secrets of a mesh.
pub const SECRET: &str = "Secret";
/// What the names of the keys of user tokens begin with.
pub const USER_KEYS: &str = "user-token-signing-key-";
/// The secret that lists the IDs of user tokens that are not accepted any more.
pub const USER_REVOCATIONS: &str = "user-token-revocations";
/// What the names of the keys of zone tokens begin with.
pub const ZONE_KEYS: &str = "zone-token-signing-key-";

/// What the names of all secrets about dataplane tokens begin with.
pub const DATAPLANE_TOKENS: &str = "dataplane-token-";

/// What the names of the keys of a mesh's dataplane tokens begin with.
#[must_use]
pub fn dataplane_keys(mesh: &MeshName) -> String {
    format!("dataplane-token-signing-key-{mesh}-")
}

/// What verifies tokens of one sort now.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The keys.
    pub keys: KeySet,
    /// The tokens that are not accepted any more.
    pub revoked: Revocations,
}

/// The last revisions of the kinds that were read.
type At = [Option<Revision>; 2];

/// The keys of one sort of tokens, read again when a secret changed.
#[derive(Debug)]
pub struct TokenKeys {
    kind: Option<(KindId, Kind)>,
    /// Where else tokens may be revoked.
    global: Option<(KindId, Kind)>,
    mesh: Option<MeshName>,
    prefix: String,
    revocations: String,
    last: Mutex<Option<(At, Arc<Loaded>)>>,
}

impl TokenKeys {
    /// Keys that are secrets outside meshes. `revocations` names the secret with the list of IDs.
    #[must_use]
    pub fn global(kinds: &Kinds, prefix: &str, revocations: &str) -> Self {
        Self::of(kinds, GLOBAL_SECRET, None, prefix.into(), revocations.into())
    }

    /// The keys of the dataplane tokens of `mesh`. They are revoked by a secret of the mesh, where
    /// Kuma's documents put the list, or by one outside meshes, where Kuma looks for it.
    #[must_use]
    pub fn of_mesh(kinds: &Kinds, mesh: &MeshName) -> Self {
        Self::of(
            kinds,
            SECRET,
            Some(mesh.clone()),
            dataplane_keys(mesh),
            format!("dataplane-token-revocations-{mesh}"),
        )
    }

    fn of(
        kinds: &Kinds,
        kind: &str,
        mesh: Option<MeshName>,
        prefix: String,
        revocations: String,
    ) -> Self {
        let find = |name: &str| {
            kinds.iter().find(|(_, known)| known.name == name).map(|(id, kind)| (id, *kind))
        };
        let global = mesh.as_ref().and_then(|_| find(GLOBAL_SECRET));
        Self { kind: find(kind), global, mesh, prefix, revocations, last: Mutex::new(None) }
    }

    /// The keys as they are stored now.
    pub fn now(&self, reader: &Reader) -> Arc<Loaded> {
        let Some((id, kind)) = self.kind else { return Arc::default() };
        let (revision, rows) = reader.rows(id);
        let global = self.global.map(|(id, kind)| (reader.rows(id), kind));
        let revision = [Some(revision), global.as_ref().map(|((revision, _), _)| *revision)];
        let mut last = self.last.lock();
        if let Some((at, loaded)) = &*last
            && *at == revision
        {
            return loaded.clone();
        }
        let mut loaded = Loaded::default();
        let from = ResourceKey { mesh: self.mesh.clone(), name: self.prefix.as_str().into() };
        for row in rows.after(Some(&from)) {
            let key = &row.head.key;
            let Some(serial) = key.name.strip_prefix(&*self.prefix) else { break };
            if key.mesh != self.mesh {
                break;
            }
            let (Ok(serial), Some(pem)) = (serial.parse(), text(&kind, row)) else { continue };
            if let Err(error) = loaded.keys.insert(serial, &pem) {
                tracing::warn!(key = %key, %error, "a signing key is not usable");
            }
        }
        let list = ResourceKey { mesh: self.mesh.clone(), name: self.revocations.as_str().into() };
        let of_mesh = rows.get(&list).and_then(|row| text(&kind, row));
        let list = ResourceKey::global(&self.revocations);
        let global = global.and_then(|((_, rows), kind)| text(&kind, rows.get(&list)?));
        let lists: Vec<String> = [of_mesh, global].into_iter().flatten().collect();
        loaded.revoked = Revocations::parse(&lists.join(","));
        let loaded = Arc::new(loaded);
        *last = Some((revision, loaded.clone()));
        loaded
    }

    /// Accepts a token and says what it claims, or why not.
    pub fn verify<C: Claims>(
        &self,
        reader: &Reader,
        clock: &Clock,
        token: &str,
    ) -> Result<C, Refused> {
        self.accept(reader, clock, token).map(|accepted| accepted.claims)
    }

    /// Accepts a token and says all about it, or why not.
    pub fn accept<C: Claims>(
        &self,
        reader: &Reader,
        clock: &Clock,
        token: &str,
    ) -> Result<Accepted<C>, Refused> {
        let loaded = self.now(reader);
        token::verify(&loaded.keys, token, clock.now(), &loaded.revoked)
    }
}

/// The text in a secret outside meshes; `None` if there is none of that name, or no text in it.
#[must_use]
pub fn global_secret(reader: &Reader, kinds: &Kinds, name: &str) -> Option<String> {
    let (id, kind) = kinds.iter().find(|(_, kind)| kind.name == GLOBAL_SECRET)?;
    text(kind, reader.get(id, &ResourceKey::global(name))?.as_ref())
}

/// What a secret holds, if it is text.
pub(crate) fn text(kind: &Kind, row: &Resource) -> Option<String> {
    let spec = kind.to_json(&row.spec).ok()?;
    let data = STANDARD.decode(spec.get("data")?.as_str()?).ok()?;
    String::from_utf8(data).ok()
}

/// The keys that the API itself uses.
#[derive(Debug)]
pub(crate) struct Keys {
    users: TokenKeys,
}

impl Keys {
    pub(crate) fn new(kinds: &Kinds) -> Self {
        Self { users: TokenKeys::global(kinds, USER_KEYS, USER_REVOCATIONS) }
    }

    /// Who holds `token`. Whoever sends a bad one learns nothing about why.
    pub(crate) fn user(
        &self,
        token: &str,
        reader: &Reader,
        clock: &Clock,
    ) -> Result<User, Problem> {
        match self.users.verify::<UserClaims>(reader, clock, token) {
            Ok(claims) => Ok(User::authenticated(claims.name, claims.groups)),
            Err(reason) => {
                tracing::info!(%reason, "user token refused");
                Err(unauthenticated())
            }
        }
    }
}
