//! What a test that was killed left behind, and who removes it.
//!
//! Whoever makes something with a name that others see takes a claim on that name, and holds it as
//! long as the thing is there. A claim whose owner is gone is a leftover.

use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// A name on this machine that nobody else has while this value, and its process, live.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Holds the lock.
    _file: File,
    path: PathBuf,
}

impl Claim {
    /// Takes a name; fails if somebody has it.
    pub(crate) fn take(name: &str) -> Result<Self> {
        let folder = folder();
        fs::create_dir_all(&folder)?;
        let path = folder.join(name);
        Self::of(path).with_context(|| format!("{name} is taken"))
    }

    fn of(path: PathBuf) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&path)?;
        file.try_lock()?;
        // Who had it may have removed the file after it was opened here.
        if fs::metadata(&path)?.ino() != file.metadata()?.ino() {
            bail!("somebody just gave it up");
        }
        Ok(Self { _file: file, path })
    }

    /// Names that begin with `prefix` and whose owners are gone, without it. Whoever asks has them
    /// now, and removes what they stand for.
    pub(crate) fn abandoned(prefix: &str) -> Vec<(String, Self)> {
        let entries = fs::read_dir(folder()).into_iter().flatten().flatten();
        let named = entries.filter_map(|it| it.file_name().into_string().ok());
        let claimed = named.filter_map(|name| {
            let rest = name.strip_prefix(prefix)?.to_owned();
            Some((rest, Self::of(folder().join(&name)).ok()?))
        });
        claimed.collect()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

fn folder() -> PathBuf {
    std::env::temp_dir().join("atoll-claims")
}

/// Removes the temporary folders whose names begin so.
pub(crate) fn remove_folders(prefix: &str) {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let ours = |path: &Path| {
        path.file_name().and_then(|it| it.to_str()).is_some_and(|it| it.starts_with(prefix))
    };
    for path in entries.map(|it| it.path()).filter(|it| ours(it)) {
        fs::remove_dir_all(path).ok();
    }
}
