//! Programs under test.

use crate::wait;
use anyhow::{Context, Result, bail};
use apiserver::Group;
use rustix::process::Signal;
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

/// A running program with a process group of its own, which ends with this value, and with the test.
#[derive(Debug)]
pub struct Process {
    /// What it is called in messages; also the name of its log.
    pub name: String,
    /// Where its output goes.
    pub log: PathBuf,
    child: Child,
    group: Group,
}

/// The folder of this build's programs.
pub fn programs() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().context("a program lies in a folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}

impl Process {
    /// Starts `command`, in a network namespace if there is one, with its output in `folder`.
    pub fn start(
        name: &str,
        folder: &Path,
        namespace: Option<&str>,
        command: &[&str],
    ) -> Result<Self> {
        let (log, out) = log(name, folder)?;
        let mut run = prepared(namespace, command)?;
        run.stdout(out.try_clone()?).stderr(out);
        Self::spawn(name, log, run)
    }

    /// The same, and `hear` gets each line of its log at the moment when it is written.
    pub fn start_heard(
        name: &str,
        folder: &Path,
        namespace: Option<&str>,
        command: &[&str],
        mut hear: impl FnMut(&str) + Send + 'static,
    ) -> Result<Self> {
        let (log, mut out) = log(name, folder)?;
        let mut run = prepared(namespace, command)?;
        run.stdout(out.try_clone()?).stderr(Stdio::piped());
        let mut this = Self::spawn(name, log, run)?;
        let lines = BufReader::new(this.child.stderr.take().context("its log")?).lines();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                hear(&line);
                writeln!(out, "{line}").ok();
            }
        });
        Ok(this)
    }

    fn spawn(name: &str, log: PathBuf, mut run: Command) -> Result<Self> {
        let group = Group::new()?;
        let child = group.spawn(run.stdin(Stdio::null())).with_context(|| name.to_owned())?;
        Ok(Self { name: name.to_owned(), log, child, group })
    }

    /// Asks it to end, and waits.
    pub fn stop(mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.ended(limit)
    }

    /// Ends it at once, as a power failure would.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL);
        self.ended(Duration::from_secs(10)).map(drop)
    }

    /// Waits until it ends by itself.
    pub fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let (name, child) = (&self.name, &mut self.child);
        wait::until(&format!("{name} ends"), limit, || child.try_wait()?.context("it still runs"))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the whole group.
    pub fn signal(&self, signal: Signal) {
        self.group.signal(signal);
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended: {status}\n{}", self.name, self.tail()),
            None => Ok(()),
        }
    }

    /// The end of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
    }

    /// How many lines of its log contain all of `texts`.
    #[must_use]
    pub fn lines_with(&self, texts: &[&str]) -> usize {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| texts.iter().all(|text| line.contains(text))).count()
    }

    /// Whether its log contains `text`.
    #[must_use]
    pub fn said(&self, text: &str) -> bool {
        fs::read_to_string(&self.log).is_ok_and(|log| log.contains(text))
    }
}

fn log(name: &str, folder: &Path) -> Result<(PathBuf, File)> {
    let log = folder.join(format!("{name}.log"));
    let out = File::options().create(true).append(true).open(&log)?;
    Ok((log, out))
}

/// A command, in a network namespace if there is one.
fn prepared(namespace: Option<&str>, command: &[&str]) -> Result<Command> {
    let (program, arguments) = command.split_first().context("a command has a program")?;
    let Some(namespace) = namespace else {
        let mut run = Command::new(program);
        run.args(arguments);
        return Ok(run);
    };
    let mut run = Command::new("ip");
    run.args(["netns", "exec", namespace]).args(command);
    Ok(run)
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().ok();
    }
}

/// What stands before a command to run it as the user of the number `user`, who may have no name.
#[must_use]
pub fn as_user(user: u32) -> Vec<String> {
    [
        "setpriv".into(),
        format!("--reuid={user}"),
        format!("--regid={user}"),
        "--clear-groups".into(),
    ]
    .into()
}

/// Runs a command to its end.
pub fn run(command: &[&str]) -> Result<String> {
    let (program, arguments) = command.split_first().context("a command has a program")?;
    let output = Command::new(program).args(arguments).output().context(program.to_string())?;
    if !output.status.success() {
        bail!("{}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
