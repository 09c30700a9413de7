//! What expires of what is stored, read again when that changed.

use super::{Entry, Renewal, Sort};
use crate::keys::text;
use identity::{certificates, not_after};
use kinds::{
    DataSource, DataSourceType,
    labels::Place,
    mesh_identity::{self, MeshIdentity},
    mesh_trust::{self, MeshTrust},
    secret,
};
use parking_lot::Mutex;
use resource::{Kind, MeshName, Resource, ResourceKey, label};
use std::sync::Arc;
use store::{
    Kinds,
    view::{KindId, Reader, Revision},
};

/// The revisions of the kinds that were read.
type At = [Option<Revision>; 3];

/// See the module.
pub(super) struct Stored {
    reader: Reader,
    trusts: Option<KindId>,
    /// In a zone, those who issue know their authorities, also such that are in files.
    identities: Option<KindId>,
    secrets: Option<(KindId, Kind)>,
    last: Mutex<Option<(At, Arc<[Entry]>)>>,
}

impl Stored {
    pub(super) fn new(kinds: &Kinds, place: &Place, reader: Reader) -> Self {
        let global = *place == Place::Global;
        let id = |kind: Kind| kinds.id_of(kind.name);
        Self {
            reader,
            trusts: id(mesh_trust::KIND),
            identities: id(mesh_identity::KIND).filter(|_| global),
            secrets: id(secret::KIND).filter(|_| global).map(|id| (id, secret::KIND)),
            last: Mutex::new(None),
        }
    }

    pub(super) fn entries(&self) -> Arc<[Entry]> {
        let revision = |id: Option<KindId>| id.map(|id| self.reader.rows(id).0);
        let secrets = self.secrets.map(|(id, _)| id);
        let at = [self.trusts, self.identities, secrets].map(revision);
        let mut last = self.last.lock();
        if let Some((before, entries)) = &*last
            && *before == at
        {
            return entries.clone();
        }
        let entries: Arc<[Entry]> = self.read().into();
        *last = Some((at, entries.clone()));
        entries
    }

    fn read(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for row in self.trusts.iter().flat_map(|id| rows(&self.reader, *id)) {
            if let Ok(trust) = kinds::read::<MeshTrust>(&row) {
                let bundles = trust.ca_bundles.iter().filter_map(|bundle| bundle.pem.as_ref());
                for pem in bundles {
                    entries.extend(of(Sort::Trust, &row, &pem.value, TRUST));
                }
            }
        }
        for row in self.identities.iter().flat_map(|id| rows(&self.reader, *id)) {
            let Ok(identity) = kinds::read::<MeshIdentity>(&row) else { continue };
            let bundled = identity.provider.as_ref().and_then(|provider| provider.bundled.as_ref());
            let certificate = bundled.and_then(|bundled| bundled.ca.as_ref()?.certificate.as_ref());
            let mesh = row.head.key.mesh.as_ref();
            let pem = certificate.zip(mesh).and_then(|(source, mesh)| self.pem(source, mesh));
            entries.extend(pem.iter().flat_map(|pem| of(Sort::Authority, &row, pem, AUTHORITY)));
        }
        entries
    }

    /// What is in a source that global can read: files and variables are the zones' own.
    fn pem(&self, source: &DataSource, mesh: &MeshName) -> Option<String> {
        match source.kind {
            DataSourceType::InsecureInline => Some(source.insecure_inline.as_ref()?.value.clone()),
            DataSourceType::Secret => {
                let (id, kind) = self.secrets?;
                let key = ResourceKey::in_mesh(mesh, &source.secret_ref.as_ref()?.name);
                text(&kind, &*self.reader.get(id, &key)?)
            }
            DataSourceType::File | DataSourceType::EnvVar => None,
        }
    }
}

/// A MeshTrust of a zone follows its authority.
const TRUST: &str = "whoever wrote the MeshTrust; in that of a zone, the zone publishes the next \
                     authority beside it";
const AUTHORITY: &str = "whoever gave it to the MeshIdentity";

fn rows(reader: &Reader, id: KindId) -> Vec<Arc<Resource>> {
    reader.rows(id).1.iter().cloned().collect()
}

/// An entry for each certificate.
fn of(sort: Sort, row: &Resource, pem: &str, by: &str) -> Vec<Entry> {
    let labels = &row.head.labels;
    let name = labels.get(label::DISPLAY_NAME).filter(|name| !name.is_empty());
    let entry = |ends| Entry {
        mesh: row.head.key.mesh.clone(),
        zone: labels.get(label::ZONE).map(ToOwned::to_owned),
        ..Entry::one(sort, name.unwrap_or(&row.head.key.name), ends, Renewal::by(by))
    };
    certificates(pem).iter().flatten().filter_map(not_after).map(entry).collect()
}
