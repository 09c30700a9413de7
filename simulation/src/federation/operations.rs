//! What users do.

use super::{
    content::{self, MESHES, OF_GLOBAL, OF_ZONES, PREFIX, TIMEOUT, WRITE},
    machine::{Answer, Machine},
    truth::{Name, Written},
    world::World,
};
use anyhow::{Result, bail};
use bytes::Bytes;
use futures::future::join_all;
use kds::transit::hashed_name;
use kinds::{labels, mesh, zone};
use resource::{Audience, Kind, Labels, Resource, ResourceKey, label};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};
use store::{Backend as _, Expected, Item, view::Edit};

/// A write, or a deletion.
struct Asked {
    kind: Kind,
    key: ResourceKey,
    /// The number and the spec; `None` is a deletion.
    wanted: Option<(u64, Value)>,
}

/// Somebody does something somewhere.
pub(crate) async fn any(world: &mut World) {
    let there = world.machines.iter().filter(|machine| machine.life.is_some());
    let there: Vec<usize> = there.map(|machine| machine.node).collect();
    let Some(node) = world.random.choice(there) else {
        return count(world, "to nobody");
    };
    match world.random.u32(..20) {
        0 => mesh(world).await,
        1 => private(world, node).await,
        2 if node > 0 => producer(world, node).await,
        3 | 4 => {
            let times = world.random.usize(2..=6);
            some(world, node, times).await;
        }
        _ => some(world, node, 1).await,
    }
}

fn count(world: &mut World, sort: &'static str) {
    *world.operations.entry(sort).or_default() += 1;
}

/// So many at once.
pub(crate) async fn some(world: &mut World, node: usize, times: usize) {
    let mut names = BTreeSet::new();
    let mut asked = Vec::new();
    for _ in 0..times {
        let one = draw(world, node);
        if names.insert((one.kind.name, one.key.clone())) {
            asked.push(one);
        }
    }
    ask(world, node, asked).await;
}

fn draw(world: &mut World, node: usize) -> Asked {
    let live = world.truth.lock().live(node);
    if world.random.u32(..10) < 3
        && let Some(((kind, key), _)) = world.random.choice(live)
        && let Some(kind) = kind_of(world, kind)
    {
        return Asked { kind, key, wanted: None };
    }
    let kinds = if node == 0 { OF_GLOBAL } else { OF_ZONES };
    let kind = *world.random.choice(kinds).expect("some kinds");
    let has = |mesh: &&str| *mesh == "default" || world.has_mesh(node, mesh);
    let meshes: Vec<&str> = MESHES.iter().copied().filter(|mesh| has(mesh)).collect();
    let mesh = world.random.choice(meshes).unwrap_or("default");
    let name = content::name(&mut world.random);
    put(world, node, kind, content::key(&kind, mesh, &name))
}

/// A good write.
fn put(world: &mut World, node: usize, kind: Kind, key: ResourceKey) -> Asked {
    let name = (kind.name, key.clone());
    let n =
        world.truth.lock().begin(Written { node, name, good: true, private: false, forged: false });
    let mesh = key.mesh.as_ref().map(ToString::to_string).unwrap_or_default();
    let zone = world.machines.get(node).filter(|_| node > 0).map(|machine| machine.name.clone());
    let spec = content::spec(&kind, n, &mesh, zone.as_deref(), &mut world.random);
    Asked { kind, key, wanted: Some((n, spec)) }
}

fn kind_of(world: &World, name: &str) -> Option<Kind> {
    let kinds = &world.machines.first()?.kinds;
    kinds.iter().find(|(_, kind)| kind.name == name).map(|(_, kind)| *kind)
}

async fn ask(world: &mut World, node: usize, asked: Vec<Asked>) {
    for one in &asked {
        let sort = match (&one.wanted, world.truth.lock().is_live(node, one.kind.name, &one.key)) {
            (None, _) => "deletions",
            (Some(_), false) => "creations",
            (Some(_), true) => "changes",
        };
        count(world, sort);
        let n = one.wanted.as_ref().map(|(n, _)| *n);
        world.truth.lock().asks(node, (one.kind.name, one.key.clone()), n);
    }
    let Some(machine) = world.machines.get(node) else { return };
    let answers = asked.iter().map(|one| machine.ask(&one.kind, &one.key, one.wanted.clone()));
    let answers = join_all(answers).await;
    let mut truth = world.truth.lock();
    for (one, answer) in asked.into_iter().zip(answers) {
        let n = one.wanted.map(|(n, _)| n);
        truth.told(node, (one.kind.name, one.key), n, answer);
    }
}

/// Two users of each control plane change something on the same condition: one of them comes too late
/// and is told.
pub(crate) async fn rivals(world: &mut World) {
    for node in 0..world.machines.len() {
        let live = world.truth.lock().live(node);
        let plain = |key: &ResourceKey| {
            key.name.strip_prefix(PREFIX).is_some_and(|rest| rest.parse::<u32>().is_ok())
        };
        let Some(((kind, key), _)) = live.into_iter().find(|((_, key), _)| plain(key)) else {
            continue;
        };
        let Some(kind) = kind_of(world, kind) else { continue };
        let both = [(); 2].map(|()| put(world, node, kind, key.clone()));
        let Some(machine) = world.machines.get(node) else { continue };
        let Some(tag) = machine.tag(&kind, &key).await else { continue };
        for one in &both {
            let n = one.wanted.as_ref().map(|(n, _)| *n);
            world.truth.lock().asks(node, (kind.name, key.clone()), n);
        }
        let change =
            |one: &Asked| machine.ask_if(&kind, &key, one.wanted.clone(), Some(tag.clone()));
        let answers = join_all(both.iter().map(change)).await;
        let done = answers.iter().filter(|answer| matches!(answer, Answer::Done)).count();
        let mut truth = world.truth.lock();
        if done != 1 {
            let (at, kind) = (&machine.name, kind.name);
            truth.wrong(format_args!(
                "{at} {kind} {key}: {done} of two writes on one condition are done"
            ));
        }
        for (one, answer) in both.into_iter().zip(answers) {
            truth.told(node, (kind.name, key.clone()), one.wanted.map(|(n, _)| n), answer);
        }
        drop(truth);
        count(world, "rivals");
    }
}

/// A mesh comes, or is changed.
async fn mesh(world: &mut World) {
    count(world, "meshes");
    let mesh = *world.random.choice(&MESHES).expect("some meshes");
    let Some(global) = world.machines.first() else { return };
    let Ok(store) = global.store() else { return };
    let author = global.author();
    let made = author.create(mesh::KIND, ResourceKey::global(mesh), json!({}));
    let Ok(item) = made else { return };
    let committed = store.commit(vec![item]).await.map(drop);
    let defaults = api::mesh_defaults::of_existing_meshes(&author, &store.reader());
    let defaults = store.commit(defaults.unwrap_or_default()).await.map(drop);
    world
        .truth
        .lock()
        .note(format_args!("global makes the mesh {mesh}: {committed:?} {defaults:?}"));
}

/// Something that must not leave.
async fn private(world: &mut World, node: usize) {
    count(world, "private writes");
    let name = format!("{PREFIX}private-{}", world.random.u32(..2));
    let key = content::key(&TIMEOUT, "default", &name);
    let spec = content::of_producer(0);
    let labels = [(label::SYNC, label::DISABLED)];
    let sort = Sort { good: true, private: true, ..Sort::default() };
    directly(world, node, (TIMEOUT, key), &labels, sort, Some(spec)).await;
}

/// A policy of a producer, as a zone on Kubernetes has it.
async fn producer(world: &mut World, node: usize) {
    count(world, "policies of producers");
    let name = format!("{PREFIX}producer-{}", world.random.u32(..3));
    let key = content::key(&TIMEOUT, "default", &name);
    let spec = (world.random.u32(..4) > 0).then(|| content::of_producer(0));
    let labels = [(label::ROLE, label::ROLE_PRODUCER), (label::NAMESPACE, "shop")];
    let sort = Sort { good: true, ..Sort::default() };
    directly(world, node, (TIMEOUT, key), &labels, sort, spec).await;
}

/// Something that the other end refuses: another program wrote it.
pub(crate) async fn bad(world: &mut World, node: usize) {
    let kinds = if node == 0 { OF_GLOBAL } else { OF_ZONES };
    let kinds: Vec<Kind> = kinds.iter().copied().filter(|kind| kind.name != "Secret").collect();
    let Some(kind) = world.random.choice(kinds) else { return };
    let key = content::key(&kind, "default", &content::name(&mut world.random));
    let sort = Sort::default();
    directly(world, node, (kind, key), &[], sort, Some(Value::Null)).await;
}

/// A zone writes what gets the name of what another zone has: names are hashed without separators.
pub(crate) async fn alike(world: &mut World) {
    let (east, e) = (1, 2);
    let live = world.truth.lock().live(east);
    let of_mesh = |((kind, key), _): &(Name, u64)| {
        *kind == "Dataplane" && key.mesh.as_ref().is_some_and(|mesh| mesh.as_str() == "default")
    };
    let live: Vec<_> = live.into_iter().filter(of_mesh).collect();
    let Some(((kind, key), _)) = world.random.choice(live) else { return };
    let Some(kind) = kind_of(world, kind) else { return };
    let labels = [(label::NAMESPACE, "ast")];
    let name = hashed_name(key.mesh.as_ref(), &key.name, [Some("east"), None]);
    let taken = ResourceKey { mesh: key.mesh.clone(), name: name.into() };
    world.truth.lock().contended.insert((kind.name, taken));
    let sort = Sort { good: true, forged: true, ..Sort::default() };
    let spec = json!({ "networking": { "address": "10.6.6.6" } });
    directly(world, e, (kind, key), &labels, sort, Some(spec)).await;
}

/// A user takes the name under which something of another control plane comes here.
pub(crate) async fn squat(world: &mut World, node: usize) {
    let from = if node == 0 { world.random.usize(1..world.machines.len()) } else { 0 };
    let live = world.truth.lock().live(from);
    let both = |((kind, _), _): &(Name, u64)| ["MeshTimeout", "MeshExternalService"].contains(kind);
    let live: Vec<_> = live.into_iter().filter(both).collect();
    let Some(((kind, key), _)) = world.random.choice(live) else { return };
    let Some(kind) = kind_of(world, kind) else { return };
    let zone = world.machines.get(from).filter(|_| from > 0).map(|machine| machine.name.clone());
    let name = hashed_name(key.mesh.as_ref(), &key.name, [zone.as_deref(), None]);
    let key = ResourceKey { mesh: key.mesh, name: name.into() };
    world.truth.lock().contended.insert((kind.name, key.clone()));
    let one = put(world, node, kind, key);
    ask(world, node, vec![one]).await;
}

#[derive(Clone, Copy, Default)]
struct Sort {
    good: bool,
    private: bool,
    forged: bool,
}

/// Writes into a store, as another program may have done. No spec is a deletion.
async fn directly(
    world: &mut World,
    node: usize,
    (kind, key): (Kind, ResourceKey),
    labels: &[(&str, &str)],
    Sort { good, private, forged }: Sort,
    spec: Option<Value>,
) {
    let name = (kind.name, key.clone());
    let n = spec.as_ref().map(|_| {
        world.truth.lock().begin(Written { node, name: name.clone(), good, private, forged })
    });
    let Some(machine) = world.machines.get(node) else { return };
    let Ok(store) = machine.store() else { return };
    let id = machine.author().id(kind);
    let theirs = store.reader().get(id, &key);
    let foreign = |row: &Arc<Resource>| !machine.place().is_origin_of(&row.head.labels);
    if theirs.as_ref().is_some_and(foreign) {
        return;
    }
    let edit = match n.zip(spec) {
        None => Edit::Delete(key.clone()),
        Some((n, spec)) => match row(machine, &kind, &key, (n, labels), good.then_some(spec)) {
            Ok(row) => Edit::Put(Arc::new(row)),
            Err(error) => {
                let what = format_args!("a write of the simulation is not good: {error:#}");
                return world.truth.lock().wrong(what);
            }
        },
    };
    world.truth.lock().asks(node, name.clone(), n);
    let item = Item { kind: id, expected: Expected::Anything, edit };
    let answer = match store.commit(vec![item]).await {
        Ok(_) => Answer::Done,
        Err(_) => Answer::Unknown,
    };
    world.truth.lock().told(node, name, n, answer);
}

/// No spec is a bad one.
fn row(
    machine: &Machine,
    kind: &Kind,
    key: &ResourceKey,
    (n, more): (u64, &[(&str, &str)]),
    spec: Option<Value>,
) -> Result<Resource> {
    let number = n.to_string();
    let own = labels::own(*kind, key, &machine.place());
    let labels: Labels =
        own.iter().chain(more.iter().copied()).chain([(WRITE, &*number)]).collect();
    let Some(spec) = spec else {
        let (spec, none) = (Bytes::from(format!("{{\"bad\":{n}")), Bytes::new());
        return Ok(Resource::new(key.clone(), labels, spec, none, Audience::default()));
    };
    let spec = if kind.name == TIMEOUT.name { content::of_producer(n) } else { spec };
    let spec = kind.encode(&kind.from_json(spec)?)?;
    Ok(kind.resource(key.clone(), labels, spec, Bytes::new(), machine.kinds.peer)?)
}

/// An operator lets others see a zone, or not.
pub(crate) async fn enable(world: &mut World, zone: usize, enabled: bool) -> Result<()> {
    if world.deleted.contains(&zone) {
        return Ok(());
    }
    let (Some(global), Some(of)) = (world.machines.first(), world.machines.get(zone)) else {
        return Ok(());
    };
    let key = ResourceKey::global(&of.name);
    if !enabled {
        world.truth.lock().excused.insert(zone);
    }
    let answer = global.ask(&zone::KIND, &key, Some((0, json!({ "enabled": enabled })))).await;
    world.truth.lock().note(format_args!("{} enabled: {enabled}: {answer:?}", of.name));
    match answer {
        Answer::Done if enabled => drop(world.disabled.remove(&zone)),
        Answer::Done => drop(world.disabled.insert(zone)),
        // It is tried again when it is quiet.
        Answer::Unknown => world.unsure(zone),
        Answer::Refused(status, text) => bail!("zone {key}: {status} {text}"),
    }
    Ok(())
}

/// An operator makes a zone anew that was deleted.
pub(crate) async fn create(world: &mut World, zone: usize) -> Result<()> {
    let (Some(global), Some(of)) = (world.machines.first(), world.machines.get(zone)) else {
        return Ok(());
    };
    let key = ResourceKey::global(&of.name);
    let answer = global.ask(&zone::KIND, &key, Some((0, json!({ "enabled": true })))).await;
    world.truth.lock().note(format_args!("{} is made anew: {answer:?}", of.name));
    match answer {
        Answer::Done => {
            world.disabled.remove(&zone);
            world.deleted.remove(&zone);
        }
        Answer::Unknown => {
            world.later(std::time::Duration::from_millis(500), super::world::Due::Create(zone))
        }
        Answer::Refused(status, text) => bail!("zone {key}: {status} {text}"),
    }
    Ok(())
}

/// An operator deletes a zone that is not connected.
pub(crate) async fn delete_zone(world: &mut World, zone: usize) -> Result<bool> {
    let (Some(global), Some(of)) = (world.machines.first(), world.machines.get(zone)) else {
        return Ok(false);
    };
    let key = ResourceKey::global(&of.name);
    world.truth.lock().excused.insert(zone);
    let answer = global.ask(&zone::KIND, &key, None).await;
    world.truth.lock().note(format_args!("{} is deleted: {answer:?}", of.name));
    match answer {
        Answer::Done => {
            world.deleted.insert(zone);
            Ok(true)
        }
        Answer::Refused(..) | Answer::Unknown => Ok(false),
    }
}
