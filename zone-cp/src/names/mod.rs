//! Records out of services: the names of every mesh, for this zone's DNS and for its proxies.
//!
//! A service has its host names and its addresses in its status. What changed there changes the
//! records of its mesh, and each proxy is told what changed since it was told last.

mod table;
#[cfg(test)]
mod tests;

pub use self::table::Delta;

use self::table::{Claim, Table};
use dns::{Change, Records};
use kinds::mesh_service::MeshService;
use parking_lot::{Mutex, RwLock};
use proto::atoll::proxy::v1 as session;
use resource::{MeshName, Resource, ResourceKey};
use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
};
use store::view::{Closed, Feed, KindId, KindSet, Reader};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The names of all meshes.
#[derive(Debug, Default)]
pub struct Names {
    meshes: Mutex<Meshes>,
}

#[derive(Debug, Default)]
struct Meshes {
    by_name: HashMap<MeshName, Arc<Mesh>>,
    /// Whether everything that was there at the start was read.
    complete: bool,
}

/// The names of one mesh.
#[derive(Debug)]
struct Mesh {
    table: RwLock<Table>,
    /// The revision of the table; `None` before it is complete.
    published: watch::Sender<Option<u64>>,
}

/// The zone's DNS, which answers for one mesh.
#[derive(Clone, Debug)]
pub struct Dns {
    /// The mesh.
    pub mesh: MeshName,
    /// What is answered.
    pub records: Arc<Records>,
}

impl Names {
    /// Follows the services that `reader` shows, whose kind is `services`, until `shutdown`.
    pub async fn run(
        &self,
        reader: &Reader,
        services: KindId,
        dns: Option<Dns>,
        shutdown: CancellationToken,
    ) {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            // Who runs the store knows why it closed, and ends the process.
            Err(Closed) = self.follow(reader, services, dns) => shutdown.cancelled().await,
        }
    }

    async fn follow(
        &self,
        reader: &Reader,
        services: KindId,
        dns: Option<Dns>,
    ) -> Result<Infallible, Closed> {
        let mut feed = Feed::of(reader, KindSet::default().with(services));
        loop {
            let mut changes = BTreeMap::<MeshName, Vec<Change>>::new();
            for update in feed.next().await? {
                let Some(mesh) = &update.key.mesh else { continue };
                let claim = update.now.as_deref().and_then(|row| claim(&update.key, row));
                let change = self.mesh(mesh).table.write().claim(&update.key, claim);
                changes.entry(mesh.clone()).or_default().push(change);
            }
            if let Some(Dns { mesh, records }) = &dns {
                for change in changes.get(mesh).into_iter().flatten() {
                    records.apply(change.clone());
                }
                records.complete();
            }
            self.publish();
        }
    }

    fn mesh(&self, name: &MeshName) -> Arc<Mesh> {
        let mut meshes = self.meshes.lock();
        let known = meshes.complete.then_some(0);
        let new =
            || Arc::new(Mesh { table: RwLock::default(), published: watch::channel(known).0 });
        meshes.by_name.entry(name.clone()).or_insert_with(new).clone()
    }

    fn publish(&self) {
        let mut meshes = self.meshes.lock();
        meshes.complete = true;
        for mesh in meshes.by_name.values() {
            let revision = Some(mesh.table.read().revision());
            mesh.published.send_if_modified(|published| {
                let changed = *published != revision;
                *published = revision;
                changed
            });
        }
    }

    /// The names of `mesh`, for one proxy.
    #[must_use]
    pub fn subscribe(&self, mesh: &MeshName) -> Subscription {
        let mesh = self.mesh(mesh);
        let published = mesh.published.subscribe();
        Subscription { mesh, published, told: None }
    }
}

/// What one proxy was told.
#[derive(Debug)]
pub struct Subscription {
    mesh: Arc<Mesh>,
    published: watch::Receiver<Option<u64>>,
    told: Option<u64>,
}

impl Subscription {
    /// The next thing to tell: at first everything, later what changed. Waits until there is
    /// something, and counts it as told.
    ///
    /// Cancel safe: what was told is counted in the step that returns it.
    pub async fn next(&mut self) -> Delta {
        let told = self.told;
        let due = |published: &Option<u64>| published.is_some() && *published != told;
        let changed = self.published.wait_for(due).await.map(drop);
        changed.expect("the mesh is held here, and its sender with it");
        let table = self.mesh.table.read();
        self.told = Some(table.revision());
        table.since(told)
    }
}

impl Delta {
    /// As it is sent to a proxy.
    #[must_use]
    pub fn message(&self, nonce: u64) -> session::Records {
        let record = |(name, addresses): &(Arc<str>, Arc<[IpAddr]>)| session::Record {
            name: name.to_string(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
        };
        session::Records {
            nonce,
            complete: self.complete,
            upserts: self.upserts.iter().map(record).collect(),
            removals: self.removals.iter().map(ToString::to_string).collect(),
        }
    }
}

/// What a service claims; nothing while it has no address.
fn claim(key: &ResourceKey, row: &Resource) -> Option<Claim> {
    let status = kinds::status::<MeshService>(row);
    let status = status.inspect_err(|error| {
        tracing::warn!(%key, %error, "status of a service is unreadable, it has no names");
    });
    let status = status.ok()?;
    let address = status.vips.iter().find_map(|vip| vip.ip.parse().ok())?;
    let names = status.addresses.iter().map(|address| address.hostname.as_str());
    let names = names.filter(|name| !name.is_empty()).map(|name| name.to_ascii_lowercase().into());
    Some(Claim { since: row.head.times.created, names: names.collect(), address })
}
