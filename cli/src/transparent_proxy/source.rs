//! The address from which Envoy calls its own application over IPv6. That of IPv4 is any machine's.

use anyhow::{Context as _, Result, bail};
use std::{fs, io::ErrorKind, process::Command};

/// The rules let it through.
const ADDRESS: &str = "::6/128";
/// How the kernel lists the addresses of this network namespace.
const LIST: &str = "/proc/net/if_inet6";
/// What a dry run says.
pub(super) const WILL_BE_ADDED: &str = "# and: ip -6 address add ::6/128 dev lo";

/// Whether this machine has the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// It has no IPv6, and needs none.
    NotNeeded,
    Missing,
    Present,
}

impl Source {
    pub(super) fn here() -> Self {
        // Without IPv6 the kernel has no such file, or an empty one.
        Self::of(&fs::read_to_string(LIST).unwrap_or_default())
    }

    fn of(list: &str) -> Self {
        let has = |last: char| {
            let address = format!("{last:0>32}");
            let mut lines = list.lines();
            lines.any(|line| line.starts_with(&address) && line.trim_end().ends_with(" lo"))
        };
        match (has('1'), has('6')) {
            (_, true) => Self::Present,
            (true, false) => Self::Missing,
            (false, false) => Self::NotNeeded,
        }
    }
}

pub(super) fn add() -> Result<()> {
    ip("add")
}

pub(super) fn delete() -> Result<()> {
    ip("delete")
}

fn ip(verb: &str) -> Result<()> {
    let done = Command::new("ip").args(["-6", "address", verb, ADDRESS, "dev", "lo"]).output();
    let done = match done {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("ip is not on this machine: install the package iproute2")
        }
        done => done.context("ip")?,
    };
    if done.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&done.stderr);
    let hint =
        if why.contains("Operation not permitted") { " (only root may do this)" } else { "" };
    bail!("ip -6 address {verb} {ADDRESS} dev lo: {}{hint}", why.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_machine_with_ipv6_needs_the_address() {
        let one = "00000000000000000000000000000001 01 80 10 80       lo\n";
        let six = "00000000000000000000000000000006 01 80 00 80       lo\n";
        let other = "fd0000a7000000000000000000000006 02 40 00 80     eth0\n";
        assert_eq!(Source::of(""), Source::NotNeeded);
        assert_eq!(Source::of(other), Source::NotNeeded);
        assert_eq!(Source::of(&format!("{other}{one}")), Source::Missing);
        assert_eq!(Source::of(&format!("{one}{six}")), Source::Present);
    }
}
