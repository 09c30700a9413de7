//! What every control plane must hold when nothing happens any more, worked out from what is where
//! it was written.

use super::{
    content::looked_at,
    machine::Machine,
    truth::{Name, Truth},
    world::World,
};
use bytes::Bytes;
use kds::transit::hashed_name;
use kinds::{mesh_trust::MeshTrust, zone, zone_insight, zone_insight::ZoneInsight};
use resource::{Flow, Kind, Labels, Resource, ResourceKey, TransitName, label};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(crate) type Rows = Vec<(Kind, Arc<Resource>)>;
/// What may be under a name: more than one where several want it.
pub(crate) type Wanted = BTreeMap<Name, Vec<Form>>;

/// A resource as others shall hold it.
pub(crate) struct Form {
    kind: Kind,
    labels: Labels,
    pub(crate) row: Arc<Resource>,
    status: bool,
}

impl Form {
    fn status(&self) -> Bytes {
        let status = &self.row.status;
        if status.is_empty() { self.kind.blank_status() } else { status.clone() }
    }
}

/// Everything that is not as it must be.
pub(crate) fn differences(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    let truth = world.truth.lock();
    for machine in &world.machines {
        match &machine.life {
            Some(_) => own(machine, &truth, &mut found),
            None => found.push(format!("{} is not there", machine.name)),
        }
    }
    if !found.is_empty() {
        return found;
    }
    let [global, zones @ ..] = &world.machines[..] else { return found };
    let on_global = rows(global);
    let uploads: Vec<Wanted> = zones.iter().map(upwards).collect();
    for zone in zones {
        let deleted = world.deleted.contains(&zone.node);
        let none = Wanted::new();
        let wanted = uploads.get(zone.node - 1).filter(|_| !deleted).unwrap_or(&none);
        let others = uploads.iter().enumerate().filter(|(i, _)| i + 1 != zone.node);
        let taken: BTreeSet<&Name> = others.flat_map(|(_, wanted)| wanted.keys()).collect();
        let of_zone = |row: &Resource| is_of(row, &zone.name);
        let held = on_global.iter().filter(|(_, row)| of_zone(row));
        let elsewhere = on_global.iter().filter(|(_, row)| !of_zone(row));
        let elsewhere: BTreeSet<Name> = elsewhere.map(named).collect();
        let contended = &truth.contended;
        let free = |name: &Name| {
            !taken.contains(name) && !elsewhere.contains(name) && !contended.contains(name)
        };
        compare(&format!("global, of {}", zone.name), wanted, held, free, &mut found);
        if deleted {
            continue;
        }
        let wanted = downwards(world, zone, &on_global);
        let in_zone = rows(zone);
        let (held, own): (Rows, Rows) =
            in_zone.into_iter().partition(|(_, row)| origin(row) == Some(label::ORIGIN_GLOBAL));
        let own: BTreeSet<Name> = own.iter().map(named).collect();
        let free = |name: &Name| !own.contains(name) && !contended.contains(name);
        compare(&zone.name, &wanted, held.iter(), free, &mut found);
    }
    for zone in zones {
        states(world, global, zone, &mut found);
    }
    found
}

pub(crate) fn rows(machine: &Machine) -> Rows {
    let Some(reader) = machine.reader() else { return Vec::new() };
    let kinds = machine.kinds.iter().filter(|(_, kind)| looked_at(kind));
    let rows = kinds.flat_map(|(id, kind)| {
        let (_, rows) = reader.rows(id);
        rows.iter().map(|row| (*kind, row.clone())).collect::<Vec<_>>()
    });
    rows.collect()
}

fn named((kind, row): &(Kind, Arc<Resource>)) -> Name {
    (kind.name, row.head.key.clone())
}

fn origin(row: &Resource) -> Option<&str> {
    row.head.labels.get(label::ORIGIN)
}

fn is_of(row: &Resource, zone: &str) -> bool {
    origin(row) == Some(label::ORIGIN_ZONE) && row.head.labels.get(label::ZONE) == Some(zone)
}

fn stays(row: &Resource) -> bool {
    row.head.labels.get(label::SYNC) == Some(label::DISABLED)
}

/// What users were told is what is there.
fn own(machine: &Machine, truth: &Truth, found: &mut Vec<String>) {
    found.extend(lost(machine, truth));
}

/// What a control plane does not hold although a user was told so, or the other way round.
pub(crate) fn lost(machine: &Machine, truth: &Truth) -> Vec<String> {
    let mut found = Vec::new();
    let Some(reader) = machine.reader() else { return found };
    for ((node, (kind, key)), known) in &truth.known {
        let Some(id) = machine.kinds.id_of(kind).filter(|_| *node == machine.node) else {
            continue;
        };
        let row = reader.get(id, key).filter(|row| machine.place().is_origin_of(&row.head.labels));
        let written = row.as_ref().and_then(|row| written(row));
        if written != known.now && !known.maybe.contains(&written) {
            let name = &machine.name;
            found.push(format!(
                "{name}: its own {kind} {key} is write {written:?}, must be {:?}",
                known.now
            ));
        }
    }
    found
}

/// The number of the write that a row is of.
pub(crate) fn written(row: &Resource) -> Option<u64> {
    row.head.labels.get(super::content::WRITE).and_then(|n| n.parse().ok())
}

fn transit(row: &Resource, zone: Option<&str>) -> ResourceKey {
    let (key, labels) = (&row.head.key, &row.head.labels);
    let display = labels.get(label::DISPLAY_NAME).unwrap_or(&key.name);
    let name = hashed_name(key.mesh.as_ref(), display, [zone, labels.get(label::NAMESPACE)]);
    ResourceKey { mesh: key.mesh.clone(), name: name.into() }
}

/// What global shall hold of a zone.
fn upwards(zone: &Machine) -> Wanted {
    let mut wanted = Wanted::new();
    for (kind, row) in rows(zone) {
        let ours = origin(&row).is_none_or(|origin| origin == label::ORIGIN_ZONE);
        if !kind.flow.requested_by_global() || !ours || stays(&row) {
            continue;
        }
        let key = transit(&row, Some(&zone.name));
        let labels = row.head.labels.without(label::GRACE_PERIOD_STARTED);
        let labels = labels.with(label::ORIGIN, label::ORIGIN_ZONE).with(label::ZONE, &zone.name);
        // Global says itself what it thinks of a trust.
        let status = kind.has_status && kind.name != "MeshTrust";
        let form = Form { kind, labels, row, status };
        wanted.entry((kind.name, key)).or_default().push(form);
    }
    wanted
}

/// What a zone shall hold of global.
pub(crate) fn downwards(world: &World, zone: &Machine, on_global: &Rows) -> Wanted {
    let mut wanted = Wanted::new();
    for (kind, row) in on_global {
        if !kind.flow.requested_by_zones() || stays(row) {
            continue;
        }
        let labels = &row.head.labels;
        let of = labels.get(label::ZONE).filter(|_| origin(row) == Some(label::ORIGIN_ZONE));
        let reaches = match of {
            None => !matches!(kind.flow, Flow::ZoneToZones),
            Some(of) => of != zone.name && world.shows(of) && crosses(kind, row, of),
        };
        if !reaches {
            continue;
        }
        let key = match kind.transit_name {
            TransitName::Kept => row.head.key.clone(),
            TransitName::Hashed => transit(row, of),
        };
        let labels = labels.with(label::ORIGIN, label::ORIGIN_GLOBAL);
        let form = Form { kind: *kind, labels, row: row.clone(), status: false };
        wanted.entry((kind.name, key)).or_default().push(form);
    }
    wanted
}

/// Whether what a zone wrote goes on to the others.
fn crosses(kind: &Kind, row: &Resource, zone: &str) -> bool {
    if kind.name == "MeshTrust" {
        let mesh = row.head.key.mesh.as_ref().map(ToString::to_string).unwrap_or_default();
        let trust = kinds::read::<MeshTrust>(row);
        return trust.is_ok_and(|trust| trust.trust_domain == format!("{mesh}.{zone}.mesh.local"));
    }
    let producer = row.head.labels.get(label::ROLE) == Some(label::ROLE_PRODUCER);
    matches!(kind.flow, Flow::ZoneToZones) || (matches!(kind.flow, Flow::Everywhere) && producer)
}

fn compare<'a>(
    place: &str,
    wanted: &Wanted,
    held: impl Iterator<Item = &'a (Kind, Arc<Resource>)>,
    free: impl Fn(&Name) -> bool,
    found: &mut Vec<String>,
) {
    let held: BTreeMap<Name, &Arc<Resource>> = held.map(|it| (named(it), &it.1)).collect();
    for (name, row) in &held {
        if !wanted.contains_key(name) {
            let n = written(row);
            found.push(format!("{place}: {} {} (write {n:?}) must not be there", name.0, name.1));
        }
    }
    for (name, forms) in wanted {
        let [form] = &forms[..] else { continue };
        if !free(name) || form.kind.decode(&form.row.spec).is_err() {
            continue;
        }
        let n = written(&form.row);
        let at = format!("{place}: {} {} (write {n:?})", name.0, name.1);
        match held.get(name) {
            None => found.push(format!("{at} is missing")),
            Some(row) if row.spec != form.row.spec => {
                found.push(format!("{at} is still write {:?}", written(row)));
            }
            Some(row) if row.head.labels != form.labels => {
                let (is, must) = (&row.head.labels, &form.labels);
                found.push(format!("{at} has the labels {is:?}, must have {must:?}"));
            }
            Some(row) if form.status && row.status != form.status() => {
                found.push(format!("{at} has another status"));
            }
            Some(_) => {}
        }
    }
}

/// What is said about a zone is true.
fn states(world: &World, global: &Machine, zone: &Machine, found: &mut Vec<String>) {
    let (Some(life), Some(reader)) = (&zone.life, global.reader()) else { return };
    let (key, author) = (ResourceKey::global(&zone.name), global.author());
    let insight = author.get(&reader, zone_insight::KIND, &key);
    let name = &zone.name;
    if world.deleted.contains(&zone.node) {
        if insight.is_some() || author.get(&reader, zone::KIND, &key).is_some() {
            found.push(format!("global: something of the deleted zone {name} is there"));
        }
        return;
    }
    let insight = insight.and_then(|row| kinds::read::<ZoneInsight>(&row).ok());
    if !insight.as_ref().is_some_and(|insight| insight.is_online()) {
        found.push(format!("global: {name} is shown offline"));
    }
    let subscriptions = insight.map_or(0, |insight| insight.0.subscriptions.len());
    if subscriptions > 10 {
        found.push(format!("global: {subscriptions} subscriptions of {name} are kept"));
    }
    let Some(handle) = &life.handle else { return };
    let state = handle.state().borrow().clone();
    if state.connected_since.is_none() || state.held.is_some() {
        found.push(format!("{name} is not connected: {:?} {:?}", state.last_failure, state.held));
    }
}
