//! The handle to all meshes of a zone.

use super::{
    change::{Change, Input},
    marks::ProxyId,
    mesh::Mesh,
    proxies::Traits,
    tcp::{Moment, Record},
    written,
};
use crate::{
    beacons::Beacons,
    generate::Trust,
    identities::{Issued, Issuer, NoSvid},
};
use daemon::Clock;
use delta::{Item, Name};
use jiff::Timestamp;
use kinds::beacon::Beacon;
use parking_lot::{Mutex, RwLock};
use resource::{Labels, MeshName, ResourceKey, ZoneName};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use store::view::{KindId, Reader, Revision};
use tokio::sync::{Notify, watch};
use xds::{Changes, Source, Type};

/// Who proxies are and whom they trust.
pub trait Certificates: Send + Sync {
    /// What a Dataplane with these labels proves who it is by, if its proxy is like this; the same
    /// until it is renewed.
    fn of(&self, proxy: &ResourceKey, labels: &Labels, traits: Traits) -> Option<Arc<Issued>>;

    /// Whose certificates count in a mesh.
    fn trust(&self, mesh: &MeshName) -> Arc<Trust>;

    /// The proxy is not connected any more.
    fn forget(&self, proxy: &ResourceKey);
}

impl Certificates for Issuer {
    fn of(&self, proxy: &ResourceKey, labels: &Labels, traits: Traits) -> Option<Arc<Issued>> {
        let why = |error: &NoSvid| tracing::info!(%proxy, %error, "proxy without certificate");
        self.issue(proxy, labels, traits.has_agent).inspect_err(why).ok()
    }

    fn trust(&self, mesh: &MeshName) -> Arc<Trust> {
        Self::trust(self, mesh)
    }

    fn forget(&self, proxy: &ResourceKey) {
        Self::forget(self, proxy);
    }
}

/// Names a proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProxyKey {
    /// Its mesh.
    pub mesh: MeshName,
    /// Its Dataplane.
    pub name: Arc<str>,
}

impl ProxyKey {
    fn resource(&self) -> ResourceKey {
        ResourceKey { mesh: Some(self.mesh.clone()), name: self.name.clone() }
    }
}

/// Why a proxy gets nothing yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// The zone has not been complete once. What it does not know would be taken for gone.
    #[error("this zone does not know everything yet")]
    Incomplete,
    /// There is no such mesh.
    #[error("there is no mesh {0}")]
    NoMesh(MeshName),
    /// There is no such Dataplane.
    #[error("there is no Dataplane {name} in mesh {mesh}", mesh = .0.mesh, name = .0.name)]
    NoDataplane(ProxyKey),
}

/// The meshes of a zone. Cloning shares them.
#[derive(Clone)]
pub struct Meshes(Arc<Shared>);

struct Shared {
    zone: ZoneName,
    certificates: Arc<dyn Certificates>,
    clock: Clock,
    reader: Reader,
    /// The kind in which is kept what must survive.
    config: KindId,
    /// The kinds that reach the tables.
    inputs: RwLock<Vec<KindId>>,
    meshes: RwLock<BTreeMap<MeshName, Arc<Mutex<Mesh>>>>,
    last: AtomicU64,
    progress: watch::Sender<Progress>,
    wake: Notify,
    beacons: Beacons,
    moved: watch::Sender<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// The program says that the view is complete.
    open: bool,
    /// What the tables contain.
    applied: Option<Revision>,
}

impl fmt::Debug for Meshes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meshes").field("zone", &self.0.zone).finish_non_exhaustive()
    }
}

impl Meshes {
    /// No meshes yet: see [`run`](Self::run). `config` is the kind Config.
    #[must_use]
    pub fn new(
        zone: ZoneName,
        certificates: Arc<dyn Certificates>,
        clock: Clock,
        reader: Reader,
        config: KindId,
    ) -> Self {
        Self(Arc::new(Shared {
            zone,
            certificates,
            clock,
            reader,
            config,
            inputs: RwLock::default(),
            meshes: RwLock::default(),
            last: AtomicU64::default(),
            progress: watch::Sender::default(),
            wake: Notify::new(),
            beacons: Beacons::default(),
            moved: watch::Sender::new(0),
        }))
    }

    /// The view is complete, and who proxies are is known: from now on they are served.
    pub fn open(&self) {
        self.0.progress.send_modify(|progress| progress.open = true);
        self.0.wake.notify_one();
    }

    /// Changes whenever [`concerned`](Self::concerned) may say something else.
    #[must_use]
    pub fn moves(&self) -> watch::Receiver<u64> {
        self.0.moved.subscribe()
    }

    /// Proxies took or refused something.
    pub fn moved(&self) {
        self.0.moved.send_modify(|moved| *moved += 1);
    }

    /// Whether what was committed until `revision` is in the tables.
    #[must_use]
    pub fn has_applied(&self, revision: Revision) -> bool {
        self.0.progress.borrow().applied.is_some_and(|applied| applied >= revision)
    }

    /// How far beacons come.
    #[must_use]
    pub fn beacons(&self) -> &Beacons {
        &self.0.beacons
    }

    /// Whether proxies are served.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let progress = *self.0.progress.borrow();
        progress.open && progress.applied.is_some()
    }

    /// Waits until proxies are served.
    pub async fn opened(&self) {
        let mut progress = self.0.progress.subscribe();
        let opened = progress.wait_for(|it| it.open && it.applied.is_some()).await.map(drop);
        opened.expect("the sender is held here");
    }

    /// Waits until what was committed at `revision` is in the tables, as far as it concerns them.
    pub async fn wait_for(&self, revision: Revision) {
        let mut progress = self.0.progress.subscribe();
        // Cannot fail: we hold the sender.
        drop(progress.wait_for(|progress| progress.applied.is_some()).await);
        // Most of what is committed is of kinds that never reach the tables.
        let last = |kind: &KindId| self.0.reader.rows(*kind).0;
        let touched = self.0.inputs.read().iter().map(last).max().unwrap_or_default();
        let due = revision.min(touched);
        let there = |progress: &Progress| progress.applied.is_some_and(|it| it >= due);
        drop(progress.wait_for(there).await);
    }

    /// These kinds reach the tables.
    pub(super) fn feed_on(&self, kinds: Vec<KindId>) {
        *self.0.inputs.write() = kinds;
    }

    /// A proxy connected: what it gets, and how it hears of changes. It counts as connected until
    /// the source is dropped. An earlier stream of the same proxy ends.
    pub fn connect(
        &self,
        key: &ProxyKey,
        traits: Traits,
    ) -> Result<(Arc<dyn Source>, Changes), NotServed> {
        if !self.is_open() {
            return Err(NotServed::Incomplete);
        }
        let no_mesh = || NotServed::NoMesh(key.mesh.clone());
        let mesh = self.0.meshes.read().get(&key.mesh).cloned().ok_or_else(no_mesh)?;
        let record = written::read(&self.0.reader, self.0.config, &key.mesh, &key.name);
        let id = ProxyId(self.0.last.fetch_add(1, Ordering::Relaxed));
        let (marker, changes) = xds::changes();
        let labels = {
            let mut mesh = mesh.lock();
            if !mesh.exists {
                return Err(no_mesh());
            }
            let no_dataplane = || NotServed::NoDataplane(key.clone());
            let labels = mesh.labels_of(&key.name).ok_or_else(no_dataplane)?.clone();
            mesh.begin(self.moment());
            mesh.connect(id, &key.name, traits, marker, record.unwrap_or_default());
            labels
        };
        // Not under the lock: making a certificate takes as long as a hundred changes.
        let issued = self.0.certificates.of(&key.resource(), &labels, traits);
        {
            let mut mesh = mesh.lock();
            mesh.identify(id, issued);
            mesh.tell();
        }
        self.0.wake.notify_one();
        let certificates = self.0.certificates.clone();
        let (key, moved) = (key.clone(), self.0.moved.clone());
        Ok((Arc::new(Proxy { mesh, id, key, certificates, moved }), changes))
    }

    /// What is wrong in a mesh, by the name or KRI of what it is wrong with.
    #[must_use]
    pub fn problems(&self, mesh: &MeshName) -> BTreeMap<Name, String> {
        let mesh = self.0.meshes.read().get(mesh).cloned();
        mesh.map(|mesh| mesh.lock().problems()).unwrap_or_default()
    }

    /// How many resources were generated for the proxies of a mesh so far.
    #[must_use]
    pub fn made(&self, mesh: &MeshName) -> usize {
        let mesh = self.0.meshes.read().get(mesh).cloned();
        mesh.map_or(0, |mesh| mesh.lock().made())
    }

    pub(super) async fn woken(&self) {
        self.0.wake.notified().await;
    }

    /// Whether there is a Dataplane of that name.
    pub(super) fn knows(&self, proxy: &ProxyKey) -> bool {
        let mesh = self.0.meshes.read().get(&proxy.mesh).cloned();
        mesh.is_some_and(|mesh| mesh.lock().labels_of(&proxy.name).is_some())
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn moment(&self) -> Moment {
        Moment { now: self.0.clock.now(), revision: self.0.reader.revision().0 }
    }

    pub(super) fn all(&self) -> Vec<(MeshName, Arc<Mutex<Mesh>>)> {
        let meshes = self.0.meshes.read();
        meshes.iter().map(|(name, mesh)| (name.clone(), mesh.clone())).collect()
    }

    /// The tables of a mesh.
    pub(super) fn tables(&self, mesh: &MeshName) -> Option<Arc<Mutex<Mesh>>> {
        self.0.meshes.read().get(mesh).cloned()
    }

    /// The mesh of that name, made if it is not there.
    fn mesh(&self, name: &MeshName) -> Arc<Mutex<Mesh>> {
        if let Some(mesh) = self.0.meshes.read().get(name) {
            return mesh.clone();
        }
        let trust = self.0.certificates.trust(name);
        let make = || {
            let mut mesh = Mesh::new(name.clone(), self.0.zone.clone(), self.moment());
            mesh.set_trust(trust);
            Arc::new(Mutex::new(mesh))
        };
        self.0.meshes.write().entry(name.clone()).or_insert_with(make).clone()
    }

    /// Puts changes into the tables: those of a mesh are seen together.
    pub(super) fn apply(&self, changes: Vec<Change>) {
        let mut by_mesh: BTreeMap<MeshName, Vec<Change>> = BTreeMap::new();
        let mut beacon = None;
        for change in changes {
            let mesh = match change.input {
                Input::Mesh => MeshName::new(&change.key.name).ok(),
                Input::Policy(_) | Input::ZoneAddress | Input::Dataplane | Input::Service => {
                    change.key.mesh.clone()
                }
                Input::Beacon => {
                    beacon = change.now.as_ref().and_then(|row| kinds::read::<Beacon>(row).ok());
                    None
                }
            };
            if let Some(mesh) = mesh {
                by_mesh.entry(mesh).or_default().push(change);
            }
        }
        for (name, changes) in by_mesh {
            let mesh = self.mesh(&name);
            let mut mesh = mesh.lock();
            mesh.begin(self.moment());
            for Change { input, key, now } in changes {
                let row = now.as_deref();
                match input {
                    Input::Mesh => mesh.exists = row.is_some(),
                    Input::Policy(kind) => mesh.set_policy(kind, &key.name, row),
                    Input::ZoneAddress => mesh.set_zone_address(&key.name, row),
                    Input::Dataplane => mesh.set_dataplane(&key.name, row),
                    Input::Service => mesh.set_service(&key.name, row),
                    Input::Beacon => {}
                }
                mesh.attribute((input.kind(), key.name.clone()));
            }
            mesh.tell();
        }
        self.moved();
        if let Some(beacon) = beacon {
            self.pass(beacon.number);
        }
    }

    /// Sends a beacon to one proxy: of those connected that which is for the longest time. One
    /// suffices to see whether the line goes on, and to ask all would cost what exists.
    fn pass(&self, beacon: u64) {
        let eldest = |(name, mesh): (MeshName, Arc<Mutex<Mesh>>)| {
            let (id, proxy) = mesh.lock().eldest()?;
            Some((id, ProxyKey { mesh: name, name: proxy }, mesh))
        };
        let eldest = self.all().into_iter().filter_map(eldest).min_by_key(|(id, ..)| *id);
        let asked = eldest.as_ref().map(|(_, key, _)| key.resource());
        self.0.beacons.reconciled(beacon, asked);
        if let Some((id, _, mesh)) = eldest {
            mesh.lock().pass(id, beacon);
        }
    }

    /// Everything of a kind that is in the tables.
    pub(super) fn known(&self, input: Input) -> Vec<ResourceKey> {
        let mut known = Vec::new();
        for (name, mesh) in self.all() {
            let mesh = mesh.lock();
            match input {
                Input::Mesh if mesh.exists => known.push(ResourceKey::global(name.as_str())),
                Input::Mesh | Input::Beacon => {}
                other @ (Input::Policy(_)
                | Input::ZoneAddress
                | Input::Dataplane
                | Input::Service) => {
                    let names = mesh.known(other).into_iter();
                    known.extend(names.map(|it| ResourceKey::in_mesh(&name, &it)));
                }
            }
        }
        known
    }

    /// The tables contain everything that was committed until `revision`.
    pub(super) fn applied(&self, revision: Revision) {
        self.0.progress.send_modify(|progress| progress.applied = Some(revision));
        self.moved();
    }

    /// Other certificates count in `mesh` now.
    pub(super) fn retrust(&self, name: &MeshName) {
        let trust = self.0.certificates.trust(name);
        let mesh = self.mesh(name);
        let mut mesh = mesh.lock();
        mesh.set_trust(trust);
        mesh.tell();
    }

    /// The certificate of a proxy may be another one now.
    pub(super) fn reidentify(&self, proxy: &ResourceKey) {
        let mesh = proxy.mesh.as_ref().and_then(|mesh| self.0.meshes.read().get(mesh).cloned());
        if let Some(mesh) = mesh {
            mesh.lock().reidentify(&proxy.name);
        }
    }

    /// Asks for the certificates that may be others now.
    pub(super) fn identify(&self) {
        for (name, mesh) in self.all() {
            let unidentified = mesh.lock().unidentified();
            let asked = unidentified.into_iter().map(|asks| {
                let key = ResourceKey::in_mesh(&name, &asks.name);
                let of = |labels: &Labels| self.0.certificates.of(&key, labels, asks.traits);
                (asks.id, asks.labels.as_ref().and_then(of))
            });
            let asked: Vec<_> = asked.collect();
            let mut mesh = mesh.lock();
            for (id, issued) in asked {
                mesh.identify(id, issued);
            }
            mesh.tell();
        }
    }

    /// What is to be written down before it holds.
    pub(super) fn unwritten(&self) -> Vec<(ProxyKey, Record)> {
        let mut all = Vec::new();
        for (mesh, tables) in self.all() {
            for (name, record) in tables.lock().unwritten() {
                all.push((ProxyKey { mesh: mesh.clone(), name }, record));
            }
        }
        all
    }

    /// This is what stands in the store.
    pub(super) fn written(&self, key: &ProxyKey, record: Record) {
        if let Some(mesh) = self.0.meshes.read().get(&key.mesh).cloned() {
            let mut mesh = mesh.lock();
            mesh.begin(self.moment());
            mesh.written(&key.name, record);
            mesh.tell();
        }
        self.moved();
    }

    pub(super) fn reader(&self) -> &Reader {
        &self.0.reader
    }

    pub(super) fn config(&self) -> KindId {
        self.0.config
    }

    pub(super) fn zone(&self) -> &ZoneName {
        &self.0.zone
    }
}

/// What one proxy gets.
struct Proxy {
    mesh: Arc<Mutex<Mesh>>,
    id: ProxyId,
    key: ProxyKey,
    certificates: Arc<dyn Certificates>,
    moved: watch::Sender<u64>,
}

impl Source for Proxy {
    fn get(&self, kind: Type, name: &str) -> Option<Item> {
        self.mesh.lock().get(self.id, kind, name)
    }

    fn names(&self, kind: Type) -> Vec<Name> {
        self.mesh.lock().names(self.id, kind)
    }

    fn endpoints_of(&self, cluster: &Name) -> Name {
        self.mesh.lock().endpoints_name(cluster)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.mesh.lock().disconnect(self.id) {
            self.certificates.forget(&self.key.resource());
        }
        self.moved.send_modify(|moved| *moved += 1);
    }
}
