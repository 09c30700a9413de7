//! An object of one of our kinds, as the API server shows it.

use super::review::Request;
use kinds::{
    container_patch, hostname_generator, mesh_external_service, mesh_identity,
    mesh_open_telemetry_backend, mesh_trust,
};
use resource::{Kind, Labels, MeshName, ResourceKey, Scope, Violations, label};
use serde_json::{Map, Value};

/// Labels whose values may be longer than Kubernetes allows: they are annotations there.
pub(super) const ANNOTATED: [&str; 3] =
    [label::DISPLAY_NAME, label::SERVICE_ACCOUNT, label::WORKLOAD];

/// Those that say something about the whole zone, and belong to who runs it.
const OF_THE_SYSTEM: [Kind; 6] = [
    container_patch::KIND,
    hostname_generator::KIND,
    mesh_external_service::KIND,
    mesh_identity::KIND,
    mesh_open_telemetry_backend::KIND,
    mesh_trust::KIND,
];

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) kind: Kind,
    /// As its user calls it.
    pub(super) name: String,
    /// Empty if it has none.
    pub(super) namespace: String,
    pub(super) mesh: Option<MeshName>,
    /// With those that are annotations.
    pub(super) labels: Labels,
    pub(super) content: Value,
}

impl Object {
    /// Reads `document`, and says what cannot be read.
    pub(super) fn read(
        kind: Kind,
        document: &Value,
        request: &Request,
        violations: &mut Violations,
    ) -> Self {
        let field = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
        let name = field("/metadata/name").unwrap_or(&request.name);
        let made_up = field("/metadata/generateName").map(|start| format!("{start}x"));
        let name = if name.is_empty() { made_up.unwrap_or_default() } else { name.to_owned() };
        let none = Map::new();
        let map =
            |pointer: &str| document.pointer(pointer).and_then(Value::as_object).unwrap_or(&none);
        let text =
            |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        let labels = map("/metadata/labels").iter().filter_map(text);
        let annotated = map("/metadata/annotations").iter().filter_map(text);
        let annotated = annotated.filter(|(key, _)| ANNOTATED.contains(&key.as_str()));
        let labels: Vec<(String, String)> = labels.chain(annotated).collect();
        let labels: Labels = labels.iter().map(|(key, value)| (&**key, &**value)).collect();
        let custom = kind.custom;
        let mesh = (kind.scope == Scope::Mesh).then(|| {
            let named = custom.filter(|it| it.names_mesh).and_then(|_| field("/mesh"));
            let named = named.filter(|mesh| !mesh.is_empty());
            let (at, mesh) = match (named, labels.get(label::MESH)) {
                (Some(mesh), _) => ("mesh".to_owned(), mesh),
                (None, Some(mesh)) => (of_label(label::MESH), mesh),
                (None, None) => (String::new(), "default"),
            };
            MeshName::new(mesh).map_err(|error| violations.add(at, error)).ok()
        });
        let content = custom.and_then(|it| document.get(it.content));
        let content = content.filter(|content| !content.is_null()).cloned();
        Self {
            kind,
            name,
            namespace: request.namespace.clone(),
            mesh: mesh.flatten(),
            labels,
            content: content.unwrap_or_else(|| Value::Object(Map::new())),
        }
    }

    /// Its key as its user knows it, which is what names are checked by.
    pub(super) fn key(&self) -> ResourceKey {
        ResourceKey { mesh: self.mesh.clone(), name: self.name.as_str().into() }
    }

    /// Whether it may only be in the system namespace.
    pub(super) fn is_of_the_system(&self) -> bool {
        OF_THE_SYSTEM.iter().any(|kind| kind.name == self.kind.name)
    }
}

/// Where a label of an object stands.
pub(super) fn of_label(key: &str) -> String {
    let list = if ANNOTATED.contains(&key) { "annotations" } else { "labels" };
    format!("metadata.{list}[{key}]")
}
