//! `atoll install control-plane`: the manifests of the Helm chart, for those who have no Helm.
//!
//! `make gen` renders the chart with the values of `deploy/helm/printed`, and here their places are filled. What can
//! be said is a part of the chart's values, with the same names.

use crate::output::{Format, Output};
use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use resource::{MeshName, ZoneName};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fs, path::PathBuf};
use xxhash_rust::xxh3::xxh3_64;

const ALONE: &str = include_str!("manifests/zone-alone.yaml");
const ZONE: &str = include_str!("manifests/zone.yaml");
const GLOBAL: &str = include_str!("manifests/global.yaml");
/// The longest name of a mesh: that of its Service has some characters more, and at most 63.
const MESH: usize = 49;
/// So many items may a list have that is set item by item.
const ITEMS: usize = 1000;

/// Which control plane, and what is said of it.
#[derive(Debug, Args)]
pub(crate) struct ControlPlane {
    /// Whether the cluster is a zone, or has the global control plane.
    #[arg(long)]
    mode: Option<Mode>,
    /// The namespace of the control plane. It is made too.
    #[arg(long, short, default_value = "kuma-system")]
    namespace: String,
    /// A file of values, as for the Helm chart.
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// One value, such as `meshes[0].name=default`; may be repeated, and wins over the file.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
enum Mode {
    #[default]
    Zone,
    Global,
}

/// The values that need no Helm.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Values {
    mode: Mode,
    control_plane: Replicas,
    image: Image,
    zone: Zone,
    global: Global,
    meshes: Vec<Mesh>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Replicas {
    replicas: u8,
}

impl Default for Replicas {
    fn default() -> Self {
        Self { replicas: 1 }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Image {
    registry: String,
    tag: String,
}

impl Default for Image {
    fn default() -> Self {
        Self { registry: "localhost/atoll".into(), tag: env!("CARGO_PKG_VERSION").into() }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Zone {
    name: String,
    global: Joined,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Joined {
    address: String,
    secret: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Global {
    names: Vec<String>,
    service: Service,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mesh {
    name: String,
    #[serde(default)]
    ingress: Ingress,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Ingress {
    service: Service,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Service {
    #[serde(rename = "type")]
    kind: ServiceType,
    node_port: u16,
    #[serde(rename = "externalIPs")]
    external_ips: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum ServiceType {
    #[default]
    LoadBalancer,
    NodePort,
    #[serde(rename = "ClusterIP")]
    ClusterIp,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl ControlPlane {
    /// Prints the manifests, definitions first.
    pub(crate) fn print(&self, out: &mut Output<'_>) -> Result<()> {
        let values = self.values()?;
        if values.mode == Mode::Zone {
            // Global keeps its resources in a file.
            kinds::crd::manifests().iter().try_for_each(|made| out.text(&made.yaml))?;
        }
        self.objects(&values)?.iter().try_for_each(|object| {
            out.line("---")?;
            out.document(Format::Yaml, object)
        })
    }

    fn values(&self) -> Result<Values> {
        let mut tree = json!({});
        if let Some(file) = &self.values {
            let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
            let read: Option<Value> =
                serde_saphyr::from_str(&text).with_context(|| file.display().to_string())?;
            tree = read.filter(|read| !read.is_null()).unwrap_or(tree);
        }
        for (key, value) in &self.set {
            set(&mut tree, key, value).with_context(|| format!("--set {key}"))?;
        }
        let mut values: Values = serde_path_to_error::deserialize(tree)
            .context("what cannot be said here, the Helm chart in deploy/helm takes")?;
        values.mode = self.mode.unwrap_or(values.mode);
        values.check()?;
        Ok(values)
    }

    fn objects(&self, values: &Values) -> Result<Vec<Value>> {
        resource::NameRule::Label.check(&self.namespace).context("--namespace")?;
        let chart = match values.mode {
            Mode::Zone if values.zone.global.address.is_empty() => ALONE,
            Mode::Zone => ZONE,
            Mode::Global => GLOBAL,
        };
        let chart: Vec<Value> = serde_saphyr::from_multiple(chart).context("the chart")?;
        let mut places = vec![
            ("the-namespace", self.namespace.as_str()),
            ("the-registry", &values.image.registry),
            ("the-tag", &values.image.tag),
            ("the-zone", &values.zone.name),
            ("https://the-address", &values.zone.global.address),
            ("the-secret", &values.zone.global.secret),
        ];
        let (of_meshes, others): (Vec<Value>, Vec<Value>) =
            chart.into_iter().partition(|object| name(object).ends_with("the-mesh"));
        let mut objects = vec![json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": self.namespace },
        })];
        for object in others {
            let service = (name(&object) == "atoll-global-zones").then_some(&values.global.service);
            let mut object = filled(object, &places, &values.global.names, service);
            if let (true, Some(replicas)) =
                (name(&object) == "atoll-zone-cp", object.pointer_mut("/spec/replicas"))
            {
                *replicas = values.control_plane.replicas.into();
            }
            objects.push(object);
        }
        for mesh in &values.meshes {
            places.push(("the-mesh", &mesh.name));
            let service = Some(&mesh.ingress.service);
            objects.extend(of_meshes.iter().map(|it| filled(it.clone(), &places, &[], service)));
            places.pop();
        }
        mark_settings(&mut objects);
        Ok(objects)
    }
}

impl Values {
    fn check(&self) -> Result<()> {
        match (self.mode, self.control_plane.replicas) {
            (Mode::Zone, 1..=2) | (Mode::Global, 1) => {}
            (Mode::Zone, _) => {
                bail!("controlPlane.replicas: must be 1, or 2 of which one stands by")
            }
            (Mode::Global, _) => bail!("controlPlane.replicas: global is one process"),
        }
        match self.mode {
            Mode::Global if !self.meshes.is_empty() => bail!("meshes: only a zone has ingresses"),
            Mode::Global => return Ok(()),
            Mode::Zone => {}
        }
        ZoneName::new(&self.zone.name).context("zone.name")?;
        let Joined { address, secret } = &self.zone.global;
        if address.is_empty() && !secret.is_empty() {
            bail!("zone.global.secret: must not be set without zone.global.address");
        }
        let schemes = ["https://", "grpcs://"];
        if !address.is_empty() && !schemes.iter().any(|it| address.starts_with(it)) {
            bail!(
                "zone.global.address: must be where global is, such as https://global.example:5685"
            );
        }
        if secret.is_empty() && !address.is_empty() {
            bail!("zone.global.secret: must name the Secret with `token` and `ca.crt`");
        }
        for (i, mesh) in self.meshes.iter().enumerate() {
            MeshName::new(&mesh.name).with_context(|| format!("meshes[{i}].name"))?;
            if mesh.name.len() > MESH {
                bail!(
                    "meshes[{i}].name: must have at most {MESH} characters: a Service is called after it"
                );
            }
        }
        Ok(())
    }
}

impl Service {
    fn shape(&self, spec: &mut Map<String, Value>) {
        let kind = match self.kind {
            ServiceType::LoadBalancer => "LoadBalancer",
            ServiceType::NodePort => "NodePort",
            ServiceType::ClusterIp => "ClusterIP",
        };
        spec.insert("type".into(), kind.into());
        if self.kind == ServiceType::ClusterIp {
            spec.remove("externalTrafficPolicy");
        }
        if !self.external_ips.is_empty() {
            spec.insert("externalIPs".into(), json!(self.external_ips));
        }
        if let (1.., Some(port)) =
            (self.node_port, spec.get_mut("ports").and_then(|it| it.get_mut(0)))
        {
            port["nodePort"] = self.node_port.into();
        }
    }
}

fn name(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

/// `object` with what its places stand for, and as a Service of that form.
fn filled(
    mut object: Value,
    places: &[(&str, &str)],
    names: &[String],
    service: Option<&Service>,
) -> Value {
    fill(&mut object, places, names);
    let is_service = object.get("kind").is_some_and(|kind| kind == "Service");
    if let (Some(service), true) = (service, is_service)
        && let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
    {
        service.shape(spec);
    }
    object
}

fn fill(value: &mut Value, places: &[(&str, &str)], names: &[String]) {
    match value {
        Value::String(text) => {
            // An item of a list in settings: as many lines as there are names.
            if let Some(line) = text.lines().find(|line| line.ends_with("- the-name")) {
                let lines = names.iter().map(|name| line.replace("the-name", name) + "\n");
                *text = text.replace(&format!("{line}\n"), &lines.collect::<String>());
            }
            // Who manages the objects: Helm does not know of them.
            if text == "Helm" {
                "atoll".clone_into(text);
            }
            for (place, meant) in places {
                *text = text.replace(place, meant);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, places, names)),
        Value::Object(fields) => fields.values_mut().for_each(|item| fill(item, places, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Other settings are other pods, as in the chart.
fn mark_settings(objects: &mut [Value]) {
    let settings: BTreeMap<String, String> = objects
        .iter()
        .filter_map(|object| {
            let text = object.pointer("/data/settings.yaml").and_then(Value::as_str)?;
            Some((name(object).to_owned(), format!("{:016x}", xxh3_64(text.as_bytes()))))
        })
        .collect();
    for object in objects {
        let hash = settings.get(name(object)).cloned();
        let mark = object.pointer_mut("/spec/template/metadata/annotations/atoll.io~1settings");
        if let (Some(hash), Some(mark)) = (hash, mark) {
            *mark = hash.into();
        }
    }
}

/// Puts `value`, a YAML scalar, at `key`, such as `meshes[0].name`.
fn set(tree: &mut Value, key: &str, value: &str) -> Result<()> {
    let mut at = tree;
    for part in key.split('.') {
        let (field, indices) = part.split_once('[').map_or((part, None), |(f, i)| (f, Some(i)));
        if field.is_empty() {
            bail!("{key:?} is no key, such as zone.name or meshes[0].name");
        }
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[field];
        let Some(index) = indices else { continue };
        let index = index.strip_suffix(']').and_then(|index| index.parse::<usize>().ok());
        let index =
            index.filter(|index| *index < ITEMS).context("what is in [] must be a number")?;
        if !at.is_array() {
            *at = json!([]);
        }
        let items = at.as_array_mut().context("a list")?;
        items.resize(items.len().max(index + 1), json!({}));
        at = items.get_mut(index).context("a list")?;
    }
    // What is no YAML, such as `@x`, is meant as it stands.
    *at = serde_saphyr::from_str(value).unwrap_or_else(|_| value.into());
    Ok(())
}

#[cfg(test)]
mod tests;
