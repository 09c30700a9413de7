//! The definitions of another version, under a control plane that runs.

use super::{
    Scenario, note,
    world::{FRONT, Load, SHOP, WEB, World, Zone, cart, server},
};
use anyhow::{Context, Result, bail, ensure};
use e2e::{
    PATIENCE,
    cluster::{Images, Kubectl},
    wait,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

pub(crate) const ALL: &[Scenario] =
    &[("definitions_get_a_field_and_lose_it", definitions_get_a_field_and_lose_it)];

/// The field of the other version.
const FIELD: &str = "later";
const SERVICE: &str = "meshservice/wares";

/// Each definition. Nothing is lost, changes arrive, and an object keeps the field although a control
/// plane that does not know it writes the object.
fn definitions_get_a_field_and_lose_it(images: &Images) -> Result<()> {
    let world = World::with_shops(images, &["k8s-1"])?;
    let zone = world.zone("k8s-1")?;
    let kubectl = zone.kubectl();
    let loads = [
        Load::start("machine to pod", world.machine.caller()?, &cart("k8s-1"))?,
        Load::start("pod to machine", zone.cluster.client_beside(FRONT)?, WEB)?,
    ];
    let ours = definitions(kubectl)?;
    note(&format!("{} definitions", ours.len()));
    let before = objects(kubectl, &ours)?;

    define(kubectl, ours.iter().cloned().map(with_field))?;
    let wares = include_str!("wares.yaml").replace("spec:", &format!("spec:\n  {FIELD}: kept"));
    // The API server takes a moment to know it.
    wait::until("an object has the field", PATIENCE, || {
        kubectl.apply(&wares)?;
        has_field(kubectl, Some("kept"))
    })?;
    named(kubectl)?;
    has_field(kubectl, Some("kept")).context("a control plane wrote it")?;
    world.machine_reaches("http://wares.shop.svc.k8s-1.mesh.local:8080/")?;
    reaches_what_is_new(&world, zone, "late")?;
    nothing_is_lost(&before, &objects(kubectl, &ours)?)?;

    define(kubectl, ours.iter().cloned())?;
    wait::until("nobody has the field", PATIENCE, || has_field(kubectl, None))?;
    reaches_what_is_new(&world, zone, "later")?;
    named(kubectl)?;
    nothing_is_lost(&before, &objects(kubectl, &ours)?)?;
    loads.into_iter().try_for_each(|load| load.end().map(drop))
}

/// The definitions of our kinds, as somebody would apply them.
fn definitions(kubectl: &Kubectl) -> Result<Vec<Value>> {
    let all = kubectl.run(&["get", "customresourcedefinitions", "--output=json"])?;
    let all: Value = serde_json::from_str(&all)?;
    let all = all.get("items").and_then(Value::as_array).context("items")?;
    let ours = all.iter().filter_map(|it| {
        let name = it.pointer("/metadata/name")?.as_str().filter(|it| it.ends_with(".kuma.io"))?;
        Some(json!({
            "apiVersion": it.get("apiVersion")?, "kind": it.get("kind")?,
            "metadata": { "name": name }, "spec": it.get("spec")?,
        }))
    });
    Ok(ours.collect())
}

/// The same with one more field of what an object says.
fn with_field(mut definition: Value) -> Value {
    const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";
    let field = json!({ "type": "string" });
    let within = format!("{SCHEMA}/properties/spec/properties");
    // What keeps any field lists none.
    let place = if definition.pointer(&within).is_some() { &within } else { "" };
    let beside = format!("{SCHEMA}/properties");
    let place = if place.is_empty() { &beside } else { place };
    if let Some(fields) = definition.pointer_mut(place).and_then(Value::as_object_mut) {
        fields.insert(FIELD.to_owned(), field);
    }
    definition
}

/// As an upgrade applies them.
fn define(kubectl: &Kubectl, all: impl Iterator<Item = Value>) -> Result<()> {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": all.collect::<Vec<_>>() });
    let words = ["apply", "--server-side", "--force-conflicts", "--filename=-"];
    let applied = kubectl.output(&words, &list.to_string())?;
    ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    Ok(())
}

/// The ids of all objects of these definitions that stay, by where and what they are.
fn objects(kubectl: &Kubectl, definitions: &[Value]) -> Result<BTreeSet<String>> {
    let names = definitions.iter().filter_map(|it| it.pointer("/metadata/name")?.as_str());
    let names = names.collect::<Vec<_>>().join(",");
    let path = "--output=jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} \
                {.metadata.uid}{'\\n'}{end}";
    let all = kubectl.run(&["get", &names, "--all-namespaces", path])?;
    Ok(all.lines().map(str::to_owned).collect())
}

fn nothing_is_lost(before: &BTreeSet<String>, now: &BTreeSet<String>) -> Result<()> {
    let lost: Vec<_> = before.difference(now).collect();
    ensure!(lost.is_empty() && !before.is_empty(), "{lost:?}");
    Ok(())
}

fn wares(kubectl: &Kubectl) -> Result<Value> {
    kubectl.get(SHOP, SERVICE)
}

fn has_field(kubectl: &Kubectl, expected: Option<&str>) -> Result<()> {
    let object = wares(kubectl)?;
    let none = Map::new();
    let spec = object.get("spec").and_then(Value::as_object).unwrap_or(&none);
    let found = spec.get(FIELD).and_then(Value::as_str);
    if found == expected { Ok(()) } else { bail!("{object}") }
}

/// Waits until the control plane said what it is called.
fn named(kubectl: &Kubectl) -> Result<()> {
    wait::until("it has an address", PATIENCE, || {
        let object = wares(kubectl)?;
        let vips = object.pointer("/status/vips").and_then(Value::as_array);
        if vips.is_some_and(|it| !it.is_empty()) { Ok(()) } else { bail!("{object}") }
    })
}

/// From the other zone.
fn reaches_what_is_new(world: &World, zone: &Zone, name: &str) -> Result<()> {
    zone.kubectl().apply(&server(name))?;
    zone.kubectl().rolled_out(SHOP, &format!("deployment/{name}"))?;
    world.machine_reaches(&format!("http://{name}.shop.svc.k8s-1.mesh.local:8080/")).map(drop)
}
