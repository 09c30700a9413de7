//! The folder where Envoy runs: its bootstrap, its token, its admin socket. Ours alone.

use crate::envoy::{Signal, send};
use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, interval};
use tracing::warn;

/// A Unix socket's path has no room for more.
const LONGEST_SOCKET: usize = 107;
const ADMIN_SOCKET: &str = "envoy-admin.sock";
const BOOTSTRAP: &str = "bootstrap.yaml";
const PROCESS: &str = "envoy.pid";
const LOCK: &str = "lock";
/// What a killed Envoy has to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the working directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkdirError {
    /// It cannot be made, read or written.
    #[error("{}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Others could read the token or the admin interface.
    #[error("{} is not ours alone: its owner is {owner}, its mode {mode:o}", path.display())]
    Shared {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// Another process runs its Envoy here.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The admin socket would have too long a path.
    #[error("{} is too long a path: a socket in it needs one of at most {LONGEST_SOCKET} bytes", .0.display())]
    TooLong(PathBuf),
    /// Not the name of a file in it.
    #[error("{0:?} is not the name of a file in the working directory")]
    Name(String),
    /// An Envoy that an earlier process left here does not go.
    #[error("envoy {0}, left over from an earlier run, cannot be ended")]
    Stale(u32),
}

/// A folder that only we use, until this and its clones are dropped.
#[derive(Clone, Debug)]
pub struct Workdir {
    path: PathBuf,
    /// The system unlocks it when the process ends, however it ends.
    _lock: Arc<File>,
}

impl Workdir {
    /// Makes the folder, or takes one that is ours, and locks it.
    pub fn open(path: &Path) -> Result<Self, WorkdirError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| WorkdirError::Io { path, source }
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(path)(error));
            }
            Ok(()) | Err(_) => {}
        }
        // Not followed: a link that somebody else put here leads elsewhere.
        let found = fs::symlink_metadata(path).map_err(failed(path))?;
        let (owner, mode) = (found.uid(), found.mode() & 0o777);
        let ours = rustix::process::geteuid().as_raw();
        if !found.is_dir() || owner != ours || mode & 0o077 != 0 {
            return Err(WorkdirError::Shared { path: path.into(), owner, mode });
        }
        let path = fs::canonicalize(path).map_err(failed(path))?;
        if path.join(ADMIN_SOCKET).as_os_str().len() > LONGEST_SOCKET {
            return Err(WorkdirError::TooLong(path));
        }
        let lock = path.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&lock);
        let file = file.map_err(failed(&lock))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, _lock: Arc::new(file) }),
            Err(fs::TryLockError::WouldBlock) => Err(WorkdirError::InUse(path)),
            Err(fs::TryLockError::Error(source)) => Err(WorkdirError::Io { path: lock, source }),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where Envoy's admin interface listens.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.path.join(ADMIN_SOCKET)
    }

    /// Where Envoy's first configuration lies.
    #[must_use]
    pub fn bootstrap(&self) -> PathBuf {
        self.path.join(BOOTSTRAP)
    }

    /// Writes Envoy's first configuration.
    pub fn write_bootstrap(&self, content: &str) -> Result<(), WorkdirError> {
        self.put(BOOTSTRAP, content.as_bytes())
    }

    /// Writes a file that a peer named. Who reads it sees the old content or the new one.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), WorkdirError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let ours = [ADMIN_SOCKET, BOOTSTRAP, PROCESS, LOCK].contains(&name);
        let bad = name.is_empty() || name.len() > 100 || name.starts_with('.') || ours;
        if bad || !name.bytes().all(plain) {
            return Err(WorkdirError::Name(name.into()));
        }
        self.put(name, content)
    }

    fn put(&self, name: &str, content: &[u8]) -> Result<(), WorkdirError> {
        let (path, new) = (self.path.join(name), self.path.join(format!(".{name}.new")));
        let write = || {
            let mut file =
                File::options().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(content)?;
            fs::rename(&new, &path)
        };
        write().map_err(|source| WorkdirError::Io { path: path.clone(), source })
    }

    /// Notes which process runs here, so that a later run of ours can end it if we cannot.
    pub(crate) fn remember_process(&self, id: Option<u32>) -> Result<(), WorkdirError> {
        id.map_or(Ok(()), |id| self.put(PROCESS, id.to_string().as_bytes()))
    }

    /// Nothing runs here any more.
    pub(crate) fn forget_process(&self) -> Result<(), WorkdirError> {
        let path = self.path.join(PROCESS);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(WorkdirError::Io { path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Ends the Envoy that a process of ours left here when it was killed.
    pub(crate) async fn end_stale(&self) -> Result<(), WorkdirError> {
        let Some(id) = self.stale() else { return self.forget_process() };
        warn!(pid = id, "ending an envoy that an earlier run left");
        let began = Instant::now();
        let mut tick = interval(Duration::from_millis(10));
        while self.stale().is_some() {
            let _sent = send(id, Signal::Kill);
            if began.elapsed() > PATIENCE {
                return Err(WorkdirError::Stale(id));
            }
            tick.tick().await;
        }
        self.forget_process()
    }

    /// The process noted here, if it is there and is started with our bootstrap: the number may
    /// have gone to somebody else.
    fn stale(&self) -> Option<u32> {
        let id: u32 = fs::read_to_string(self.path.join(PROCESS)).ok()?.trim().parse().ok()?;
        let command = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let ours = self.bootstrap();
        let ours = ours.as_os_str().as_encoded_bytes();
        command.split(|b| *b == 0).any(|argument| argument == ours).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_it_holds_is_readable_by_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(&folder.path().join("a/b")).unwrap();
        workdir.write("token.yaml", b"secret").unwrap();
        workdir.write("token.yaml", b"newer").unwrap();
        let token = workdir.path().join("token.yaml");
        assert_eq!((mode(workdir.path()), mode(&token)), (0o700, 0o600));
        assert_eq!(fs::read_to_string(token).unwrap(), "newer");
        let names: Vec<_> =
            fs::read_dir(workdir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn a_folder_that_others_can_enter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("open");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(Workdir::open(&path), Err(WorkdirError::Shared { mode: 0o755, .. })));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(matches!(Workdir::open(&link), Err(WorkdirError::Shared { .. })));
        let long = folder.path().join("x".repeat(100));
        assert!(matches!(Workdir::open(&long), Err(WorkdirError::TooLong(_))));
    }

    #[test]
    fn two_proxies_cannot_share_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w");
        let first = Workdir::open(&path).unwrap();
        assert!(matches!(Workdir::open(&path), Err(WorkdirError::InUse(_))));
        drop(first);
        Workdir::open(&path).unwrap();
    }

    #[test]
    fn a_peer_names_no_file_elsewhere_and_none_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(&folder.path().join("w")).unwrap();
        let long = "x".repeat(101);
        for name in ["", ".", "..", "../x", "a/b", "/x", "a\0b", "envoy.pid", "lock", &long] {
            assert!(matches!(workdir.write(name, b""), Err(WorkdirError::Name(_))), "{name:?}");
        }
    }

    #[tokio::test]
    async fn an_envoy_left_over_is_ended_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(&folder.path().join("w")).unwrap();
        workdir.end_stale().await.unwrap();
        let sleep = |argument: &Path| {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do read _ || exit; done", "--"]).arg(argument);
            command.stdin(std::process::Stdio::piped()).spawn().unwrap()
        };
        let mut other = sleep(Path::new("/elsewhere/bootstrap.yaml"));
        workdir.remember_process(Some(other.id())).unwrap();
        workdir.end_stale().await.unwrap();
        assert_eq!(other.try_wait().unwrap(), None, "it is not ours");
        other.kill().unwrap();
        other.wait().unwrap();

        let mut left = sleep(&workdir.bootstrap());
        workdir.remember_process(Some(left.id())).unwrap();
        workdir.end_stale().await.unwrap();
        assert!(!left.wait().unwrap().success());
    }
}
