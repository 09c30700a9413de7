//! Making tokens.

use crate::{
    client::Client,
    output::{Format, Output},
};
use anyhow::{Context as _, Result};
use clap::Subcommand;
use reqwest::Method;
use resource::MeshName;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// For whom.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// For a zone control plane, to join.
    #[command(after_help = "Example: atoll token zone east --valid-for 720h > east.token\n\n\
                      For a Kubernetes cluster: atoll token zone east --secret atoll-zone \
                      | kubectl apply -f -")]
    Zone {
        /// The zone's name; the token is good for no other.
        zone: String,
        /// Print a Secret of this name for a cluster, with the token and the authority of global.
        #[arg(long, value_name = "NAME")]
        secret: Option<String>,
        /// The namespace of that Secret: where the zone's control plane is.
        #[arg(long, default_value = "kuma-system", requires = "secret")]
        namespace: String,
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
    #[command(
        after_help = "Example: atoll token user --name ann --role writer:shop > ann.token\n\n\
                      Without a role a token only looks at what lives outside meshes, secrets apart."
    )]
    User {
        /// The name under which requests are logged.
        #[arg(long)]
        name: String,
        /// What it may: `admin` everything; `writer:MESH` and `reader:MESH` in a mesh, secrets
        /// apart, where `*` is every mesh. May be repeated.
        #[arg(long = "role", value_parser = role, value_name = "ROLE")]
        roles: Vec<String>,
        /// A group that the token names besides; may be repeated.
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

/// The group that has a role.
fn role(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        None if text == "admin" => Ok("mesh-system:admin".to_owned()),
        Some((role @ ("writer" | "reader"), "*")) => Ok(format!("mesh:*:{role}")),
        Some((role @ ("writer" | "reader"), mesh)) => {
            let mesh = MeshName::new(mesh).map_err(|error| format!("mesh: {error}"))?;
            Ok(format!("mesh:{mesh}:{role}"))
        }
        _ => Err("must be admin, writer:MESH or reader:MESH".to_owned()),
    }
}

/// What the chart calls `zone.global.secret`.
fn secret(name: &str, namespace: &str, token: &str, ca: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": { "name": name, "namespace": namespace },
        "stringData": { "token": token, "ca.crt": ca },
    })
}

impl TokenCommand {
    /// Has the control plane make the token, and prints it.
    pub(crate) async fn run(&self, client: &Client, out: &mut Output<'_>) -> Result<()> {
        let (path, body) = self.request();
        let (_, token) = client.request(Method::POST, path, Some(&body)).await?;
        let token = token.trim();
        match self {
            Self::Zone { secret: Some(name), namespace, .. } => {
                let ca =
                    client.ca().context("--ca-file is missing: the Secret needs the authority")?;
                out.document(Format::Yaml, &secret(name, namespace, token, ca))
            }
            Self::Zone { .. } | Self::Dataplane { .. } | Self::User { .. } => out.line(token),
        }
    }

    fn request(&self) -> (&'static str, Value) {
        match self {
            Self::Zone { zone, valid_for, .. } => {
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
            Self::User { name, roles, groups, valid_for } => {
                let groups: Vec<&String> = roles.iter().chain(groups).collect();
                let body = json!({ "name": name, "groups": groups, "validFor": valid_for });
                ("/tokens/user", body)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    fn asked(arguments: &[&str]) -> Result<Value, String> {
        let all = ["atoll", "token", "user", "--name", "ann"].iter().chain(arguments);
        let args = Args::try_parse_from(all).map_err(|error| error.to_string())?;
        let Command::Token { command } = args.command else { panic!("another command") };
        Ok(command.request().1["groups"].clone())
    }

    #[test]
    fn a_secret_has_what_the_chart_takes_from_it() {
        let made = secret("atoll-zone", "kuma-system", "abc", "-----BEGIN\n");
        assert_eq!(made["stringData"], json!({"token": "abc", "ca.crt": "-----BEGIN\n"}));
        let asked = |more: &[&str]| {
            let all = ["atoll", "token", "zone", "east"].iter().chain(more);
            Args::try_parse_from(all).map(drop).map_err(|error| error.kind())
        };
        assert_eq!(asked(&["--secret", "x", "--namespace", "y"]), Ok(()));
        let alone = Err(clap::error::ErrorKind::MissingRequiredArgument);
        assert_eq!(asked(&["--namespace", "y"]), alone);
    }

    #[test]
    fn a_role_is_a_group_of_the_token() {
        for (role, group) in [
            ("admin", "mesh-system:admin"),
            ("writer:shop", "mesh:shop:writer"),
            ("reader:shop", "mesh:shop:reader"),
            ("reader:*", "mesh:*:reader"),
        ] {
            assert_eq!(asked(&["--role", role]), Ok(json!([group])));
        }
        let several = ["--group", "team-a", "--role", "reader:*", "--role", "writer:shop"];
        assert_eq!(asked(&several), Ok(json!(["mesh:*:reader", "mesh:shop:writer", "team-a"])));
        for (bad, reason) in [
            ("owner:shop", "must be admin, writer:MESH or reader:MESH"),
            ("writer", "must be admin, writer:MESH or reader:MESH"),
            ("admin:shop", "must be admin, writer:MESH or reader:MESH"),
            ("writer:", "mesh: "),
            ("writer:Shop", "mesh: "),
            ("reader:a:b", "mesh: "),
        ] {
            let refused = asked(&["--role", bad]).unwrap_err();
            assert!(refused.contains(reason), "{bad}: {refused}");
        }
    }
}
