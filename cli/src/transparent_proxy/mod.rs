//! `atoll install transparent-proxy`: hands the connections of this machine to its sidecar.

mod rules;
mod source;

use self::{
    rules::{Excluded, Families, ForUsers, Plan, Ports, network, removal},
    source::Source,
};
use crate::output::Output;
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use ipnet::IpNet;
use std::{
    io::{ErrorKind, Write as _},
    process::{Command, Output as Ended, Stdio},
};

/// Resolvers of a system that run as users of their own: a question that they pass on must not come
/// back to them.
const RESOLVERS: [&str; 4] = ["systemd-resolve", "unbound", "dnsmasq", "named"];

/// What to take away.
#[derive(Debug, Subcommand)]
pub(crate) enum Uninstall {
    /// Take away all that `install transparent-proxy` made, if there is any.
    #[command(after_help = "Example: atoll uninstall transparent-proxy")]
    TransparentProxy {
        /// Only print what would be done.
        #[arg(long)]
        dry_run: bool,
    },
}

/// What is redirected.
#[derive(Debug, Args)]
pub(crate) struct TransparentProxy {
    /// The user, by name or number, that the sidecar runs as, and nothing else does.
    #[arg(long, default_value = "atoll")]
    proxy_user: String,
    /// The port of the sidecar for what leaves.
    #[arg(long, default_value_t = 15001, value_parser = clap::value_parser!(u16).range(1..))]
    redirect_outbound_port: u16,
    /// The port of the sidecar for what arrives.
    #[arg(long, default_value_t = 15006, value_parser = clap::value_parser!(u16).range(1..))]
    redirect_inbound_port: u16,
    /// Leave alone what arrives.
    #[arg(long)]
    no_redirect_inbound: bool,
    /// The port where the sidecar answers questions for names, UDP and TCP.
    #[arg(long, default_value_t = 15053, value_parser = clap::value_parser!(u16).range(1..))]
    redirect_dns_port: u16,
    /// Leave alone questions for names.
    #[arg(long)]
    no_redirect_dns: bool,
    /// Which addresses are redirected.
    #[arg(long, value_enum, default_value_t)]
    ip_family_mode: Families,
    /// Ports of this machine, such as `22,9000-9100`, that are called directly.
    #[arg(long, value_delimiter = ',', default_value = "22", value_name = "PORTS")]
    exclude_inbound_ports: Vec<Ports>,
    /// Addresses or networks that call this machine directly.
    #[arg(long, value_delimiter = ',', value_parser = network, value_name = "NETWORKS")]
    exclude_inbound_ips: Vec<IpNet>,
    /// Ports elsewhere, such as `22,9000-9100`, that are called directly.
    #[arg(long, value_delimiter = ',', value_name = "PORTS")]
    exclude_outbound_ports: Vec<Ports>,
    /// Addresses or networks that are called directly.
    #[arg(long, value_delimiter = ',', value_parser = network, value_name = "NETWORKS")]
    exclude_outbound_ips: Vec<IpNet>,
    /// Users, by name or number, whose programs are left alone; the resolvers of the system are.
    #[arg(long, value_delimiter = ',', value_name = "USERS")]
    exclude_outbound_uids: Vec<String>,
    /// Ports elsewhere that programs of some users call directly, such as `tcp:80,443:1000-2000`.
    /// Protocol and ports may be left out, or be `*`: all of them.
    #[arg(long, value_delimiter = ';', value_name = "[PROTOCOL:][PORTS:]USERS")]
    exclude_outbound_ports_for_uids: Vec<ForUsers>,
    /// Only print the rules.
    #[arg(long)]
    dry_run: bool,
}

impl TransparentProxy {
    pub(crate) fn install(self, out: &mut Output<'_>) -> Result<()> {
        let dry_run = self.dry_run;
        let plan = self.plan()?;
        let (script, source) = (plan.script(), Source::here());
        let adds = plan.needs_source() && source == Source::Missing;
        if dry_run {
            out.text(&script)?;
            return if adds { out.line(source::WILL_BE_ADDED) } else { Ok(()) };
        }
        // First: by the rules, what has it may pass.
        if adds {
            source::add()?;
        }
        if let Err(error) = nft(&script) {
            if adds {
                source::delete()?;
            }
            return Err(error);
        }
        out.line("installed: what this machine opens and what comes to it goes through its sidecar")
    }

    fn plan(self) -> Result<Plan> {
        let given = self.exclude_outbound_uids.iter();
        let given = given.map(|user| user_id(user).context("--exclude-outbound-uids"));
        let mut users = given.collect::<Result<Vec<u32>>>()?;
        // Those that this machine does not have are none.
        users.extend(RESOLVERS.iter().filter_map(|user| user_id(user).ok()));
        let proxy = user_id(&self.proxy_user).context("--proxy-user")?;
        if proxy == 0 {
            bail!("--proxy-user: must not be root, since what root opens would not be redirected");
        }
        users.retain(|user| *user != proxy);
        Ok(Plan {
            proxy,
            families: self.ip_family_mode,
            outbound: self.redirect_outbound_port,
            inbound: (!self.no_redirect_inbound).then_some(self.redirect_inbound_port),
            dns: (!self.no_redirect_dns).then_some(self.redirect_dns_port),
            leaving: Excluded {
                ports: self.exclude_outbound_ports,
                networks: self.exclude_outbound_ips,
            },
            arriving: Excluded {
                ports: self.exclude_inbound_ports,
                networks: self.exclude_inbound_ips,
            },
            users,
            for_users: self.exclude_outbound_ports_for_uids,
        })
    }
}

impl Uninstall {
    pub(crate) fn run(self, out: &mut Output<'_>) -> Result<()> {
        let Self::TransparentProxy { dry_run } = self;
        if dry_run {
            return out.text(&removal());
        }
        nft(&removal())?;
        if Source::here() == Source::Present {
            source::delete()?;
        }
        out.line("uninstalled: nothing of this machine goes through a sidecar any more")
    }
}

/// The number of a user, who may not have a name.
fn user_id(user: &str) -> Result<u32> {
    if let Ok(id) = user.parse() {
        return Ok(id);
    }
    let asked = Command::new("id").args(["-u", "--", user]).output().context("id")?;
    let id = String::from_utf8_lossy(&asked.stdout).trim().parse().ok();
    id.with_context(|| format!("there is no user {user:?} on this machine"))
}

/// Has `nft` do all of `script`, or nothing of it.
fn nft(script: &str) -> Result<()> {
    let started = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut running = match started {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("nft is not on this machine: install the package nftables")
        }
        started => started.context("nft")?,
    };
    if let Some(mut input) = running.stdin.take() {
        input.write_all(script.as_bytes()).context("nft")?;
    }
    let Ended { status, stderr, .. } = running.wait_with_output().context("nft")?;
    if status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&stderr);
    let hint =
        if why.contains("Operation not permitted") { " (only root may do this)" } else { "" };
    bail!("nft: {}{hint}", why.trim())
}
