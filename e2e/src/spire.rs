//! A SPIRE server and its agent: real ones, built by `tools/go.sh spire`.

use crate::{
    PATIENCE,
    process::{Process, run},
    wait,
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// What all SPIFFE IDs of such a server begin with.
pub const TRUST_DOMAIN: &str = "spire.example";
/// Of their machine, which nobody else uses.
const PORT: u16 = 8081;
/// The agent's socket in its folder.
const SOCKET: &str = "api.sock";

/// By what an agent tells workloads apart.
#[derive(Clone, Copy, Debug)]
pub enum Attestor {
    /// The user and the program of a process.
    Unix,
    /// The pod that the node's kubelet says it is of.
    Kubelet,
}

impl Attestor {
    const fn plugin(self) -> &'static str {
        match self {
            Self::Unix => {
                r#"WorkloadAttestor "unix" {
        plugin_data {
            discover_workload_path = true
        }
    }"#
            }
            Self::Kubelet => {
                r#"WorkloadAttestor "k8s" {
        plugin_data {
            skip_kubelet_verification = true
            use_anonymous_authentication = true
        }
    }"#
            }
        }
    }
}

/// Both, on one machine. They end with this value.
#[derive(Debug)]
pub struct Spire {
    /// What stands before a command that runs there.
    inside: Vec<String>,
    attestor: Attestor,
    folder: PathBuf,
    programs: PathBuf,
    _server: Process,
    agent: Option<Process>,
}

fn programs() -> Result<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/go.sh");
    let said = Command::new(script).args(["spire", "--built"]).output().context(script)?;
    if !said.status.success() {
        bail!("{}", String::from_utf8_lossy(&said.stderr).trim());
    }
    Ok(String::from_utf8(said.stdout)?.trim().into())
}

impl Spire {
    /// Starts a server, and an agent that it believes, with their files in `folder`. What they run as
    /// has `inside` before it. Certificates of workloads are valid for `life`.
    pub fn start(
        inside: Vec<String>,
        attestor: Attestor,
        folder: &Path,
        life: Duration,
    ) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let this = |name: &str| folder.join(name).display().to_string();
        let server = format!(
            r#"server {{
    bind_address = "127.0.0.1"
    bind_port = "{PORT}"
    socket_path = "{}"
    trust_domain = "{TRUST_DOMAIN}"
    data_dir = "{}"
    default_x509_svid_ttl = "{}s"
}}
plugins {{
    DataStore "sql" {{
        plugin_data {{
            database_type = "sqlite3"
            connection_string = "{}"
        }}
    }}
    NodeAttestor "join_token" {{
        plugin_data {{}}
    }}
    KeyManager "memory" {{
        plugin_data {{}}
    }}
}}
"#,
            this("server.sock"),
            this("server"),
            life.as_secs(),
            this("server.sqlite3"),
        );
        fs::write(folder.join("server.conf"), server)?;
        let programs = programs()?;
        let server = run_in(&inside, &programs, folder, "server")?;
        let folder = folder.to_owned();
        let mut spire = Self { inside, attestor, folder, programs, _server: server, agent: None };
        let bundle = wait::until("the SPIRE server answers", PATIENCE, || {
            spire.server(&["bundle", "show", "-format", "pem"])
        })?;
        fs::write(spire.folder.join("bundle.pem"), bundle)?;
        spire.start_agent()?;
        Ok(spire)
    }

    /// Asks the server.
    fn server(&self, words: &[&str]) -> Result<String> {
        let program = self.programs.join("spire-server").display().to_string();
        let socket = self.folder.join("server.sock").display().to_string();
        run(&[&[&*program], words, &["-socketPath", &socket]].concat())
    }

    /// Starts the agent, and waits until the server believes it.
    pub fn start_agent(&mut self) -> Result<()> {
        let said = self.server(&["token", "generate", "-spiffeID", &id("/agent")])?;
        let token = said.trim().strip_prefix("Token: ").context("a token")?;
        let this = |name: &str| self.folder.join(name).display().to_string();
        let agent = format!(
            r#"agent {{
    data_dir = "{}"
    server_address = "127.0.0.1"
    server_port = "{PORT}"
    socket_path = "{}"
    trust_domain = "{TRUST_DOMAIN}"
    trust_bundle_path = "{}"
    join_token = "{token}"
}}
plugins {{
    NodeAttestor "join_token" {{
        plugin_data {{}}
    }}
    KeyManager "memory" {{
        plugin_data {{}}
    }}
    {}
}}
"#,
            this("agent"),
            self.socket().display(),
            this("bundle.pem"),
            self.attestor.plugin(),
        );
        // What an agent before this one kept is not this one's.
        fs::remove_dir_all(self.folder.join("agent")).ok();
        fs::create_dir_all(self.folder.join("public"))?;
        fs::write(self.folder.join("agent.conf"), agent)?;
        let mut agent = run_in(&self.inside, &self.programs, &self.folder, "agent")?;
        let socket = self.socket();
        wait::until("the SPIRE agent listens", PATIENCE, || {
            agent.check()?;
            let there = socket.exists().then_some(());
            there.with_context(|| format!("no {}", socket.display()))
        })?;
        self.agent = Some(agent);
        Ok(())
    }

    /// Ends the agent at once.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("there is no agent")?.kill()?;
        // A new one would find it in use.
        fs::remove_file(self.socket()).context("the agent's socket")
    }

    /// Where the agent listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("public").join(SOCKET)
    }

    /// From now on `path` of the trust domain is whoever has these selectors, such as `unix:uid:1000`.
    pub fn enter(&self, path: &str, selectors: &[&str]) -> Result<()> {
        let (parent, id) = (id("/agent"), id(path));
        let words = ["entry", "create", "-parentID", &*parent, "-spiffeID", &id];
        let selectors = selectors.iter().flat_map(|selector| ["-selector", *selector]);
        self.server(&words.into_iter().chain(selectors).collect::<Vec<_>>()).map(drop)
    }
}

/// The SPIFFE ID with a path.
#[must_use]
pub fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

/// Starts the server or the agent.
fn run_in(inside: &[String], programs: &Path, folder: &Path, which: &str) -> Result<Process> {
    let name = format!("spire-{which}");
    let program = programs.join(&name).display().to_string();
    let settings = folder.join(format!("{which}.conf")).display().to_string();
    let words = inside.iter().map(String::as_str);
    let command: Vec<&str> = words.chain([&*program, "run", "-config", &settings]).collect();
    Process::start(&name, folder, None, &command)
}
