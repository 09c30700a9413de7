//! What every call of a proxy passes: who it is, what it wants to be, whether it may.

use super::{
    auth::{Bearer, Tokens, Wanted, Who},
    limits,
    proxy::Sent,
    registry::Registry,
};
use crate::{
    identities::Issuer,
    names::Names,
    reconcile::{Meshes, ProxyKey},
};
use api::expiry::{Entry, Holder};
use jiff::Timestamp;
use kinds::{
    dataplane::{self, Dataplane},
    labels::{self, Request},
};
use resource::{AnySpec, Labels, MeshName, Resource, ResourceKey, label};
use serde_json::Value;
use std::sync::Arc;
use store::view::KindSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// What the calls of proxies share.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) registry: Arc<Registry>,
    pub(super) tokens: Tokens,
    pub(super) meshes: Meshes,
    pub(super) issuer: Issuer,
    pub(super) names: Arc<Names>,
    pub(super) stop: CancellationToken,
}

impl Holder for Desk {
    fn entries(&self, soon: Timestamp) -> Vec<Entry> {
        self.tokens.entries(soon)
    }
}

/// A proxy that may be what it wants to be.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) mesh: MeshName,
    pub(super) key: ResourceKey,
    /// As the proxy wants it; `None` if it takes what is stored.
    pub(super) sent: Option<Sent>,
    pub(super) spec: Arc<Dataplane>,
    pub(super) labels: Labels,
}

impl Admitted {
    pub(super) fn proxy(&self) -> ProxyKey {
        ProxyKey { mesh: self.mesh.clone(), name: self.key.name.clone() }
    }

    pub(super) fn workload(&self) -> Option<String> {
        self.labels.get(label::WORKLOAD).map(str::to_owned)
    }
}

impl Desk {
    /// Nobody is served from a view that has not been complete once.
    pub(super) fn check_open(&self) -> Result<(), Status> {
        if self.meshes.is_open() {
            return Ok(());
        }
        Err(Status::unavailable("this zone does not know everything yet"))
    }

    /// Waits until the Dataplane of a pod is there: its sidecar may be faster than we are. Others
    /// bring theirs along, or it is there. Cancel safe.
    pub(super) async fn appears(&self, bearer: &Bearer, (mesh, name): (&str, &str)) {
        let (Who::Pod(_), Ok(mesh)) = (&bearer.who, MeshName::new(mesh)) else { return };
        let (shelf, key) = (&self.registry.shelf, ResourceKey::in_mesh(&mesh, name));
        let kinds: KindSet = [shelf.ids.dataplane].into_iter().collect();
        let mut changed = shelf.reader.watch(kinds);
        let there = async {
            while shelf.get(shelf.ids.dataplane, &key).is_none() && changed.dirty().await.is_ok() {}
        };
        // Then it is told that there is none.
        drop(timeout(limits::APPEARANCE, there).await);
    }

    /// Whether `bearer` may be the Dataplane `name` of `mesh`. `json` is the Dataplane as the proxy
    /// wants it, or empty.
    pub(super) fn admit(
        &self,
        bearer: &Bearer,
        (mesh, name): (&str, &str),
        json: &str,
    ) -> Result<Admitted, Status> {
        bearer.may_join(mesh).map_err(|error| error.status())?;
        let shelf = &self.registry.shelf;
        if shelf.get(shelf.ids.mesh, &ResourceKey::global(mesh)).is_none() {
            return Err(Status::not_found(format!("mesh: mesh {mesh:?} does not exist")));
        }
        dataplane::KIND
            .name_rule
            .check(name)
            .map_err(|error| Status::invalid_argument(format!("name: {error}")))?;
        let mesh = MeshName::new(mesh)
            .map_err(|error| Status::invalid_argument(format!("mesh: {error}")))?;
        let key = ResourceKey::in_mesh(&mesh, name);
        let stored = shelf.get(shelf.ids.dataplane, &key);
        let before = stored.as_deref().map(read).transpose()?;
        let (sent, spec, labels) = if json.is_empty() {
            let missing = || {
                let text = format!("there is no Dataplane {name} in mesh {mesh}");
                match bearer.who {
                    // There will be one: who is told so tries again.
                    Who::Pod(_) => Status::unavailable(text),
                    Who::Proxy { .. } => Status::not_found(text),
                }
            };
            let (spec, labels) = before.clone().ok_or_else(missing)?;
            (None, spec, labels)
        } else {
            bearer.may_send().map_err(|error| error.status())?;
            let existing = stored.as_deref().map(|row| &row.head.labels);
            let (spec, labels) = self.parse(&key, json, existing)?;
            (Some(Sent { spec: (*spec).clone(), labels: labels.clone() }), spec, labels)
        };
        let wanted = Wanted { key: &key, labels: &labels, spec: &spec };
        let there = before.as_ref().map(|(spec, labels)| Wanted { key: &key, labels, spec });
        let needs_workload = self.issuer.needs_workload(&mesh, &labels);
        bearer.may_be(&wanted, there.as_ref(), needs_workload).map_err(|error| error.status())?;
        Ok(Admitted { mesh, key, sent, spec, labels })
    }

    /// Reads a Dataplane as REST has it.
    fn parse(
        &self,
        key: &ResourceKey,
        json: &str,
        existing: Option<&Labels>,
    ) -> Result<(Arc<Dataplane>, Labels), Status> {
        let invalid = |text: String| Status::invalid_argument(text);
        if json.len() > limits::DATAPLANE {
            return Err(invalid(format!("dataplane: larger than {} bytes", limits::DATAPLANE)));
        }
        let value: Value =
            serde_json::from_str(json).map_err(|error| invalid(format!("dataplane: {error}")))?;
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let mesh = key.mesh.as_ref().map_or("", MeshName::as_str);
        for (field, right) in [("type", dataplane::KIND.name), ("mesh", mesh), ("name", &key.name)]
        {
            if text(field) != right {
                let found = text(field);
                return Err(invalid(format!("dataplane.{field}: must be {right:?}, is {found:?}")));
            }
        }
        let empty = serde_json::Map::new();
        let given = match value.get("labels") {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(labels)) => labels,
            Some(_) => return Err(invalid("dataplane.labels: must be texts by name".into())),
        };
        let pair = |(key, value): (&'_ String, &'_ Value)| {
            let value = value.as_str().map(str::to_owned);
            value
                .map(|value| (key.clone(), value))
                .ok_or_else(|| invalid(format!("dataplane.labels[{key:?}]: must be a text")))
        };
        let given = given.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
        let given = given.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let spec: AnySpec = dataplane::KIND
            .from_json(value)
            .map_err(|error| invalid(format!("dataplane: {error}")))?;
        let request = Request { kind: dataplane::KIND, key, labels: &given, existing, spec: &spec };
        let labels = labels::computed(&request, &self.registry.shelf.place)
            .map_err(|violations| invalid(format!("dataplane: {violations}")))?;
        // Set when it is written.
        let labels = labels.without(label::MANAGED_BY);
        let spec = spec.downcast().expect("a kind reads specs of that kind");
        Ok((spec, labels))
    }
}

fn read(row: &Resource) -> Result<(Arc<Dataplane>, Labels), Status> {
    let spec = kinds::read::<Dataplane>(row);
    let spec = spec.map_err(|error| Status::internal(format!("stored Dataplane: {error}")))?;
    Ok((spec, row.head.labels.clone()))
}
