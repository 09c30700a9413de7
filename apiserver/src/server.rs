//! One API server with its etcd.

use crate::{
    group::{Group, Member},
    kubeconfig::Kubeconfig,
    setup::{ADMINISTRATOR, Setup, free_address},
};
use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a start may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often to look whether it is ready.
const PAUSE: Duration = Duration::from_millis(50);

/// What a server is started with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether controllers run: they delete what is in a namespace or has an owner that went, count
    /// what a quota limits, make service accounts. Without them no pod needs a service account.
    pub controllers: bool,
    /// More flags of kube-apiserver.
    pub flags: Vec<String>,
}

/// A running API server with nothing in it, which ends with this value.
#[derive(Debug)]
pub struct ApiServer {
    server: Option<Member>,
    _others: Vec<Member>,
    group: Group,
    options: Options,
    setup: Setup,
    _folder: TempDir,
}

/// A server that was stopped with all its connections open; it goes on when this value goes.
#[derive(Debug)]
pub struct Paused<'a>(&'a Member);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

impl ApiServer {
    /// Starts one and waits until it is ready.
    pub fn start() -> Result<Self> {
        Self::start_with(Options::default())
    }

    /// The same with options.
    pub fn start_with(options: Options) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let setup = Setup::new(folder.path().to_owned(), free_address()?, &[])?;
        let (group, others) = (Group::new()?, Vec::new());
        let mut this =
            Self { server: None, _others: others, group, options, setup, _folder: folder };
        let etcd = this.run("etcd", &this.setup.etcd())?;
        this._others.push(etcd);
        this.start_again()?;
        if this.options.controllers {
            let controllers = this.run("kube-controller-manager", &this.setup.controllers())?;
            this._others.push(controllers);
        }
        Ok(this)
    }

    fn run(&self, program: &str, flags: &[String]) -> Result<Member> {
        let mut command = Command::new(self.setup.programs.of(program)?);
        command.args(flags);
        self.group.start(command, &self.log(program))
    }

    /// Starts it after a stop, with the data that it had, and waits until it is ready.
    pub fn start_again(&mut self) -> Result<()> {
        let mut flags = self.setup.server();
        // The addresses of Endpoints cannot be loopback.
        flags.push("--endpoint-reconciler-type=none".to_owned());
        if !self.options.controllers {
            flags.push("--disable-admission-plugins=ServiceAccount".to_owned());
        }
        flags.extend(self.options.flags.iter().cloned());
        let server = self.run("kube-apiserver", &flags)?;
        let server = self.server.insert(server);
        let ready = becomes_ready(server, &self.setup);
        ready.with_context(|| tail(&self.setup.file("kube-apiserver.log")))
    }

    /// Ends the API server; its data stays.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Stops the API server as it is: it holds its connections and says nothing.
    pub fn pause(&self) -> Result<Paused<'_>> {
        let server = self.server.as_ref().context("it does not run")?;
        server.signal(Signal::STOP);
        Ok(Paused(server))
    }

    /// Where it is, and its administrator.
    #[must_use]
    pub fn config(&self) -> Kubeconfig {
        self.setup.kubeconfig(ADMINISTRATOR.0)
    }

    /// The kubeconfig of its administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.setup.file(ADMINISTRATOR.1)
    }

    /// The kubeconfig of a user, such as `system:serviceaccount:<namespace>:<name>`.
    pub fn kubeconfig_of(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let file = self.setup.file(&user.replace([':', '/'], "-"));
        self.config().write_as(&file, user, groups)?;
        Ok(file)
    }

    /// Runs kubectl as the administrator, and returns what it says.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(self.setup.programs.of("kubectl")?);
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command.arg("--cache-dir").arg(self.setup.file("kubectl")).args(words);
        let said = command.output().context("kubectl")?;
        if !said.status.success() {
            bail!("kubectl {}: {}", words.join(" "), String::from_utf8_lossy(&said.stderr).trim());
        }
        Ok(String::from_utf8(said.stdout)?)
    }

    /// The log of `etcd`, `kube-apiserver` or `kube-controller-manager`.
    #[must_use]
    pub fn log(&self, program: &str) -> PathBuf {
        self.setup.file(&format!("{program}.log"))
    }
}

#[expect(clippy::disallowed_methods, reason = "another process has no clock that could be paused")]
fn becomes_ready(server: &mut Member, setup: &Setup) -> Result<()> {
    let start = Instant::now();
    loop {
        if let Some(status) = server.ended()? {
            bail!("kube-apiserver ended: {status}");
        }
        match setup.ready() {
            Ok(()) => return Ok(()),
            Err(error) if start.elapsed() > PATIENCE => {
                return Err(error.context(format!("kube-apiserver is not ready in {PATIENCE:?}")));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// The end of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
}
