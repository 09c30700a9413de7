//! Where the programs of Kubernetes are.

use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Says which folder `tools/kubernetes.sh` made; unset, that is asked.
const VARIABLE: &str = "ATOLL_KUBERNETES";

/// The programs of a cluster, as `tools/kubernetes.sh` makes them.
#[derive(Clone, Debug)]
pub struct Programs(PathBuf);

impl Programs {
    /// Finds them; builds nothing, since that takes minutes.
    #[expect(clippy::disallowed_methods, reason = "read where tests begin, which have no settings")]
    pub fn find() -> Result<Self> {
        if let Ok(folder) = std::env::var(VARIABLE) {
            return Self::at(folder.into()).with_context(|| format!("what {VARIABLE} names"));
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/kubernetes.sh");
        let said = Command::new(script).arg("--built").output().context(script)?;
        if !said.status.success() {
            bail!("{}", String::from_utf8_lossy(&said.stderr).trim());
        }
        Self::at(String::from_utf8(said.stdout)?.trim().into())
    }

    fn at(folder: PathBuf) -> Result<Self> {
        let this = Self(folder);
        this.of("kube-apiserver")?;
        Ok(this)
    }

    /// The file of a program.
    pub fn of(&self, name: &str) -> Result<PathBuf> {
        let folders = ["bin", "debian/usr/bin", "debian/usr/sbin"];
        let mut files = folders.iter().map(|folder| self.0.join(folder).join(name));
        let found = files.find(|file| file.is_file());
        found.with_context(|| format!("no {name} in {}", self.0.display()))
    }

    /// The root of the unpacked Debian packages.
    #[must_use]
    pub fn debian(&self) -> PathBuf {
        self.0.join("debian")
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }
}
