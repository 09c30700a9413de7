//! One of the control planes is away.

use super::{Scenario, alone::timeout};
use anyhow::{Context, Result, bail};
use e2e::{
    PATIENCE,
    control_plane::{ControlPlane, Zone},
    wait,
};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

pub(crate) const ALL: &[Scenario] =
    &[("a_zone_starts_while_global_is_away", a_zone_starts_while_global_is_away)];

const TIMEOUTS: &str = "/meshes/default/meshtimeouts";

/// Waits until a zone has a MeshTimeout that global calls `name`.
pub(crate) fn arrives(zone: &ControlPlane, name: &str) -> Result<()> {
    let wanted = json!({ "kuma.io/display-name": name, "kuma.io/origin": "global" });
    wait::until(name, PATIENCE, || {
        let list = zone.get(TIMEOUTS)?;
        let items = list.get("items").and_then(Value::as_array).context("items")?;
        let found = items.iter().filter_map(|item| item.get("labels")).any(|labels| {
            ["kuma.io/display-name", "kuma.io/origin"]
                .iter()
                .all(|label| labels.get(label) == wanted.get(label))
        });
        if found { Ok(()) } else { bail!("not among {list}") }
    })
}

/// Writes a MeshTimeout on global.
pub(crate) fn put_timeout(global: &ControlPlane, name: &str) -> Result<()> {
    global.put(&format!("{TIMEOUTS}/{name}"), &timeout(name))
}

/// A zone that was complete once starts, ready for proxies and names, while global is away; what
/// changes on global arrives when that is back.
fn a_zone_starts_while_global_is_away() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut global = ControlPlane::global(folder.path(), Ipv4Addr::new(127, 77, 0, 4))?;
    global.start()?;
    let east = Zone { name: "east", address: Ipv4Addr::new(127, 77, 0, 5), namespace: None };
    let mut east = ControlPlane::zone(&folder.path().join("east"), east, &global)?;
    east.start()?;
    for name in ["first", "before"] {
        put_timeout(&global, name)?;
        arrives(&east, name)?;
    }

    global.stop()?;
    east.stop()?;
    east.start()?;
    arrives(&east, "before")?;

    global.start()?;
    put_timeout(&global, "after")?;
    arrives(&east, "after")
}
