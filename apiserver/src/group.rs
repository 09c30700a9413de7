//! Processes that end with the test, however that ends.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

/// Processes that end when this value goes, and also when the process that holds it is killed.
///
/// A shell waits for the end of its input, whose other end is held here, and then kills its process
/// group, where all of them are.
#[derive(Debug)]
pub struct Group(Child);

/// A process of a group, which ends with this value.
#[derive(Debug)]
pub(crate) struct Member(Child);

impl Group {
    /// A group without other processes.
    pub fn new() -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read -r _; kill -9 0"]).process_group(0);
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(shell.spawn().context("sh")?))
    }

    /// Starts a process here, which the caller waits for.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        command.process_group(i32::try_from(self.0.id())?);
        command.spawn().with_context(|| format!("{command:?}"))
    }

    /// Starts a process here; what it says is appended to `log`.
    pub(crate) fn start(&self, mut command: Command, log: &Path) -> Result<Member> {
        let out = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        self.spawn(&mut command).map(Member)
    }

    /// Sends a signal to all of them.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = pid(&self.0) {
            // They may have ended already.
            kill_process_group(pid, signal).ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.0.wait().ok();
    }
}

impl Member {
    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = pid(&self.0) {
            // It may have ended already.
            kill_process(pid, signal).ok();
        }
    }

    /// How it ended; `None` while it runs.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.0.wait().ok();
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}
