//! From what shall be to the steps that make it so.

use super::{
    cluster::Id,
    complaint::{Complaint, Verdict},
    dataplane, mesh_service,
    names::{MANAGER, SERVICE_NAME},
    tables::{Owner, Tables},
    zone_address,
};
use anyhow::Context as _;
use bytes::Bytes;
use kinds::{labels::Place, mesh_service::MeshService};
use resource::{Kind, Labels, Peer, RejectedSpec, Resource, ResourceKey, Spec, label};
use std::{collections::BTreeSet, sync::Arc};
use store::{
    Expected, Item, Kinds,
    view::{Edit, KindId, KindSet, Reader},
};

/// Names a row of the store.
pub(super) type Row = (KindId, ResourceKey);

/// The kinds that are read and written here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids {
    pub(super) mesh: KindId,
    pub(super) dataplane: KindId,
    pub(super) insight: KindId,
    pub(super) service: KindId,
    pub(super) address: KindId,
}

impl Ids {
    pub(super) fn of(kinds: &Kinds) -> anyhow::Result<Self> {
        let id = |kind: Kind| {
            kinds.id_of(kind.name).with_context(|| format!("the store has no kind {}", kind.name))
        };
        Ok(Self {
            mesh: id(kinds::mesh::KIND)?,
            dataplane: id(kinds::dataplane::KIND)?,
            insight: id(kinds::dataplane_insight::KIND)?,
            service: id(kinds::mesh_service::KIND)?,
            address: id(kinds::mesh_zone_address::KIND)?,
        })
    }

    /// Those that are followed.
    pub(super) fn set(self) -> KindSet {
        [self.mesh, self.dataplane, self.service, self.address].into_iter().collect()
    }
}

/// The object of which a row with these labels was made, if that was done here.
pub(super) fn owner(kind: KindId, labels: &Labels, ids: Ids, place: &Place) -> Option<Owner> {
    if labels.get(label::MANAGED_BY) != Some(MANAGER) || !place.is_origin_of(labels) {
        return None;
    }
    let namespace = labels.get(label::NAMESPACE)?.to_owned();
    let id = |key| Some(Id { namespace, name: labels.get(key)?.to_owned() });
    if kind == ids.dataplane {
        id(label::DISPLAY_NAME).map(Owner::Pod)
    } else {
        id(SERVICE_NAME).map(Owner::Service)
    }
}

/// A row that shall be.
struct Wanted {
    id: KindId,
    kind: Kind,
    key: ResourceKey,
    labels: Labels,
    spec: Result<Bytes, RejectedSpec>,
    status: Bytes,
}

/// What must be done about one object.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) items: Vec<Item>,
    pub(super) complaint: Option<Complaint>,
}

/// What is decided with.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    pub(super) ids: Ids,
    pub(super) reader: Reader,
}

impl Shelf {
    /// Says what must be done so that all that is made of `owner`, of which there is `owned`, is as
    /// it shall be.
    pub(super) fn plan(&self, owner: &Owner, owned: &BTreeSet<Row>, tables: &Tables) -> Plan {
        let id = owner.id();
        let verdict = match owner {
            Owner::Pod(_) => self.wanted(tables.dataplane(id), |it| self.dataplane(it)),
            Owner::Service(_) => {
                // One that is about a zone's proxy is no service of the mesh, so one of the two
                // has nothing to say.
                let services = self.wanted(tables.mesh_services(id), |it| self.service(it));
                let addresses = self.wanted(tables.zone_addresses(id), |it| self.address(it));
                both(services, addresses)
            }
        };
        let mut plan = Plan { items: Vec::new(), complaint: verdict.complaint };
        let Some(wanted) = verdict.shall else { return plan };
        let stays = |row: &Row| wanted.iter().any(|it| (it.id, &it.key) == (row.0, &row.1));
        for row in owned.iter().filter(|row| !stays(row)) {
            plan.items.extend(self.delete(row));
            if row.0 == self.ids.dataplane {
                // What its proxy said goes with it, whatever that was.
                let insight = self.delete(&(self.ids.insight, row.1.clone()));
                let whatever = |item| Item { expected: Expected::Anything, ..item };
                plan.items.extend(insight.map(whatever));
            }
        }
        for wanted in wanted {
            // The object of a row is there but once: first it leaves its old mesh.
            let moves = plan.items.iter().any(|item| same_object(item, &wanted));
            if moves {
                continue;
            }
            match self.put(wanted, id, tables) {
                Ok(item) => plan.items.extend(item),
                Err(complaint) => plan.complaint = Some(complaint),
            }
        }
        plan
    }

    fn wanted<T>(&self, verdict: Verdict<T>, row: impl Fn(T) -> Wanted) -> Verdict<Wanted> {
        let Verdict { shall, complaint } = verdict;
        let rows = |all: Vec<T>| all.into_iter().map(row).collect();
        Verdict { shall: shall.map(rows), complaint }
    }

    fn dataplane(&self, made: dataplane::Made) -> Wanted {
        let dataplane::Made { key, labels, spec } = made;
        let kind = kinds::dataplane::KIND;
        let spec = encoded(kind, spec);
        Wanted { id: self.ids.dataplane, kind, key, labels, spec, status: Bytes::new() }
    }

    fn address(&self, made: zone_address::Made) -> Wanted {
        let zone_address::Made { key, labels, spec } = made;
        let kind = kinds::mesh_zone_address::KIND;
        let spec = encoded(kind, spec);
        Wanted { id: self.ids.address, kind, key, labels, spec, status: Bytes::new() }
    }

    fn service(&self, made: mesh_service::Made) -> Wanted {
        let (id, kind) = (self.ids.service, kinds::mesh_service::KIND);
        let before = self.reader.get(id, &made.key);
        // One that cannot be read, as somebody else may have left it, is written anew.
        let before = before.and_then(|row| {
            let status = kinds::status::<MeshService>(&row).unwrap_or_default();
            Some((kinds::read::<MeshService>(&row).ok()?, status))
        });
        let (spec, status) = made.on(before.as_ref().map(|(spec, status)| (&**spec, status)));
        let status = serde_json::to_vec(&status).expect("a status is plain JSON");
        let spec = encoded(kind, spec);
        Wanted { id, kind, key: made.key, labels: made.labels, spec, status: status.into() }
    }

    /// The step that makes a row as it shall be, if it is not.
    fn put(&self, wanted: Wanted, of: &Id, tables: &Tables) -> Result<Option<Item>, Complaint> {
        let Wanted { id, kind, key, labels, spec, status } = wanted;
        let place = &tables.settings().place;
        let before = self.reader.get(id, &key);
        let is_ours = |row: &Resource| owner(id, &row.head.labels, self.ids, place).is_some();
        if before.as_ref().is_some_and(|row| !is_ours(row)) {
            let note =
                format!("{} {key} was written by somebody else, and stays as it is", kind.name);
            return Err(Complaint::warning("NameTaken", note));
        }
        if before.is_none() {
            if tables.is_leaving(&of.namespace) {
                return Ok(None);
            }
            let mesh = key.mesh.as_ref().map_or("", |mesh| mesh.as_str());
            if self.reader.get(self.ids.mesh, &ResourceKey::global(mesh)).is_none() {
                let note = format!("mesh {mesh:?} does not exist; once it does, this goes on");
                return Err(Complaint::warning("NoMesh", note));
            }
        }
        check_name(&key, kind, place)?;
        let made = spec.and_then(|spec| kind.resource(key, labels, spec, status, Peer::Global));
        let row = made.map_err(|error| Complaint::warning("Invalid", error))?;
        if before.as_ref().is_some_and(|before| says_the_same(kind, before, &row)) {
            return Ok(None);
        }
        let version = |row: &Resource| Expected::Version(row.head.version);
        let expected = before.as_deref().map_or(Expected::Nothing, version);
        Ok(Some(Item { kind: id, expected, edit: Edit::Put(Arc::new(row)) }))
    }

    fn delete(&self, (kind, key): &Row) -> Option<Item> {
        let row = self.reader.get(*kind, key)?;
        let expected = Expected::Version(row.head.version);
        Some(Item { kind: *kind, expected, edit: Edit::Delete(key.clone()) })
    }
}

/// Whether two rows say the same, however that is written: an API server writes it in its own way.
fn says_the_same(kind: Kind, before: &Resource, now: &Resource) -> bool {
    let spec = |row: &Resource| kind.decode(&row.spec).and_then(|spec| kind.encode(&spec)).ok();
    let status = |row: &Resource| kinds::status::<MeshService>(row).ok();
    before.head.version == now.head.version
        || (before.head.labels == now.head.labels
            && spec(before).is_some_and(|before| Some(before) == spec(now))
            && (!kind.has_status || status(before) == status(now)))
}

fn both(first: Verdict<Wanted>, second: Verdict<Wanted>) -> Verdict<Wanted> {
    let complaint = first.complaint.or(second.complaint);
    let shall = first.shall.zip(second.shall);
    let joined =
        |(first, second): (Vec<Wanted>, Vec<Wanted>)| first.into_iter().chain(second).collect();
    Verdict { shall: shall.map(joined), complaint }
}

fn encoded<S: Spec>(kind: Kind, spec: S) -> Result<Bytes, RejectedSpec> {
    kind.encode(&(Arc::new(spec) as resource::AnySpec))
}

fn same_object(item: &Item, wanted: &Wanted) -> bool {
    let key = match &item.edit {
        Edit::Put(row) => &row.head.key,
        Edit::Delete(key) => key,
    };
    item.kind == wanted.id && key.name == wanted.key.name
}

/// Global adds the zone to a name in older protocols; it must still fit.
fn check_name(key: &ResourceKey, kind: Kind, place: &Place) -> Result<(), Complaint> {
    let zone = match place {
        Place::Zone { name, .. } => name.as_str(),
        Place::Global => "",
    };
    let longest = 251_usize.saturating_sub(zone.len());
    if key.name.len() > longest {
        let (kind, length) = (kind.name, key.name.len());
        let note = format!(
            "the name of its {kind}, the name and the namespace, has {length} bytes; it must have \
             at most {longest}"
        );
        return Err(Complaint::warning("NameTooLong", note));
    }
    Ok(())
}
