//! Where a program keeps its data.

use rustix::process::geteuid;
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Where `program` keeps its data unless told otherwise: under `/var/lib/atoll` for root, and in
/// the home folder for everybody else. The command line looks there for the admin token.
#[must_use]
pub fn default_folder(program: &str) -> PathBuf {
    let home = || std::env::home_dir().map(|home| home.join(".local/share/atoll"));
    let system = || PathBuf::from("/var/lib/atoll");
    let all = if geteuid().is_root() { system() } else { home().unwrap_or_else(system) };
    all.join(program)
}

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: the folder {} cannot be written", .path.display())]
pub struct DataError {
    setting: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Makes the folder `path` of the setting `setting` if it is not there, for this user only, and
/// finds out whether files can be made in it.
pub fn prepare(setting: &'static str, path: &Path) -> Result<(), DataError> {
    let prepare = || {
        let exists = path.exists();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        if !exists {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        }
        let probe = path.join(".writable");
        fs::write(&probe, [])?;
        fs::remove_file(&probe)
    };
    prepare().map_err(|source| DataError { setting, path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_a_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = prepare("dataDir", &file).unwrap_err();
        let expected = format!("dataDir: the folder {} cannot be written", file.display());
        assert_eq!(error.to_string(), expected);
        assert_eq!(fs::read_to_string(&file).unwrap(), "x");
    }

    #[test]
    fn a_new_folder_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        prepare("dataDir", &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }
}
