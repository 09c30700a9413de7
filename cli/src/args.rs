//! What can be said on the command line.

use crate::{
    apply::{Apply, Delete},
    check::Check,
    connection::{Connection, ContextCommand},
    demo::Demo,
    expiry::Expiry,
    inspect::Inspect,
    install::Install,
    lists::Get,
    status::{Status, Wait},
    token::TokenCommand,
    transparent_proxy::Uninstall,
    zone::ZoneCommand,
};
use clap::{Parser, Subcommand};
use clap_complete::Shell;

/// Atoll makes many clusters, clouds and machines one service mesh.
#[derive(Debug, Parser)]
#[command(name = "atoll", version, about, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create or change resources from files.
    #[command(after_help = "Example: atoll apply -f policies/ -f - < mesh.yaml")]
    Apply(Apply),
    /// Show resources.
    #[command(after_help = "Example: atoll get meshservices --mesh default -o yaml")]
    Get(Get),
    /// Delete a resource.
    #[command(after_help = "Example: atoll delete meshtimeout slow --mesh default")]
    Delete(Delete),
    /// Show what became of a resource: which zones have it, which refused it, who is missing.
    #[command(after_help = "Example: atoll status meshtimeout/slow --mesh default")]
    Status(Status),
    /// Wait until a resource is applied. Ends with 0 if it is, 1 if a zone or proxy refused it, and
    /// 3 if the time is over.
    #[command(after_help = "Example: atoll wait meshtimeout/slow --zones all --timeout 30s")]
    Wait(Wait),
    /// List what expires, when, and who renews it. Ends with 1 if something ended, or ends soon and
    /// nobody renews it by itself.
    #[command(after_help = "Example: atoll expiry --within 30d")]
    Expiry(Expiry),
    /// Make a token: for a zone that joins, a proxy, or a person.
    #[command(after_help = "Example: atoll token zone east > east.token")]
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// See how a zone stands with its global, and confirm one. For the control plane of a zone.
    #[command(after_help = "Example: atoll zone status --address https://zone:5682")]
    Zone {
        #[command(subcommand)]
        command: ZoneCommand,
    },
    /// See what the Envoy of a dataplane says: its configuration, statistics, clusters.
    #[command(after_help = "Example: atoll inspect dataplane web-1 --type stats")]
    Inspect {
        #[command(subcommand)]
        command: Inspect,
    },
    /// List the zones: which are online, since when, what they refused, and what is wrong.
    #[command(after_help = "Example: atoll zones")]
    Zones,
    /// List the dataplanes of all meshes, or of one: which are online, and why others are not.
    #[command(after_help = "Example: atoll dataplanes --mesh default")]
    Dataplanes {
        /// Only those of this mesh.
        #[arg(long, short)]
        mesh: Option<String>,
    },
    /// Remember control planes by name, and choose the one to talk to.
    #[command(after_help = "Example: atoll context set prod --address https://global:5682 \
                      --ca-file ca.crt --token-file admin-token")]
    Context {
        #[command(subcommand)]
        command: ContextCommand,
    },
    /// Look at a Kubernetes cluster that is a zone: what is wrong, and what to do. Ends with 1 if
    /// something fails.
    #[command(
        after_help = "Example: atoll check\n\nBefore something is installed: atoll check --pre"
    )]
    Check(Check),
    /// Set up this machine, or print what a Kubernetes cluster needs.
    #[command(after_help = "Example: atoll install transparent-proxy --proxy-user atoll")]
    Install {
        #[command(subcommand)]
        what: Install,
    },
    /// Take away what `install` set up.
    #[command(after_help = "Example: atoll uninstall transparent-proxy")]
    Uninstall {
        #[command(subcommand)]
        what: Uninstall,
    },
    /// Run two zones on this machine and call from one into the other.
    #[command(after_help = "Example: atoll demo --check")]
    Demo(Demo),
    /// Print a completion script for a shell.
    #[command(after_help = "Example: source <(atoll completion bash)")]
    Completion {
        /// The shell.
        shell: Shell,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn without_example(command: &clap::Command, all: &mut Vec<String>) {
        for command in command.get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            if !help.starts_with("Example: atoll ") && !help.contains("(atoll ") {
                all.push(command.get_name().to_owned());
            }
            without_example(command, all);
        }
    }

    #[test]
    fn every_help_text_has_an_example() {
        let mut missing = Vec::new();
        without_example(&Args::command(), &mut missing);
        assert_eq!(missing, [""; 0]);
    }
}
