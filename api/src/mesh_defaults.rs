//! What a mesh starts with, where meshes are written.
//!
//! What was offered once is remembered, so that what a user deleted stays away, and a mesh that was
//! made before a kind existed gets the defaults of that kind.

use super::{Change, Hooks, Prepared, Problem, author::Author, keys::dataplane_keys};
use http::StatusCode;
use identity::token::{InvalidKey, SigningKey};
use kinds::{
    dataplane,
    mesh::{self, Mesh},
    mesh_circuit_breaker, mesh_identity, mesh_retry, mesh_timeout, secret,
};
use resource::{AnySpec, Kind, MeshName, RejectedSpec, Resource, ResourceKey};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};
use store::{
    Expected, Item,
    view::{Edit, Reader},
};

/// A default cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NoDefault {
    /// A key could not be generated.
    #[error("the signing key of a mesh cannot be made")]
    Key(#[from] InvalidKey),
    /// The machine gave it up.
    #[error("the signing key of a mesh was not made")]
    Cancelled(#[from] tokio::task::JoinError),
    /// A spec of ours is not one.
    #[error(transparent)]
    Rejected(#[from] RejectedSpec),
}

/// One default: its kind, its name, its spec.
type Default = (Kind, String, Value);

/// The step-by-step list of what a new mesh gets, by kind.
fn of_mesh(mesh: &MeshName) -> Vec<Default> {
    let timeouts = mesh_timeout::KIND.kind;
    let inbound = json!({
        "targetRef": {"kind": "Mesh"},
        "rules": [{"default": {
            "connectionTimeout": "10s",
            "idleTimeout": "2h",
            "http": {
                "requestTimeout": "0s",
                "streamIdleTimeout": "1h",
                "maxStreamDuration": "0s",
            },
        }}],
    });
    let outbound = json!({
        "targetRef": {"kind": "Mesh"},
        "to": [{"targetRef": {"kind": "Mesh"}, "default": {
            "connectionTimeout": "5s",
            "idleTimeout": "1h",
            "http": {"requestTimeout": "15s", "streamIdleTimeout": "30m"},
        }}],
    });
    // Nothing about retries: a cluster has a budget of them where no policy says otherwise.
    let breaker = json!({
        "targetRef": {"kind": "Mesh"},
        "to": [{"targetRef": {"kind": "Mesh"}, "default": {"connectionLimits": {
            "maxConnections": 1024, "maxPendingRequests": 1024, "maxRequests": 1024,
        }}}],
    });
    let attempts = json!({
        "numRetries": 5,
        "perTryTimeout": "16s",
        "backOff": {"baseInterval": "25ms", "maxInterval": "250ms"},
    });
    let retry = json!({
        "targetRef": {"kind": "Mesh"},
        "to": [{"targetRef": {"kind": "Mesh"}, "default": {
            "tcp": {"maxConnectAttempt": 5}, "http": attempts, "grpc": attempts,
        }}],
    });
    let identity = json!({
        "selector": {"dataplane": {"matchLabels": {}}},
        "provider": {
            "type": "Bundled",
            "bundled": {
                "meshTrustCreation": "Enabled",
                "insecureAllowSelfSigned": true,
                "autogenerate": {"enabled": true},
            },
        },
    });
    vec![
        (timeouts, format!("mesh-timeout-all-{mesh}"), inbound),
        (timeouts, format!("mesh-timeout-to-all-{mesh}"), outbound),
        (mesh_circuit_breaker::KIND, format!("mesh-circuit-breaker-all-{mesh}"), breaker),
        (mesh_retry::KIND, format!("mesh-retry-all-{mesh}"), retry),
        (mesh_identity::KIND, "identity".into(), identity),
    ]
}

/// The row that remembers what `mesh` was offered.
fn offered_row(mesh: &str) -> String {
    format!("atoll-defaults-of-{mesh}")
}

/// What the row called `row` says was offered.
#[must_use]
pub fn offered(author: &Author, reader: &Reader, row: &str) -> BTreeSet<String> {
    let text = author.remembered(reader, row).unwrap_or_default();
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// What such a row says.
#[must_use]
pub fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

/// What is committed together with a new mesh.
async fn with_new_mesh(
    author: &Author,
    mesh: &MeshName,
    row: &Resource,
) -> Result<Vec<Item>, NoDefault> {
    let mut items = of_kinds(author, mesh, row, &BTreeSet::new())?;
    items.push(signing_key(author, mesh).await?);
    Ok(items)
}

/// The defaults of kinds that an existing mesh was not offered yet.
fn of_existing_mesh(
    author: &Author,
    reader: &Reader,
    mesh: &MeshName,
    row: &Resource,
) -> Result<Vec<Item>, NoDefault> {
    of_kinds(author, mesh, row, &offered(author, reader, &offered_row(mesh.as_str())))
}

fn of_kinds(
    author: &Author,
    mesh: &MeshName,
    row: &Resource,
    offered: &BTreeSet<String>,
) -> Result<Vec<Item>, NoDefault> {
    let spec = kinds::read::<Mesh>(row)?;
    let skipped = &spec.0.skip_creating_initial_policies;
    let skips = |kind: &Kind| skipped.iter().any(|name| name == "*" || name == kind.name);
    let (mut items, mut now) = (Vec::new(), offered.clone());
    for (kind, name, spec) in of_mesh(mesh) {
        if offered.contains(kind.name) {
            continue;
        }
        now.insert(kind.name.into());
        if !skips(&kind) {
            items.push(author.create(kind, ResourceKey::in_mesh(mesh, &name), spec)?);
        }
    }
    if now != *offered {
        items.push(author.remember(&offered_row(mesh.as_str()), &listed(&now))?);
    }
    Ok(items)
}

async fn signing_key(author: &Author, mesh: &MeshName) -> Result<Item, NoDefault> {
    // It takes a few hundred milliseconds of a processor.
    let key = tokio::task::spawn_blocking(SigningKey::generate).await??;
    let spec: AnySpec = Arc::new(secret::Secret::of(key.private_pem().as_bytes()));
    let name = format!("{}1", dataplane_keys(mesh));
    let key = ResourceKey::in_mesh(mesh, &name);
    Ok(author.write(secret::KIND, key, &spec, Expected::Nothing)?)
}

/// A new mesh called `name` and its defaults.
pub async fn new_mesh(author: &Author, name: &MeshName) -> Result<Vec<Item>, NoDefault> {
    let item = author.create(mesh::KIND, ResourceKey::global(name.as_str()), json!({}))?;
    let more = match &item.edit {
        Edit::Put(row) => with_new_mesh(author, name, row).await?,
        Edit::Delete(_) => Vec::new(),
    };
    Ok([item].into_iter().chain(more).collect())
}

/// The defaults of kinds that the meshes there are were not offered yet.
pub fn of_existing_meshes(author: &Author, reader: &Reader) -> Result<Vec<Item>, NoDefault> {
    let (_, meshes) = reader.rows(author.id(mesh::KIND));
    let mut items = Vec::new();
    for row in meshes.iter() {
        // A name that is no mesh's cannot have been stored.
        let Ok(mesh) = MeshName::new(&row.head.key.name) else { continue };
        items.extend(of_existing_mesh(author, reader, &mesh, row)?);
    }
    Ok(items)
}

/// Keys that sign tokens of proxies, for meshes that have none: one that is made as an object of a
/// cluster comes without.
pub async fn missing_keys(author: &Author, reader: &Reader) -> Result<Vec<Item>, NoDefault> {
    let (_, meshes) = reader.rows(author.id(mesh::KIND));
    let mut items = Vec::new();
    for row in meshes.iter() {
        let Ok(mesh) = MeshName::new(&row.head.key.name) else { continue };
        if super::keys::TokenKeys::of_mesh(&author.kinds, &mesh).now(reader).keys.is_empty() {
            items.push(signing_key(author, &mesh).await?);
        }
    }
    Ok(items)
}

/// Gives new meshes their defaults, and keeps those that proxies need.
#[derive(Clone, Debug)]
pub struct MeshDefaults {
    /// Writes them.
    pub author: Author,
}

impl Hooks for MeshDefaults {
    fn before<'a>(&'a self, change: &'a Change<'a>) -> Prepared<'a> {
        Box::pin(async move {
            // Checked when the row was made.
            let Ok(mesh) = MeshName::new(&change.key.name) else { return Ok(Vec::new()) };
            match (change.before, change.after) {
                _ if change.kind.name != mesh::KIND.name => Ok(Vec::new()),
                (None, Some(row)) => {
                    let made = with_new_mesh(&self.author, &mesh, row).await;
                    made.map_err(|error| {
                        tracing::error!(%mesh, %error, "defaults of a mesh cannot be made");
                        let status = StatusCode::INTERNAL_SERVER_ERROR;
                        Problem::new(status, "Internal Server Error", "see the log")
                    })
                }
                (_, None) => self.delete(change, &mesh),
                (Some(_), Some(_)) => Ok(Vec::new()),
            }
        })
    }
}

impl MeshDefaults {
    fn delete(&self, change: &Change<'_>, mesh: &MeshName) -> Result<Vec<Item>, Problem> {
        let (_, rows) = change.reader.rows(self.author.id(dataplane::KIND));
        let first = rows.after(Some(&ResourceKey::in_mesh(mesh, ""))).next();
        if first.is_some_and(|row| row.head.key.mesh.as_ref() == Some(mesh)) {
            let reason = "unable to delete mesh, there are still some dataplanes attached";
            let problem = Problem::conflict("Could not delete a resource", reason);
            return Err(problem.with_field("mesh", reason));
        }
        Ok(vec![self.author.forget(&offered_row(mesh.as_str()))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::Clock;
    use kinds::labels::Place;
    use resource::Peer;
    use store::{Backend as _, Kinds, Memory};

    #[tokio::test(start_paused = true)]
    async fn a_mesh_gets_what_it_was_not_offered_yet_and_nothing_twice() {
        let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Zone };
        let clock = Clock::system();
        let (store, writer) = store::open(Memory::new(1), kinds.clone(), clock).unwrap();
        let author = Author { kinds: Arc::new(kinds), place: Place::Global };
        let shop = ResourceKey::global("shop");
        let skips = json!({"skipCreatingInitialPolicies": ["MeshIdentity"]});
        let test = async {
            let before = vec![
                author.create(mesh::KIND, shop, json!({})).unwrap(),
                author.create(mesh::KIND, ResourceKey::global("bank"), skips).unwrap(),
                // As an older program left it, which knew no other kinds.
                author.remember(&offered_row("shop"), "MeshTimeout").unwrap(),
                author.remember(&offered_row("bank"), "MeshTimeout").unwrap(),
            ];
            store.commit(before).await.unwrap();
            let reader = store.reader();
            let items = of_existing_meshes(&author, &reader).unwrap();
            store.commit(items).await.unwrap();
            let names = |kind: Kind| -> Vec<String> {
                let (_, rows) = reader.rows(author.id(kind));
                rows.iter().map(|row| row.head.key.to_string()).collect()
            };
            let of_both = |name: &str| ["bank", "shop"].map(|it| format!("{it}/{name}-{it}"));
            assert_eq!(names(mesh_identity::KIND), ["shop/identity"], "bank wants none");
            assert_eq!(names(mesh_circuit_breaker::KIND), of_both("mesh-circuit-breaker-all"));
            assert_eq!(names(mesh_retry::KIND), of_both("mesh-retry-all"));
            assert_eq!(names(mesh_timeout::KIND.kind), [""; 0], "they were offered");
            assert_eq!(of_existing_meshes(&author, &reader).unwrap().len(), 0);
        };
        store::conformance::while_running(writer, test).await;
    }
}
