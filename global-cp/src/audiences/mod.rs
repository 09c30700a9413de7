//! Who sees what zones wrote, as far as that depends on other resources.
//!
//! The store holds with each row who may see it, and `kds` only compares. Three things decide besides
//! what the row says itself: whether its zone is enabled, whether a zone's MeshTrust may be believed
//! by the others, and the labels of the Zones that a row of global is limited to. When one of these
//! changes, the rows concerned are written again for another audience; nothing else of them changes.
//! What has not been judged is hidden.

mod judge;
#[cfg(test)]
mod tests;

pub use self::judge::AllowedTrust;

use self::judge::{Claim, Identity, Mesh, Verdict};
use crate::zones;
use anyhow::Result;
use api::{author::Author, limited};
use kinds::{
    Condition,
    labels::Place,
    mesh_identity, mesh_trust,
    mesh_trust::MeshTrust,
    zone::{self, Zone},
};
use resource::{Audience, Flow, Kind, Labels, MeshName, Resource, ResourceKey, ZoneName, label};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::{
    Backend, Expected, Item,
    view::{Closed, Edit, Feed, KindId, KindSet, Reader, Update},
};

/// The aspect of a MeshTrust's status that says why it is not relayed.
const RELAYED: &str = "Relayed";

/// Decides about audiences.
#[derive(Debug)]
pub(crate) struct Audiences {
    author: Author,
    reader: Reader,
    feed: Feed,
    allowed: Vec<AllowedTrust>,
    ids: Ids,
    disabled: BTreeSet<ZoneName>,
    meshes: BTreeMap<MeshName, Mesh>,
    /// What the Zones are labelled with.
    labels: BTreeMap<ZoneName, Labels>,
    /// The rows that are limited to some zones, with their labels.
    limited: BTreeMap<(KindId, ResourceKey), Labels>,
    /// How many rows were looked at so far.
    #[cfg(test)]
    looks: std::cell::Cell<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Ids {
    zones: KindId,
    identities: KindId,
    trusts: KindId,
}

/// Rows to look at again.
type Due = BTreeSet<(KindId, ResourceKey)>;

impl Audiences {
    pub(crate) fn new(author: Author, reader: Reader, allowed: Vec<AllowedTrust>) -> Self {
        let ids = Ids {
            zones: author.id(zone::KIND),
            identities: author.id(mesh_identity::KIND),
            trusts: author.id(mesh_trust::KIND),
        };
        // What a zone writes reaches the others only in these kinds, or it is limited in them.
        let reaching =
            author.kinds.iter().filter(|(_, kind)| reaches_zones(kind) || kind.can_be_limited());
        let kinds = reaching.map(|(id, _)| id).chain([ids.zones, ids.identities, ids.trusts]);
        let feed = Feed::of(&reader, KindSet::from_iter(kinds));
        let (disabled, meshes) = Default::default();
        let (labels, limited) = Default::default();
        Self {
            author,
            reader,
            feed,
            allowed,
            ids,
            disabled,
            meshes,
            labels,
            limited,
            #[cfg(test)]
            looks: Default::default(),
        }
    }

    /// Judges what changed; at the first call everything, which must be done before zones are
    /// served.
    pub(crate) async fn step(&mut self, backend: &impl Backend) -> Result<()> {
        let updates = self.feed.next().await?;
        let due = self.take(&updates);
        let batch: Vec<Item> = due.iter().filter_map(|(id, key)| self.correct(*id, key)).collect();
        if !batch.is_empty() {
            // Who came first changed the row, so it comes again.
            backend.commit(batch).await?;
        }
        Ok(())
    }

    /// Judges until the store closes.
    pub(crate) async fn run(mut self, backend: impl Backend) -> Result<()> {
        loop {
            match self.step(&backend).await {
                Err(error) if error.is::<Closed>() => return Ok(()),
                stepped => stepped?,
            }
        }
    }

    /// Takes note of what changed, and tells what has to be looked at again.
    fn take(&mut self, updates: &[Update]) -> Due {
        let (ids, mut due) = (self.ids, Due::new());
        // Zones first: what else changed is then judged by what holds now.
        for update in updates.iter().filter(|update| update.kind == ids.zones) {
            self.take_zone(update, &mut due);
        }
        for update in updates.iter().filter(|update| update.kind == ids.identities) {
            self.take_identity(update, &mut due);
        }
        for update in updates {
            self.take_limit(update, &mut due);
            if update.kind == ids.trusts {
                self.take_trust(update, &mut due);
            } else if ![ids.zones, ids.identities].contains(&update.kind) {
                due.insert((update.kind, update.key.clone()));
            }
        }
        due
    }

    fn take_zone(&mut self, update: &Update, due: &mut Due) {
        let Ok(name) = ZoneName::new(&update.key.name) else { return };
        let zone = update.now.as_ref().and_then(|row| kinds::read::<Zone>(row).ok());
        let disabled = zone.is_some_and(|zone| !zone.is_enabled());
        let changed =
            if disabled { self.disabled.insert(name.clone()) } else { self.disabled.remove(&name) };
        if changed {
            let rows = zones::written_by(&self.author.kinds, &self.reader, name.as_str());
            due.extend(rows.map(|(id, row)| (id, row.head.key.clone())));
        }
        self.take_labels(&name, update.now.as_ref().map(|row| &row.head.labels), due);
    }

    /// Of a Zone that is labelled otherwise, only what is limited is looked at, and of that only
    /// what it sees now and did not, or the other way round.
    fn take_labels(&mut self, zone: &ZoneName, now: Option<&Labels>, due: &mut Due) {
        let before = match now {
            Some(now) => self.labels.insert(zone.clone(), now.clone()),
            None => self.labels.remove(zone),
        };
        if before.as_ref() == now {
            return;
        }
        let sees = |zone: Option<&Labels>, row: &Labels| {
            zone.is_some_and(|zone| limited::is_among(zone, row))
        };
        let others = self.limited.iter();
        let others = others.filter(|(_, row)| sees(before.as_ref(), row) != sees(now, row));
        due.extend(others.map(|(row, _)| row.clone()));
    }

    fn take_limit(&mut self, update: &Update, due: &mut Due) {
        let row = (update.kind, update.key.clone());
        match &update.now {
            Some(now) if now.head.audience.only.is_some() => {
                due.insert(row.clone());
                self.limited.insert(row, now.head.labels.clone());
            }
            _ => drop(self.limited.remove(&row)),
        }
    }

    fn take_identity(&mut self, update: &Update, due: &mut Due) {
        let Some(mesh) = &update.key.mesh else { return };
        let known = self.meshes.entry(mesh.clone()).or_default();
        // What a zone wrote itself gives it nothing.
        let ours = update.now.as_ref().filter(|row| Place::Global.is_origin_of(&row.head.labels));
        let identity = ours.and_then(|row| {
            let labels = row.head.labels.clone();
            Some(Identity { spec: kinds::read(row).ok()?, labels, mesh: mesh.clone() })
        });
        if known.identify(&update.key.name, identity) {
            let names = known.names();
            due.extend(names.map(|name| (self.ids.trusts, ResourceKey::in_mesh(mesh, name))));
        }
        self.forget_empty(mesh);
    }

    fn take_trust(&mut self, update: &Update, due: &mut Due) {
        let Some(mesh) = &update.key.mesh else { return };
        let known = self.meshes.entry(mesh.clone()).or_default();
        let name = &update.key.name;
        let claim = update.now.as_ref().and_then(|row| claim(row));
        let before = known.claim(name, claim.clone());
        if before != claim {
            for domain in before.iter().chain(&claim).map(|claim| &claim.domain) {
                let rivals = known.rivals(domain);
                due.extend(
                    rivals.map(|rival| (self.ids.trusts, ResourceKey::in_mesh(mesh, rival))),
                );
            }
        }
        due.insert((self.ids.trusts, update.key.clone()));
        self.forget_empty(mesh);
    }

    fn forget_empty(&mut self, mesh: &MeshName) {
        if self.meshes.get(mesh).is_some_and(Mesh::is_empty) {
            self.meshes.remove(mesh);
        }
    }

    /// The step that corrects the audience of a row, if it is wrong.
    fn correct(&self, id: KindId, key: &ResourceKey) -> Option<Item> {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
        let row = self.reader.get(id, key)?;
        let right = match owner(&row) {
            Some(zone) => self.of_zone(id, &row, zone)?,
            None => self.of_global(&row)?,
        };
        let same = |a: &Resource, b: &Resource| {
            (a.head.version, &a.head.audience) == (b.head.version, &b.head.audience)
        };
        if same(&right, &row) {
            return None;
        }
        let expected = Expected::Version(row.head.version);
        Some(Item { kind: id, expected, edit: Edit::Put(Arc::new(right)) })
    }

    fn of_global(&self, row: &Resource) -> Option<Resource> {
        let audience = row.head.audience.clone();
        audience.only.as_ref()?;
        let only = limited::zones(&row.head.labels, &self.author.kinds, &self.reader);
        Some(row.shown_to(Audience { only, ..audience }))
    }

    fn of_zone(&self, id: KindId, row: &Resource, zone: ZoneName) -> Option<Resource> {
        let disabled = self.disabled.contains(&zone);
        Some(if id == self.ids.trusts {
            self.trust_as_judged(row, zone, disabled)?
        } else {
            match (disabled, row.head.audience.hidden) {
                (true, _) => {
                    let audience = row.head.audience.clone();
                    row.shown_to(Audience { hidden: true, ..audience })
                }
                (false, true) => row.shown_to(self.as_written(id, row)?),
                (false, false) => return None,
            }
        })
    }

    /// Who may see a row by what it says itself.
    fn as_written(&self, id: KindId, row: &Resource) -> Option<Audience> {
        let (_, kind) = self.author.kinds.iter().find(|(known, _)| *known == id)?;
        let head = &row.head;
        let (key, labels) = (head.key.clone(), head.labels.clone());
        let (spec, status) = (row.spec.clone(), row.status.clone());
        let row = kind.resource(key, labels, spec, status, self.author.kinds.peer).ok()?;
        Some(row.head.audience.clone())
    }

    fn trust_as_judged(&self, row: &Resource, zone: ZoneName, disabled: bool) -> Option<Resource> {
        let mesh = row.head.key.mesh.as_ref()?;
        let known = self.meshes.get(mesh)?;
        let verdict = known.judge(&row.head.key.name, &self.allowed, mesh);
        let mut status = kinds::status::<MeshTrust>(row).ok()?;
        let before = status.conditions.clone();
        status.conditions.retain(|condition| condition.aspect != RELAYED);
        status.conditions.extend(reason(&verdict, &zone));
        let stays = row.head.labels.get(label::SYNC) == Some(label::DISABLED);
        let hidden = disabled || stays || verdict != Verdict::Relayed;
        let audience = Audience { owner: Some(zone), hidden, ..Audience::default() };
        let row = if status.conditions == before {
            row.clone()
        } else {
            row.with_status(serde_json::to_vec(&status).ok()?.into())
        };
        Some(row.shown_to(audience))
    }
}

/// Why a MeshTrust is not relayed.
fn reason(verdict: &Verdict, zone: &ZoneName) -> Option<Condition> {
    match verdict {
        Verdict::Relayed => None,
        Verdict::Foreign => {
            let message = format!(
                "no MeshIdentity of global gives this trust domain to zone {zone}, and \
                 allowedTrust does not name it"
            );
            Some(Condition::fails(RELAYED, "ForeignTrustDomain", message))
        }
        Verdict::Taken(other) => {
            let message = format!("zone {other} has this trust domain already");
            Some(Condition::fails(RELAYED, "TrustDomainTaken", message))
        }
    }
}

/// The zone that wrote a row.
fn owner(row: &Resource) -> Option<ZoneName> {
    let labels = &row.head.labels;
    let of_zone = labels.get(label::ORIGIN) == Some(label::ORIGIN_ZONE);
    labels.get(label::ZONE).filter(|_| of_zone).and_then(|zone| ZoneName::new(zone).ok())
}

fn claim(row: &Resource) -> Option<Claim> {
    let trust = kinds::read::<MeshTrust>(row).ok()?;
    let domain = trust.trust_domain.clone();
    Some(Claim { zone: owner(row)?, domain, since: row.head.times.created })
}

/// Whether what a zone writes of a kind can reach other zones by itself.
const fn reaches_zones(kind: &Kind) -> bool {
    matches!(kind.flow, Flow::ZoneToZones | Flow::Everywhere)
}
