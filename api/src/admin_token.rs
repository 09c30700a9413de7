//! The token of the administrator: made at the first start, kept in a file that only its owner can
//! read. Nobody is the administrator because of an address.

use super::{
    access::ADMIN,
    keys::{TokenKeys, USER_KEYS, USER_REVOCATIONS},
};
use bytes::Bytes;
use daemon::Clock;
use identity::token::{self, SigningKey, UserClaims};
use kinds::{global_secret::GlobalSecret, labels::Place};
use resource::{ResourceKey, Spec as _};
use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::{Backend, Expected, Item, Kinds, StoreError, view::Edit};

/// The name of the file in the data directory.
pub const FILE: &str = "admin-token";
/// As long as tokens of control planes live elsewhere.
const TEN_YEARS: Duration = Duration::from_hours(24 * 3650);

/// There is no admin token.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// The key that signs it cannot be made or stored.
    #[error("the signing key of user tokens cannot be made")]
    Key(#[source] resource::BoxError),
    /// The key cannot be stored.
    #[error("the signing key of user tokens cannot be stored")]
    Store(#[from] StoreError),
    /// It cannot be signed.
    #[error("the admin token cannot be made")]
    Mint(#[from] token::MintError),
    /// It cannot be written down.
    #[error("{} cannot be written", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Makes the key that signs user tokens if there is none, and the file with the administrator's
/// token in `data` if that is not there.
pub async fn ensure(
    backend: &impl Backend,
    kinds: &Kinds,
    place: &Place,
    data: &Path,
    clock: &Clock,
) -> Result<(), AdminTokenError> {
    let keys = TokenKeys::global(kinds, USER_KEYS, USER_REVOCATIONS);
    if keys.now(&backend.reader()).keys.signing_serial().is_none() {
        let item = signing_key(kinds, place, &format!("{USER_KEYS}1"));
        let committed = backend.commit(vec![item.map_err(AdminTokenError::Key)?]).await?;
        backend.wait_for(committed.revision).await?;
    }
    let path = data.join(FILE);
    if path.exists() {
        return Ok(());
    }
    let loaded = keys.now(&backend.reader());
    let claims = UserClaims { name: ADMIN.into(), groups: vec![ADMIN.into()] };
    let token = token::mint(&loaded.keys, &claims, clock.now(), TEN_YEARS)?;
    write(&path, &token).map_err(|source| AdminTokenError::File { path, source })
}

/// The secret `name` outside meshes, with a new key that signs tokens, to be created.
pub fn signing_key(kinds: &Kinds, place: &Place, name: &str) -> Result<Item, resource::BoxError> {
    let (id, kind) = kinds
        .iter()
        .find(|(_, kind)| kind.name == GlobalSecret::KIND)
        .ok_or("there is no kind of secrets")?;
    let pem = SigningKey::generate()?;
    let spec: resource::AnySpec = Arc::new(GlobalSecret::of(pem.private_pem().as_bytes()));
    let key = ResourceKey::global(name);
    let labels = kinds::labels::own(*kind, &key, place);
    let row = kind.resource(key, labels, kind.encode(&spec)?, Bytes::new(), kinds.peer)?;
    Ok(Item { kind: id, expected: Expected::Nothing, edit: Edit::Put(Arc::new(row)) })
}

/// By rename, so that nobody reads half of it.
fn write(path: &Path, token: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    // What an interrupted start left.
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use resource::Peer;
    use std::os::unix::fs::PermissionsExt as _;
    use store::{Memory, open};

    #[tokio::test]
    async fn the_token_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Zone };
        let clock = Clock::system();
        let (store, writer) = open(Memory::new(1), kinds.clone(), clock.clone()).unwrap();
        let made = async {
            ensure(&store, &kinds, &Place::Global, folder.path(), &clock).await.unwrap();
            let path = folder.path().join(FILE);
            let first = fs::read_to_string(&path).unwrap();
            ensure(&store, &kinds, &Place::Global, folder.path(), &clock).await.unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), first);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let keys = TokenKeys::global(&kinds, USER_KEYS, USER_REVOCATIONS);
            keys.verify::<UserClaims>(&store.reader(), &clock, &first).unwrap()
        };
        let claims = store::conformance::while_running(writer, made).await;
        assert_eq!(claims, UserClaims { name: ADMIN.into(), groups: vec![ADMIN.into()] });
    }
}
