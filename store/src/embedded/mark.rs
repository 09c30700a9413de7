//! The last acknowledged revision, in a small file of its own beside the store.
//!
//! redb decides by checksums which of its last two commits is whole, because a crash may tear the
//! last one. A commit that was whole and was damaged later looks the same, and would be dropped
//! without a word. The mark tells them apart: it is written after a commit is durable, so a store
//! that ends before its mark has lost something that was acknowledged.
//!
//! It is not synced, which would halve the commits per second: after a power failure it may be
//! older than the store, which says nothing. It also tells a store from a copy of it. A backup is
//! the store file alone, and without a mark its history goes on under a new epoch.

use crate::view::Revision;
use resource::Version;
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) epoch: u64,
    pub(super) revision: Revision,
}

/// The file.
#[derive(Debug)]
pub(super) struct MarkFile(File);

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This.
    Mark(Mark),
    /// A file that was not written whole: nothing can be said.
    Unreadable,
    /// No file: the store was just made, or copied here.
    Nothing,
}

const FACTS: usize = 16;
const LEN: usize = FACTS + 16;

/// Where the mark of the store at `store` is.
pub(super) fn path(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".mark");
    path.into()
}

/// What the mark at `path` says.
pub(super) fn read(path: &Path) -> io::Result<Found> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        read => read?,
    };
    Ok(decode(&bytes).map_or(Found::Unreadable, Found::Mark))
}

fn encode(mark: Mark) -> [u8; LEN] {
    let facts = [mark.epoch.to_be_bytes(), mark.revision.0.to_be_bytes()].concat();
    let mut bytes = [0; LEN];
    let (to_facts, to_hash) = bytes.split_at_mut(FACTS);
    to_facts.copy_from_slice(&facts);
    to_hash.copy_from_slice(&Version::of(&facts).to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Mark> {
    let (facts, hash) = bytes.split_at_checked(FACTS)?;
    if hash != Version::of(facts).to_be_bytes() {
        return None;
    }
    let (epoch, revision) = facts.split_first_chunk::<8>()?;
    let revision = u64::from_be_bytes(revision.try_into().ok()?);
    Some(Mark { epoch: u64::from_be_bytes(*epoch), revision: Revision(revision) })
}

impl MarkFile {
    /// Opens or creates the mark at `path`, durably, and sets it.
    pub(super) fn set(path: &Path, mark: Mark) -> io::Result<Self> {
        // Not truncated: a crash here must not look like a copied store.
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let this = Self(file);
        this.write(mark)?;
        this.0.set_len(LEN as u64)?;
        this.0.sync_all()?;
        Ok(this)
    }

    /// Sets the mark, for every process of a machine that stays up.
    pub(super) fn write(&self, mark: Mark) -> io::Result<()> {
        self.0.write_all_at(&encode(mark), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_and_a_torn_one_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder.path().join("store.redb"));
        assert_eq!(path.file_name().unwrap(), "store.redb.mark");
        assert_eq!(read(&path).unwrap(), Found::Nothing);
        let mark = |revision| Mark { epoch: 7, revision: Revision(revision) };
        let file = MarkFile::set(&path, mark(1)).unwrap();
        file.write(mark(256)).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Mark(mark(256)));
        std::fs::write(&path, [0xff; 2 * LEN]).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Unreadable);
        MarkFile::set(&path, mark(257)).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Mark(mark(257)), "whatever was there");
        for torn in 0..LEN {
            let mut bytes = encode(mark(256));
            bytes[torn] ^= 1;
            assert_eq!(decode(&bytes), None);
            assert_eq!(decode(&bytes[..torn]), None);
        }
    }
}
