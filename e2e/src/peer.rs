//! Applications and clients that run where a workload would: started with `peer`, asked over pipes.

use crate::process::{as_user, programs};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// What a client is told to do, one JSON line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase")]
pub enum Ask {
    /// Opens a connection that the following requests use.
    Connect {
        /// An address and port.
        to: String,
    },
    /// Opens a connection with TLS, which the following requests use.
    Secure {
        /// An address and port.
        to: String,
        /// What it shows of itself.
        hello: Hello,
    },
    /// Opens a connection as the last `Secure` did, with the session that the server gave it.
    Resume,
    /// Sends an HTTP request on the open connection.
    Get {
        /// The path, with its query.
        path: String,
        /// Headers; without a `host`, that is where it was connected to.
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// Reads what a TCP server says first, or an answer.
    Read,
    /// Sends bytes and reads as many back.
    Echo {
        /// What is sent.
        text: String,
    },
    /// Sends zeros on the open connection, ends its own half of it, and reads until the other half
    /// ends.
    Pour {
        /// How many.
        bytes: u64,
    },
    /// Calls a gRPC server: sends each word on one stream once the one before was answered.
    Talk {
        /// An address and port.
        to: String,
        /// The words.
        words: Vec<String>,
    },
    /// The same with the messages of a WebSocket, which it closes in the end.
    Chat {
        /// An address and port.
        to: String,
        /// The words.
        words: Vec<String>,
    },
    /// Sends requests on the open connection, and new ones as connections end, until told to stop.
    Load,
    /// Ends the load.
    Stop,
}

/// What a client shows of itself in TLS. It takes any server: it plays the hostile part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hello {
    /// The server name that it asks for.
    pub sni: Option<String>,
    /// What it would speak inside.
    pub alpn: Vec<String>,
    /// Its certificates and its key, as PEM.
    pub identity: Option<(String, String)>,
    /// Whether it speaks TLS 1.2 and nothing newer.
    pub old: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Told {
    /// The status of an HTTP answer.
    pub status: Option<u16>,
    /// The body of an HTTP answer, or bytes of a TCP server.
    pub body: String,
    /// Why it failed; empty if it did not.
    pub error: String,
    /// Microseconds it took.
    pub micros: u64,
    /// Whether the connection is still open.
    pub open: bool,
    /// Requests that were answered with 200, and the others.
    pub good: u64,
    /// See `good`.
    pub bad: u64,
    /// The slowest request, in microseconds.
    pub slowest: u64,
    /// The longest time without a good one, in microseconds.
    pub gap: u64,
    /// How many of the good ones each application answered.
    pub by: BTreeMap<String, u64>,
    /// How many connections a load opened.
    pub opened: u64,
    /// Whether a session of TLS was resumed.
    pub resumed: bool,
}

/// A client in a namespace, or here.
#[derive(Debug)]
pub struct Client {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    /// Starts one.
    pub fn start(namespace: Option<&str>) -> Result<Self> {
        let peer = programs()?.join("peer").display().to_string();
        match namespace {
            Some(namespace) => Self::of(&["ip", "netns", "exec", namespace, &peer]),
            None => Self::of(&[&peer]),
        }
    }

    /// Starts one in `namespace` as the user of the number `user`.
    pub fn start_as(namespace: &str, user: u32) -> Result<Self> {
        let user = as_user(user);
        let user: Vec<&str> = user.iter().map(String::as_str).collect();
        let peer = programs()?.join("peer").display().to_string();
        Self::of(&[&["ip", "netns", "exec", namespace], &*user, &[&peer]].concat())
    }

    /// Starts one by `words`, which end with the program `peer`.
    pub(crate) fn of(words: &[&str]) -> Result<Self> {
        let (program, words) = words.split_first().context("a command has a program")?;
        let mut command = Command::new(program);
        command.args(words).arg("client").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let asks = child.stdin.take().context("its standard input is a pipe")?;
        let answers = BufReader::new(child.stdout.take().context("its output is a pipe")?);
        Ok(Self { child, asks, answers })
    }

    /// Asks, and returns what came of it, success or not.
    pub fn ask(&mut self, ask: &Ask) -> Result<Told> {
        writeln!(self.asks, "{}", serde_json::to_string(ask)?)?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the client ended");
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Opens a connection; fails if that fails.
    pub fn connect(&mut self, to: &str) -> Result<()> {
        let told = self.ask(&Ask::Connect { to: to.into() })?;
        if told.error.is_empty() { Ok(()) } else { bail!("{to}: {}", told.error) }
    }

    /// Asks for something; fails if that fails.
    pub fn must(&mut self, ask: &Ask) -> Result<Told> {
        let told = self.ask(ask)?;
        if told.error.is_empty() { Ok(told) } else { bail!("{ask:?}: {}", told.error) }
    }

    /// Sends a request on the open connection; fails if there is no answer.
    pub fn get(&mut self, path: &str) -> Result<Told> {
        let told = self.ask(&Ask::Get { path: path.into(), headers: BTreeMap::new() })?;
        if told.error.is_empty() { Ok(told) } else { bail!("GET {path}: {}", told.error) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
