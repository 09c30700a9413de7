//! Where a resource is: asked and waited for with `atoll`.

use super::{
    Scenario,
    command_line::{TIMEOUT, contains, here},
};
use anyhow::{Result, bail};
use e2e::{
    PATIENCE,
    control_plane::{ControlPlane, Zone},
    wait,
};
use std::net::Ipv4Addr;

pub(crate) const ALL: &[Scenario] =
    &[("an_operator_waits_until_zones_have_a_policy", an_operator_waits_until_zones_have_a_policy)];

const WHICH: &str = "meshtimeout/slow";

/// A policy that is applied is waited for with success; a zone that is stopped is named as the one
/// that lacks the next one, and has it when it is back, also after a restart of global.
fn an_operator_waits_until_zones_have_a_policy() -> Result<()> {
    let (home, mut global, atoll) = here(7)?;
    let zone = |name, last, global: &ControlPlane| {
        let address = Ipv4Addr::new(127, 77, 1, last);
        let zone = Zone { name, address, namespace: None };
        ControlPlane::zone(&home.path().join(name), zone, global)
    };
    let (mut east, mut west) = (zone("east", 8, &global)?, zone("west", 9, &global)?);
    east.start()?;
    west.start()?;
    wait::until("both are online", PATIENCE, || {
        let zones = atoll.says(&["zones"], "")?;
        if zones.matches("online").count() == 2 { Ok(()) } else { bail!("{zones}") }
    })?;
    atoll.says(&["apply", "-f", "-"], TIMEOUT)?;
    let waited = atoll.says(&["wait", WHICH, "--zones", "all", "--timeout", "30s"], "")?;
    contains(&waited, &["meshtimeout/slow applied: 2 zones have it, 0 wait, 0 refused it"])?;
    let status = atoll.says(&["status", WHICH], "")?;
    contains(&status, &["east", "west", "applied"])?;

    west.stop()?;
    atoll.says(&["apply", "-f", "-"], &TIMEOUT.replace("3s", "4s"))?;
    atoll.says(&["wait", WHICH, "--zones", "east", "--timeout", "30s"], "")?;
    let late = atoll.run(&["wait", WHICH, "--timeout", "1s"], "")?;
    if late.code != Some(3) {
        bail!("{late:?}");
    }
    contains(&late.out, &["west: pending: the zone is not connected since", "1 wait"])?;
    // Zones wait for global, and `atoll` for those of them that it has not heard of since.
    global.stop()?;
    global.start()?;
    atoll.says(&["wait", WHICH, "--zones", "east", "--timeout", "60s"], "")?;
    west.start()?;
    atoll.says(&["wait", WHICH, "--timeout", "60s"], "")?;

    let usage = atoll.run(&["wait", "slow"], "")?;
    if usage.code != Some(2) {
        bail!("{usage:?}");
    }
    contains(&atoll.fails(&["wait", WHICH, "--zones", "north"], "")?, &["no zone \"north\""])
}
