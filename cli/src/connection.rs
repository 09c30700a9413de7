//! Which control plane to talk to, and as whom.

use crate::output::Output;
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Where control planes keep their data unless told otherwise, and so their admin token.
const DATA: [&str; 2] = ["global-cp", "zone-cp"];
const HERE: &str = "http://127.0.0.1:5681";

/// How to reach a control plane. What is not said is taken from the current context, or else a
/// control plane on this machine is meant.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Control plane")]
pub(crate) struct Connection {
    /// The address of its API, such as `https://global:5682`.
    #[arg(long, global = true, env = "ATOLL_ADDRESS")]
    pub(crate) address: Option<String>,
    /// The certificate authority that its certificate must be of (PEM).
    #[arg(long, global = true, env = "ATOLL_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// A file with the token to use.
    #[arg(long, global = true, env = "ATOLL_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The context to use instead of the current one.
    #[arg(long, global = true, env = "ATOLL_CONTEXT")]
    pub(crate) context: Option<String>,
    /// The file that remembers contexts [default: ~/.config/atoll/config.yaml].
    #[arg(long, global = true, env = "ATOLL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// What to do with contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List the contexts.
    #[command(after_help = "Example: atoll context list")]
    List,
    /// Choose the current context.
    #[command(after_help = "Example: atoll context use prod")]
    Use {
        /// Its name.
        name: String,
    },
    /// Remember the address, CA and token given by the options, and make that the current context.
    #[command(after_help = "Example: atoll context set prod --address https://global:5682 \
                      --ca-file ca.crt --token-file admin-token")]
    Set {
        /// Its name.
        name: String,
    },
    /// Forget a context.
    #[command(after_help = "Example: atoll context remove prod")]
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Contexts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Context {
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
}

/// A control plane, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) ca: Option<String>,
    /// Tried in this order.
    pub(crate) tokens: Vec<String>,
}

impl Connection {
    /// Reads the files that the connection names.
    pub(crate) fn resolve(&self) -> Result<Target> {
        let contexts = self.contexts()?;
        let name = self.context.as_ref().or(contexts.current.as_ref());
        // Who names an address does not mean the control plane of the current context.
        let context = match (&self.address, name) {
            (Some(_), _) if self.context.is_none() => None,
            (_, Some(name)) => Some(
                contexts
                    .contexts
                    .get(name)
                    .with_context(|| format!("there is no context {name:?}"))?,
            ),
            (_, None) => None,
        };
        let of = |field: fn(&Context) -> Option<PathBuf>| context.and_then(field);
        let address = self.address.clone().or_else(|| context.map(|c| c.address.clone()));
        let address = address.unwrap_or_else(|| HERE.to_owned());
        let ca_file = self.ca_file.clone().or_else(|| of(|c| c.ca_file.clone()));
        let token_file = self.token_file.clone().or_else(|| of(|c| c.token_file.clone()));
        let here = if is_here(&address) { data_folders() } else { Vec::new() };
        let ca = match ca_file {
            Some(file) => Some(read(&file)?),
            None => found(&here, "tls/ca.crt").reduce(|all, one| all + &one),
        };
        let tokens = match token_file {
            Some(file) => vec![read(&file)?.trim().to_owned()],
            None => found(&here, "admin-token").map(|token| token.trim().to_owned()).collect(),
        };
        if address.starts_with("https://") && ca.is_none() {
            bail!("{address} needs --ca-file: the CA that its certificate is of");
        }
        if !address.starts_with("https://") && !is_here(&address) && !tokens.is_empty() {
            bail!("{address} would send the token in clear over the network; use https");
        }
        Ok(Target { address: address.trim_end_matches('/').to_owned(), ca, tokens })
    }

    /// Changes what is remembered.
    pub(crate) fn edit(&self, command: &ContextCommand, out: &mut Output<'_>) -> Result<()> {
        let mut contexts = self.contexts()?;
        match command {
            ContextCommand::List => {
                let mark = |name| if contexts.current.as_ref() == Some(name) { "*" } else { "" };
                let rows = contexts.contexts.iter().map(|(name, context)| {
                    [mark(name).to_owned(), name.clone(), context.address.clone()]
                });
                return out.table(["", "NAME", "ADDRESS"], rows.collect());
            }
            ContextCommand::Use { name } => {
                if !contexts.contexts.contains_key(name) {
                    bail!("there is no context {name:?}");
                }
                contexts.current = Some(name.clone());
            }
            ContextCommand::Set { name } => {
                let address = self.address.clone().context("--address is missing")?;
                let absolute = |file: &Option<PathBuf>| {
                    file.as_ref().map(std::path::absolute).transpose().context("current folder")
                };
                let (ca_file, token_file) = (absolute(&self.ca_file)?, absolute(&self.token_file)?);
                let context = Context { address, ca_file, token_file };
                contexts.contexts.insert(name.clone(), context);
                contexts.current = Some(name.clone());
            }
            ContextCommand::Remove { name } => {
                if contexts.contexts.remove(name).is_none() {
                    bail!("there is no context {name:?}");
                }
                contexts.current = contexts.current.filter(|current| current != name);
            }
        }
        let file = self.file()?;
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        fs::write(&file, serde_saphyr::to_string(&contexts)?)
            .with_context(|| file.display().to_string())
    }

    fn contexts(&self) -> Result<Contexts> {
        let file = self.file()?;
        match fs::read_to_string(&file) {
            Ok(text) => serde_saphyr::from_str(&text).with_context(|| file.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Contexts::default()),
            Err(error) => Err(error).with_context(|| file.display().to_string()),
        }
    }

    fn file(&self) -> Result<PathBuf> {
        let home = || std::env::home_dir().map(|home| home.join(".config/atoll/config.yaml"));
        self.config.clone().or_else(home).context("no home folder; use --config")
    }
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| file.display().to_string())
}

/// Whether `address` is this machine's loopback.
fn is_here(address: &str) -> bool {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    let host = if let Some(v6) = host.strip_prefix('[') {
        v6.split(']').next().unwrap_or_default()
    } else {
        host.split(':').next().unwrap_or_default()
    };
    let loopback = |ip: std::net::IpAddr| ip.is_loopback();
    host == "localhost" || host.parse().is_ok_and(loopback)
}

/// Where control planes of this machine keep their data.
fn data_folders() -> Vec<PathBuf> {
    let system = PathBuf::from("/var/lib/atoll");
    let user = std::env::home_dir().map(|home| home.join(".local/share/atoll"));
    let folders = [Some(system), user].into_iter().flatten();
    folders.flat_map(|folder| DATA.map(|data| folder.join(data))).collect()
}

/// The files called `name` in `folders` that this user may read.
fn found(folders: &[PathBuf], name: &str) -> impl Iterator<Item = String> {
    folders.iter().filter_map(move |folder| fs::read_to_string(folder.join(name)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(config: &Path) -> Connection {
        Connection { config: Some(config.into()), ..Connection::default() }
    }

    fn edit(connection: &Connection, command: &ContextCommand) -> Result<String> {
        let mut text = Vec::new();
        connection.edit(command, &mut Output::new(&mut text))?;
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn a_context_is_remembered_and_used() {
        let folder = tempfile::tempdir().unwrap();
        let (config, token) = (folder.path().join("a/config.yaml"), folder.path().join("token"));
        fs::write(&token, "secret\n").unwrap();
        let mut here = connection(&config);
        here.address = Some("http://127.0.0.1:9".into());
        here.token_file = Some(token);
        edit(&here, &ContextCommand::Set { name: "lab".into() }).unwrap();

        let target = connection(&config).resolve().unwrap();
        let expected = Target {
            address: "http://127.0.0.1:9".into(),
            ca: None,
            tokens: vec!["secret".into()],
        };
        assert_eq!(target, expected);
        let list = edit(&connection(&config), &ContextCommand::List).unwrap();
        assert!(list.contains("lab"), "{list}");
        edit(&connection(&config), &ContextCommand::Remove { name: "lab".into() }).unwrap();
        assert_eq!(connection(&config).resolve().unwrap().address, HERE);
        let unknown = edit(&connection(&config), &ContextCommand::Use { name: "lab".into() });
        assert_eq!(unknown.unwrap_err().to_string(), r#"there is no context "lab""#);
    }

    #[test]
    fn a_token_never_leaves_in_clear() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        fs::write(&token, "secret").unwrap();
        let mut away = connection(&folder.path().join("none"));
        away.token_file = Some(token);
        away.address = Some("http://global:5681".into());
        let error = away.resolve().unwrap_err().to_string();
        assert_eq!(
            error,
            "http://global:5681 would send the token in clear over the network; use https"
        );
        away.address = Some("https://global:5682".into());
        let error = away.resolve().unwrap_err().to_string();
        assert!(error.contains("--ca-file"), "{error}");
    }

    #[test]
    fn loopback_is_here() {
        for here in ["http://localhost:1/x", "https://127.8.9.1", "http://[::1]:5681"] {
            assert!(is_here(here), "{here}");
        }
        for away in ["http://localhost.example", "http://10.0.0.1:1", "http://127.0.0.1.example"] {
            assert!(!is_here(away), "{away}");
        }
    }
}
