//! Watches the store, does what follows, tells the issuer.

use super::{
    Issuer,
    plan::{Here, LAST_GOOD, Memory, Step, View, plan},
};
use anyhow::Context as _;
use daemon::Clock;
use jiff::Timestamp;
use kds::zone::State;
use kinds::{
    ConditionStatus,
    labels::Env,
    mesh,
    mesh_identity::{self, MeshIdentity},
    mesh_trust, secret,
};
use resource::{Kind, MeshName, Resource, ResourceKey, ZoneName};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    sync::Arc,
};
use store::{
    Backend, Committed, Expected, Item, Kinds, Outcome,
    view::{Changes, Edit, KindId, KindSet, Reader, Revision, Rows},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// No file is read further.
const LARGEST: u64 = 1 << 20;

/// So often a mesh is looked at again in one go. Each time it is nearer to what it should be.
const ROUNDS: usize = 8;

/// Keeps authorities, MeshTrusts and statuses as the MeshIdentities of a zone want them.
#[derive(Debug)]
pub struct Identities<B> {
    backend: B,
    reader: Reader,
    here: Here,
    issuer: Issuer,
    clock: Clock,
    ids: Ids,
    memory: BTreeMap<MeshName, Memory>,
    /// When a mesh is to be looked at though nothing changed: an authority expires, or may issue.
    due: BTreeMap<MeshName, Timestamp>,
    /// What is known of the connection with global, if there is one.
    global: Option<watch::Receiver<State>>,
    /// Meshes that wait until global has the MeshTrusts of this zone until a revision.
    waiting: BTreeMap<MeshName, Revision>,
}

#[derive(Clone, Copy, Debug)]
struct Ids {
    mesh: KindId,
    identity: KindId,
    trust: KindId,
    secret: KindId,
}

impl Ids {
    fn of(kinds: &Kinds) -> Option<Self> {
        let id = |kind: Kind| kinds.id_of(kind.name);
        Some(Self {
            mesh: id(mesh::KIND)?,
            identity: id(mesh_identity::KIND)?,
            trust: id(mesh_trust::KIND)?,
            secret: id(secret::KIND)?,
        })
    }

    const fn all(self) -> [KindId; 4] {
        [self.mesh, self.identity, self.trust, self.secret]
    }

    fn item(self, kind: KindId, before: Option<&Resource>, edit: Edit) -> Item {
        let expected = match before {
            Some(before) => Expected::Version(before.head.version),
            None => Expected::Nothing,
        };
        Item { kind, expected, edit }
    }
}

impl<B: Backend> Identities<B> {
    /// Those of `zone`, which is kept in `backend`. `None` if the store lacks a kind.
    #[must_use]
    pub fn new(
        backend: B,
        kinds: &Kinds,
        zone: ZoneName,
        env: Env,
        issuer: Issuer,
        clock: Clock,
    ) -> Option<Self> {
        Some(Self {
            reader: backend.reader(),
            backend,
            here: Here { zone, env },
            issuer,
            clock,
            ids: Ids::of(kinds)?,
            memory: BTreeMap::new(),
            due: BTreeMap::new(),
            global: None,
            waiting: BTreeMap::new(),
        })
    }

    /// The same under a global: an authority takes the place of another when global has it.
    #[must_use]
    pub fn under(mut self, global: Option<watch::Receiver<State>>) -> Self {
        self.global = global;
        self
    }

    /// Until which revision global has the MeshTrusts of this zone.
    fn relayed(&self) -> Option<Revision> {
        self.global.as_ref().map(|global| relayed(&global.borrow()))
    }

    /// Works until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let kinds = self.ids.all().into_iter().fold(KindSet::default(), KindSet::with);
        let mut watch = self.reader.watch(kinds);
        let mut seen = BTreeMap::new();
        let issuer = self.issuer.clone();
        loop {
            let meshes = self.touched(&mut seen);
            for mesh in meshes {
                self.settle(&mesh).await?;
            }
            issuer.completed();
            let due = self.due.values().min().copied();
            let first = self.waiting.values().min().copied();
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Ok(()),
                    dirty = watch.dirty() => {
                        dirty.context("the store closed")?;
                        break;
                    }
                    () = reached_time(&self.clock, due) => break,
                    () = reached(&mut self.global, first) => break,
                    () = issuer.rotate() => {}
                }
            }
        }
    }

    /// The meshes of which something changed since the last call.
    fn touched(&self, seen: &mut BTreeMap<KindId, Revision>) -> BTreeSet<MeshName> {
        let mut touched = BTreeSet::new();
        for kind in self.ids.all() {
            let mesh_of = |key: &ResourceKey| match &key.mesh {
                Some(mesh) => Some(mesh.clone()),
                None => MeshName::new(&key.name).ok(),
            };
            let changes = seen.get(&kind).map(|since| self.reader.changes(kind, *since));
            let revision = match changes {
                Some(Changes::Keys { revision, changes }) => {
                    touched.extend(changes.iter().filter_map(|change| mesh_of(&change.key)));
                    revision
                }
                Some(Changes::Lost) | None => {
                    let (revision, rows) = self.reader.rows(kind);
                    touched.extend(rows.iter().filter_map(|row| mesh_of(&row.head.key)));
                    touched.extend(self.memory.keys().cloned());
                    revision
                }
            };
            seen.insert(kind, revision);
        }
        // That is as if it had changed.
        let now = self.clock.now();
        let due = self.due.iter().filter(|(_, when)| **when <= now);
        touched.extend(due.map(|(mesh, _)| mesh.clone()));
        let relayed = self.relayed().unwrap_or_default();
        let due = self.waiting.iter().filter(|(_, until)| **until <= relayed);
        touched.extend(due.map(|(mesh, _)| mesh.clone()));
        touched
    }

    /// Brings a mesh to what it should be, and tells the issuer.
    async fn settle(&mut self, mesh: &MeshName) -> anyhow::Result<()> {
        for _ in 0..ROUNDS {
            let relayed = self.relayed();
            let memory = self.memory.entry(mesh.clone()).or_default();
            let snapshot = self.reader.snapshot();
            let of_mesh = |kind| of_mesh(snapshot.rows(kind), mesh);
            let now = self.clock.now();
            let view = View {
                mesh,
                exists: snapshot
                    .rows(self.ids.mesh)
                    .get(&ResourceKey::global(mesh.as_str()))
                    .is_some(),
                identities: of_mesh(self.ids.identity),
                trusts: of_mesh(self.ids.trust),
                secrets: of_mesh(self.ids.secret),
                files: read,
                relayed,
                now,
            };
            let plan = plan(&self.here, &view, memory);
            if plan.members.is_empty() && view.trusts.is_empty() {
                self.memory.remove(mesh);
            }
            let ends = plan.members.iter().filter_map(|member| member.authority.as_ref());
            let ends = ends.map(|authority| authority.not_after()).filter(|end| now < *end);
            match ends.chain(plan.again).min() {
                Some(time) => self.due.insert(mesh.clone(), time),
                None => self.due.remove(mesh),
            };
            match plan.waits {
                Some(until) => self.waiting.insert(mesh.clone(), until),
                None => self.waiting.remove(mesh),
            };
            self.issuer.publish(mesh, plan.members, plan.trust);
            if plan.steps.is_empty() {
                return Ok(());
            }
            self.commit(mesh, plan.steps).await?;
        }
        // Somebody else changes the same things all the time; each change wakes us again.
        tracing::warn!(%mesh, "identities do not settle");
        Ok(())
    }

    async fn commit(&mut self, mesh: &MeshName, steps: Vec<Step>) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        for step in &steps {
            match step {
                Step::Make(pair) => {
                    batch.extend(pair.iter().map(|secret| {
                        self.ids.item(self.ids.secret, None, Edit::Put(secret.clone()))
                    }))
                }
                Step::Put { kind, before, now } => {
                    let edit = Edit::Put(now.clone());
                    batch.push(self.ids.item(self.id(*kind), before.as_deref(), edit));
                }
                Step::Delete { kind, before } => {
                    let edit = Edit::Delete(before.head.key.clone());
                    batch.push(self.ids.item(self.id(*kind), Some(before), edit));
                }
            }
        }
        let committed = self.backend.commit(batch).await.context("identities")?;
        let undo = self.halves(&steps, &committed);
        let mut revision = committed.revision;
        if !undo.is_empty() {
            revision = self.backend.commit(undo).await.context("identities")?.revision;
        }
        self.backend.wait_for(revision).await.context("identities")?;
        for step in &steps {
            log(mesh, step);
            if let Step::Put { kind, now, .. } = step
                && kind.name == mesh_trust::KIND.name
            {
                let memory = self.memory.entry(mesh.clone()).or_default();
                memory.written.insert(now.head.key.name.clone(), committed.revision);
            }
        }
        Ok(())
    }

    /// Takes back one half of an authority if somebody else wrote the other at that moment.
    fn halves(&self, steps: &[Step], committed: &Committed) -> Vec<Item> {
        let mut undo = Vec::new();
        let mut outcomes = committed.outcomes.iter();
        for step in steps {
            let Step::Make(pair) = step else {
                outcomes.next();
                continue;
            };
            let done = pair.each_ref().map(|_| outcomes.next() == Some(&Outcome::Done));
            if done == [true, true] {
                continue;
            }
            for (secret, done) in pair.iter().zip(done) {
                if done {
                    let edit = Edit::Delete(secret.head.key.clone());
                    undo.push(self.ids.item(self.ids.secret, Some(secret), edit));
                }
            }
        }
        undo
    }

    fn id(&self, kind: Kind) -> KindId {
        match kind.name {
            name if name == mesh_identity::KIND.name => self.ids.identity,
            name if name == mesh_trust::KIND.name => self.ids.trust,
            _ => self.ids.secret,
        }
    }
}

async fn reached_time(clock: &Clock, at: Option<Timestamp>) {
    match at {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Until which revision global has the MeshTrusts of this zone.
fn relayed(global: &State) -> Revision {
    global.known_to_global.get(mesh_trust::KIND.name).copied().unwrap_or_default()
}

/// Waits until global has the MeshTrusts until a revision.
async fn reached(global: &mut Option<watch::Receiver<State>>, until: Option<Revision>) {
    if let (Some(global), Some(until)) = (global, until) {
        // Who tells is gone only when the process ends.
        if global.wait_for(|state| until <= relayed(state)).await.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

/// A file of this machine.
fn read(path: &str) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(LARGEST).read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

fn of_mesh(rows: &Rows, mesh: &MeshName) -> Vec<Arc<Resource>> {
    let before = ResourceKey::in_mesh(mesh, "");
    let after = rows.after(Some(&before));
    after.take_while(|row| row.head.key.mesh.as_ref() == Some(mesh)).cloned().collect()
}

fn log(mesh: &MeshName, step: &Step) {
    match step {
        Step::Make([certificate, _]) => {
            tracing::info!(%mesh, secret = %certificate.head.key.name, "authority made");
        }
        Step::Put { kind, now, .. } if kind.name == mesh_identity::KIND.name => {
            log_status(mesh, now);
        }
        Step::Put { now, .. } => {
            tracing::info!(%mesh, name = %now.head.key.name, "MeshTrust written");
        }
        Step::Delete { kind, before } => {
            tracing::info!(%mesh, kind = kind.name, name = %before.head.key.name, "deleted");
        }
    }
}

fn log_status(mesh: &MeshName, identity: &Resource) {
    let Ok(status) = kinds::status::<MeshIdentity>(identity) else { return };
    let identity = &identity.head.key.name;
    for condition in status.conditions {
        match condition.status {
            ConditionStatus::True if condition.reason == LAST_GOOD => {
                tracing::warn!(%mesh, %identity, message = %condition.message, "identity is wrong");
            }
            ConditionStatus::True if condition.aspect == mesh_identity::condition::READY => {
                tracing::info!(%mesh, %identity, reason = %condition.reason, "identity is ready");
            }
            ConditionStatus::False if condition.aspect == mesh_identity::condition::READY => {
                let (reason, message) = (&condition.reason, &condition.message);
                tracing::warn!(%mesh, %identity, %reason, %message, "identity is not ready");
            }
            ConditionStatus::True | ConditionStatus::False | ConditionStatus::Unknown => {}
        }
    }
}
