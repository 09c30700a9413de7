//! The process, and how to start one.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::{Child, Command};

/// A command line and where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program, looked up on PATH if it has no slash.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its working directory.
    pub folder: PathBuf,
    /// Where its output goes; to ours if unset.
    pub log: Option<PathBuf>,
}

/// What a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// End, please.
    Terminate,
    /// End.
    Kill,
}

/// Starts processes.
pub trait Runner: Send + Sync + 'static {
    /// A process that was started.
    type Process: Process;

    /// Starts one. It ends when it is dropped.
    fn start(&self, launch: &Launch) -> io::Result<Self::Process>;
}

/// A process that was started.
pub trait Process: Send {
    /// Its number.
    fn id(&self) -> Option<u32>;

    /// Waits until it is gone and says how it ended. Cancel safe.
    fn exited(&mut self) -> impl Future<Output = String> + Send;

    /// Sends it a signal, if it is still there.
    fn signal(&mut self, signal: Signal);
}

/// Starts processes of the operating system, each in a process group of its own: Ctrl-C in a
/// terminal reaches us, and we drain.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Runner for System {
    type Process = Child;

    fn start(&self, launch: &Launch) -> io::Result<Child> {
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).current_dir(&launch.folder).stdin(Stdio::null());
        command.process_group(0).kill_on_drop(true);
        if let Some(log) = &launch.log {
            let log = append(log)?;
            command.stdout(log.try_clone()?).stderr(log);
        }
        command.spawn()
    }
}

fn append(path: &Path) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new().create(true).append(true).open(path)
}

impl Process for Child {
    fn id(&self) -> Option<u32> {
        Self::id(self)
    }

    async fn exited(&mut self) -> String {
        match self.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn signal(&mut self, signal: Signal) {
        // `None` once it was waited for: the number may be another process's by now.
        let Some(id) = Self::id(self) else { return };
        let _sent = send(id, signal);
    }
}

/// Sends a signal to the process `id`.
pub(crate) fn send(id: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    let signal = match signal {
        Signal::Terminate => rustix::process::Signal::TERM,
        Signal::Kill => rustix::process::Signal::KILL,
    };
    Ok(rustix::process::kill_process(pid, signal)?)
}
