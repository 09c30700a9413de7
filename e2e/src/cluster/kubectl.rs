//! The client of a cluster.

use crate::{PATIENCE, peer::Client};
use anyhow::{Context, Result, bail};
use apiserver::{ADMINISTRATOR, Setup};
use serde_json::Value;
use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

/// The kubectl of a user.
#[derive(Clone, Debug)]
pub struct Kubectl {
    words: Vec<String>,
}

impl Kubectl {
    /// That of the administrator.
    pub(super) fn new(setup: &Setup) -> Result<Self> {
        let program = setup.programs.of("kubectl")?.display().to_string();
        let config = format!("--kubeconfig={}", setup.file(ADMINISTRATOR.1).display());
        let cache = format!("--cache-dir={}", setup.file("kubectl").display());
        Ok(Self { words: vec![program, config, cache] })
    }

    /// The same with `words` before it.
    pub(super) fn after(&self, words: &[String]) -> Self {
        Self { words: [words, &self.words].concat() }
    }

    /// The same for another user, such as `system:serviceaccount:<namespace>:<name>`.
    #[must_use]
    pub fn of(&self, user: &str) -> Self {
        let mut this = self.clone();
        this.words.push(format!("--as={user}"));
        this
    }

    /// The command with its arguments before `words`.
    #[must_use]
    pub fn command<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        self.words.iter().map(String::as_str).chain(words.iter().copied()).collect()
    }

    /// Runs it to its end, and returns what it says.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        said(words, &self.output(words, "")?)
    }

    /// Runs it to its end with something to read, and returns what came of it, success or not.
    pub fn output(&self, words: &[&str], input: &str) -> Result<Output> {
        let mut command = self.command(words).into_iter();
        let mut run = Command::new(command.next().context("kubectl")?);
        run.args(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = run.spawn().context("kubectl")?;
        // Who reads nothing has ended, and says why.
        child.stdin.take().context("its input")?.write_all(input.as_bytes()).ok();
        Ok(child.wait_with_output()?)
    }

    /// Applies manifests.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        let words = ["apply", "--server-side", "--filename=-"];
        said(&words, &self.output(&words, manifests)?)
    }

    /// Reads an object, such as `pod/web`.
    pub fn get(&self, namespace: &str, what: &str) -> Result<Value> {
        let said = self.run(&["get", "--namespace", namespace, what, "--output=json"])?;
        Ok(serde_json::from_str(&said)?)
    }

    /// Waits until all replicas of a Deployment or StatefulSet are those of its last change, and are
    /// ready.
    pub fn rolled_out(&self, namespace: &str, what: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        let rolled = self.run(&["rollout", "status", "--namespace", namespace, what, &timeout]);
        rolled.map(drop).with_context(|| self.troubles(namespace))
    }

    /// Waits for a condition as `kubectl wait` names it, such as `condition=Ready` or `delete`.
    pub fn wait(&self, namespace: &str, what: &str, condition: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        let condition = format!("--for={condition}");
        let words = ["wait", "--namespace", namespace, what, &condition, &timeout];
        self.run(&words).map(drop).with_context(|| self.troubles(namespace))
    }

    /// Runs a command in a container, to its end.
    pub fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: &[&str],
    ) -> Result<String> {
        let words = ["exec", "--namespace", namespace, pod, "--container", container, "--"];
        self.run(&[&words[..], command].concat())
    }

    /// A client that runs in a container of `peer`.
    pub fn client(&self, namespace: &str, pod: &str, container: &str) -> Result<Client> {
        let words = ["exec", "--stdin", "--quiet", "--namespace", namespace, pod];
        Client::of(&self.command(&[&words[..], &["--container", container, "--", "peer"]].concat()))
    }

    /// What a container wrote.
    pub fn logs(&self, namespace: &str, pod: &str, container: &str) -> Result<String> {
        self.run(&["logs", "--namespace", namespace, pod, "--container", container])
    }

    /// The pods of a namespace and its events, for people.
    #[must_use]
    pub fn troubles(&self, namespace: &str) -> String {
        let asked = [
            self.run(&["get", "pods", "--namespace", namespace, "--output=wide"]),
            self.run(&["events", "--namespace", namespace]),
        ];
        asked.map(|it| it.unwrap_or_else(|error| format!("{error:#}"))).join("\n")
    }
}

fn said(words: &[&str], output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!("kubectl {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
