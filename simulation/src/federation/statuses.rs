//! What is said about resources is true, and nothing is left of what is over.

use super::{
    machine::Machine,
    oracle::{downwards, rows},
    world::World,
};
use resource::{Kind, Resource, label};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};
use tokio::runtime::Handle;

/// So many tasks may be alive in a control plane, and as many more for each of its peers.
const TASKS: usize = 48;
/// So many connections of a zone may be open: one, and those of which an end does not know yet that
/// the other is gone.
const CONNECTIONS: usize = 4;
/// No store of a history is larger, whatever was written and deleted in it.
const STORE: usize = 16 * 1024 * 1024;

/// Everything that is said and is not so, and everything that is left over.
pub(crate) async fn differences(world: &World) -> Vec<String> {
    let mut found = leftovers(world);
    let [global, zones @ ..] = &world.machines[..] else { return found };
    let on_global = rows(global);
    let here = |zone: &&Machine| !world.deleted.contains(&zone.node);
    let wanted = zones.iter().filter(here).map(|zone| (zone, downwards(world, zone, &on_global)));
    let wanted: Vec<_> = wanted.collect();
    for (kind, row) in on_global.iter().filter(|(kind, _)| kind.flow.requested_by_zones()) {
        let path = format!("{}/_propagation", Machine::path(kind, &row.head.key));
        let Some(said) = global.get(&path).await else {
            found.push(format!("global: {path} is not answered"));
            continue;
        };
        let said = states(&said);
        for (zone, wanted) in &wanted {
            let of_row = wanted.iter().find_map(|(name, forms)| {
                let found = forms.iter().find(|form| Arc::ptr_eq(&form.row, row))?;
                Some((name, found, forms.len()))
            });
            let is = match of_row {
                None => "NotForThisZone",
                // Two that want one name.
                Some((.., forms)) if forms > 1 => continue,
                Some((name, ..)) if holds(zone, kind, row, &name.1) => "Applied",
                Some(_) => "Refused",
            };
            let said = said.get(&zone.name).map_or("nothing", String::as_str);
            if said != is {
                let (key, zone) = (&row.head.key, &zone.name);
                found
                    .push(format!("global says of {} {key} in {zone}: {said}, is {is}", kind.name));
            }
        }
    }
    found
}

/// What is said of each zone.
fn states(said: &Value) -> BTreeMap<String, String> {
    let zones = said.get("zones").and_then(Value::as_array).into_iter().flatten();
    let text = |zone: &Value, field| Some(zone.get(field)?.as_str()?.to_owned());
    zones.filter_map(|zone| Some((text(zone, "zone")?, text(zone, "state")?))).collect()
}

/// Whether `zone` has the content of `row` from global under `key`.
fn holds(zone: &Machine, kind: &Kind, row: &Resource, key: &resource::ResourceKey) -> bool {
    let held = zone.kinds.id_of(kind.name).zip(zone.reader());
    let held = held.and_then(|(id, reader)| reader.get(id, key));
    held.is_some_and(|held| {
        held.head.labels.get(label::ORIGIN) == Some(label::ORIGIN_GLOBAL) && held.spec == row.spec
    })
}

/// Memory is bounded: nothing grows with what has happened.
fn leftovers(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    let zones = world.machines.len() - 1;
    let tasks = Handle::current().metrics().num_alive_tasks();
    let most = TASKS * (1 + 3 * zones);
    if tasks > most {
        found.push(format!("{tasks} tasks are alive, may be {most}"));
    }
    let connections = world.network.open();
    if connections > CONNECTIONS * zones {
        found.push(format!("{connections} connections of {zones} zones are open"));
    }
    for machine in &world.machines {
        let bytes = machine.disk.len();
        if bytes > STORE {
            found.push(format!("{}: its store has {bytes} bytes", machine.name));
        }
    }
    found
}
