//! Making tokens.

use crate::{client::Client, output::Output};
use anyhow::Result;
use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// For whom.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// For a zone control plane, to join.
    #[command(after_help = "Example: atoll token zone east --valid-for 720h > east.token")]
    Zone {
        /// The zone's name; the token is good for no other.
        zone: String,
        /// How long it is valid, such as `24h`.
        #[arg(long, default_value = "8760h")]
        valid_for: String,
    },
    /// For a sidecar or zone ingress, to connect to its zone.
    #[command(after_help = "Example: atoll token dataplane --mesh default --workload cart")]
    Dataplane {
        /// The mesh of the dataplane.
        #[arg(long, short, default_value = "default")]
        mesh: String,
        /// Only for the dataplane of this name.
        #[arg(long)]
        name: Option<String>,
        /// Only for dataplanes with this label `kuma.io/workload`.
        #[arg(long)]
        workload: Option<String>,
        /// Only for dataplanes with this label, as `key=value`; may be repeated.
        #[arg(long = "tag", value_parser = pair)]
        tags: Vec<(String, String)>,
        /// `ingress` for a zone ingress.
        #[arg(long = "type")]
        proxy_type: Option<String>,
        /// How long it is valid, such as `24h`.
        #[arg(long, default_value = "8760h")]
        valid_for: String,
    },
    /// For a person or a program that uses the API.
    #[command(after_help = "Example: atoll token user --name ann --group mesh-system:admin")]
    User {
        /// The name under which requests are logged.
        #[arg(long)]
        name: String,
        /// A group; may be repeated.
        #[arg(long = "group")]
        groups: Vec<String>,
        /// How long it is valid, such as `24h`.
        #[arg(long, default_value = "24h")]
        valid_for: String,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl TokenCommand {
    /// Has the control plane make the token, and prints it.
    pub(crate) async fn run(&self, client: &Client, out: &mut Output<'_>) -> Result<()> {
        let (path, body) = self.request();
        let (_, token) = client.request(Method::POST, path, Some(&body)).await?;
        out.line(token.trim())
    }

    fn request(&self) -> (&'static str, Value) {
        match self {
            Self::Zone { zone, valid_for } => {
                let body = json!({ "zone": zone, "scope": ["cp"], "validFor": valid_for });
                ("/tokens/zone", body)
            }
            Self::Dataplane { mesh, name, workload, tags, proxy_type, valid_for } => {
                let mut by_key: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
                for (key, value) in tags {
                    by_key.entry(key).or_default().push(value);
                }
                let body = json!({
                    "mesh": mesh, "name": name.as_deref().unwrap_or_default(), "tags": by_key,
                    "type": proxy_type.as_deref().unwrap_or_default(),
                    "workload": workload.as_deref().unwrap_or_default(), "validFor": valid_for,
                });
                ("/tokens/dataplane", body)
            }
            Self::User { name, groups, valid_for } => {
                let body = json!({ "name": name, "groups": groups, "validFor": valid_for });
                ("/tokens/user", body)
            }
        }
    }
}
