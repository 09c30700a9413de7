//! The tables of one mesh, and what must be looked at again because they changed.

use super::{
    hostnames::{Hostnames, Name},
    proxy::{Identity, Proxy, Who, workload},
    selection::Selection,
};
use kinds::{
    dataplane::Dataplane,
    dataplane_insight::DataplaneInsight,
    labels::Place,
    mesh_identity::{self, MeshIdentity},
    mesh_service::{MeshService, Selector, Status},
    mesh_trust::MeshTrust,
};
use resource::{Labels, RejectedSpec, Resource, label};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A service as it is stored.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) row: Arc<Resource>,
    pub(super) spec: Arc<MeshService>,
    pub(super) status: Status,
}

/// What is known of one mesh.
#[derive(Debug, Default)]
pub(super) struct Mesh {
    pub(super) proxies: BTreeMap<Name, Proxy>,
    /// Proxies that are connected, whether they are known or not.
    pub(super) online: BTreeSet<Name>,
    pub(super) selection: Selection,
    pub(super) services: BTreeMap<Name, Service>,
    /// As they are stored.
    pub(super) workloads: BTreeMap<Name, Arc<Resource>>,
    pub(super) identities: BTreeMap<Name, Identity>,
    trusts: BTreeMap<Name, String>,
    trusted: BTreeSet<String>,
    pub(super) hostnames: Hostnames,
    pub(super) dirty: Dirty,
}

/// What must be looked at again.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) services: BTreeSet<Name>,
    pub(super) workloads: BTreeSet<WorkloadName>,
    /// Proxies of which it is not known who they are.
    proxies: BTreeSet<Name>,
    /// Who everybody is must be found out anew.
    everybody: bool,
}

/// What a workload is called, and in which namespace of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WorkloadName {
    pub(super) name: Name,
    pub(super) namespace: Option<Name>,
}

impl WorkloadName {
    /// That of a proxy with these labels.
    fn of_proxy(labels: &Labels) -> Option<Self> {
        Some(Self { name: workload(labels)?.into(), namespace: namespace(labels) })
    }

    /// That of a stored workload.
    fn of_row(row: &Resource) -> Self {
        let display = row.head.labels.get(label::DISPLAY_NAME);
        let name = display.map_or_else(|| row.head.key.name.clone(), Name::from);
        Self { name, namespace: namespace(&row.head.labels) }
    }
}

fn namespace(labels: &Labels) -> Option<Name> {
    labels.get(label::NAMESPACE).map(Name::from)
}

/// A row of a kind, or nothing.
type Row<'a> = Option<&'a Arc<Resource>>;

impl Mesh {
    pub(super) fn note_dataplane(&mut self, name: &Name, row: Row<'_>) -> Result<(), RejectedSpec> {
        if let Some(old) = self.proxies.remove(name) {
            self.selection.remove_proxy(name, &old.head.labels);
            self.mark_services_of(name, &old.head.labels);
        }
        let Some(row) = row else { return Ok(()) };
        let (head, spec) = (row.head.clone(), kinds::read::<Dataplane>(row)?);
        self.selection.add_proxy(name, &head.labels);
        self.mark_services_of(name, &head.labels);
        self.dirty.proxies.insert(name.clone());
        self.proxies.insert(name.clone(), Proxy { head, spec, who: Who::default() });
        Ok(())
    }

    pub(super) fn note_insight(&mut self, name: &Name, row: Row<'_>) -> Result<(), RejectedSpec> {
        let insight = row.map(|row| kinds::read::<DataplaneInsight>(row)).transpose();
        // One that cannot be read says nothing, so nobody is connected.
        let online = insight.as_ref().is_ok_and(|it| it.as_ref().is_some_and(|it| it.is_online()));
        let changed =
            if online { self.online.insert(name.clone()) } else { self.online.remove(name) };
        if changed && let Some(labels) = self.labels_of(name) {
            self.mark_services_of(name, &labels);
        }
        insight.map(drop)
    }

    fn labels_of(&self, name: &Name) -> Option<Labels> {
        self.proxies.get(name).map(|proxy| proxy.head.labels.clone())
    }

    fn mark_services_of(&mut self, name: &Name, labels: &Labels) {
        self.dirty.services.extend(self.selection.services(name, labels));
        if let Some(workload) = workload(labels) {
            // The service that would be made of it, if there is none yet.
            self.dirty.services.insert(workload.into());
            self.dirty.workloads.extend(WorkloadName::of_proxy(labels));
        }
    }

    pub(super) fn note_service(&mut self, name: &Name, row: Row<'_>) -> Result<(), RejectedSpec> {
        self.dirty.services.insert(name.clone());
        if let Some(old) = self.services.remove(name) {
            self.selection.remove_service(name, &old.spec.selector);
        }
        let Some(row) = row else { return Ok(()) };
        let spec = kinds::read::<MeshService>(row)?;
        // A status that cannot be read is made anew.
        let status = kinds::status::<MeshService>(row).unwrap_or_default();
        self.selection.add_service(name, &spec.selector);
        self.services.insert(name.clone(), Service { row: row.clone(), spec, status });
        Ok(())
    }

    pub(super) fn note_workload(&mut self, name: &Name, row: Row<'_>) {
        let before = match row {
            Some(row) => self.workloads.insert(name.clone(), row.clone()),
            None => self.workloads.remove(name),
        };
        let rows = row.into_iter().chain(&before);
        self.dirty.workloads.extend(rows.map(|row| WorkloadName::of_row(row)));
    }

    pub(super) fn note_identity(
        &mut self,
        name: &Name,
        row: Row<'_>,
        place: mesh_identity::Place<'_>,
    ) -> Result<(), RejectedSpec> {
        let old = self.identities.remove(name);
        let new = row.map(|row| -> Result<_, RejectedSpec> {
            let spec = kinds::read::<MeshIdentity>(row)?;
            let ready = kinds::status::<MeshIdentity>(row).is_ok_and(|status| status.is_ready());
            match &old {
                // Proxies keep the certificates of before, so they are who they were.
                Some(old) if spec.trust_domain(place, &row.head.labels).is_err() => {
                    Ok(Identity { spec: old.spec.clone(), labels: old.labels.clone(), ready })
                }
                Some(_) | None => Ok(Identity { spec, labels: row.head.labels.clone(), ready }),
            }
        });
        let new = new.transpose();
        let identity = new.as_ref().ok().and_then(Option::as_ref);
        self.dirty.everybody |= old.as_ref() != identity;
        new.map(|identity| self.identities.extend(identity.map(|it| (name.clone(), it))))
    }

    pub(super) fn note_trust(&mut self, name: &Name, row: Row<'_>) -> Result<(), RejectedSpec> {
        self.trusts.remove(name);
        let trust = row.map(|row| kinds::read::<MeshTrust>(row)).transpose();
        if let Ok(Some(trust)) = &trust {
            self.trusts.insert(name.clone(), trust.trust_domain.clone());
        }
        let trusted = self.trusts.values().cloned().collect();
        self.dirty.everybody |= trusted != self.trusted;
        self.trusted = trusted;
        trust.map(drop)
    }

    /// Marks every service.
    pub(super) fn mark_all(&mut self) {
        self.dirty.services.extend(self.services.keys().cloned());
    }

    /// Marks all there is, and all that would be made of it.
    #[cfg(test)]
    pub(super) fn mark_everything(&mut self) {
        self.mark_all();
        let workloads: Vec<Name> =
            self.proxies.values().filter_map(Proxy::workload).map(Name::from).collect();
        self.dirty.services.extend(workloads.iter().cloned());
        let labels = self.proxies.values().map(|proxy| &proxy.head.labels);
        self.dirty.workloads.extend(labels.filter_map(WorkloadName::of_proxy));
    }

    /// Finds out who the proxies are of which that is not known.
    pub(super) fn identify(&mut self, place: mesh_identity::Place<'_>) {
        let proxies = std::mem::take(&mut self.dirty.proxies);
        if std::mem::take(&mut self.dirty.everybody) {
            // Also services without proxies: whether they speak TLS depends on there being any
            // identity.
            self.mark_all();
            for proxy in self.proxies.values_mut() {
                proxy.who = proxy.identify(&self.identities, &self.trusted, place);
            }
            return;
        }
        for name in proxies {
            if let Some(proxy) = self.proxies.get_mut(&name) {
                proxy.who = proxy.identify(&self.identities, &self.trusted, place);
            }
        }
    }

    /// The proxies that `selector` selects, by name.
    pub(super) fn selected<'a>(
        &'a self,
        selector: &'a Selector,
    ) -> Box<dyn Iterator<Item = &'a Proxy> + 'a> {
        let matches = |proxy: &&Proxy| selector.matches(&proxy.head.key.name, &proxy.head.labels);
        match self.selection.proxies(selector) {
            Some(names) => {
                let proxy = |name: Name| self.proxies.get(&name);
                Box::new(names.into_iter().filter_map(proxy).filter(matches))
            }
            None => Box::new(self.proxies.values().filter(matches)),
        }
    }
}

impl Service {
    /// Whether it was written in this zone.
    pub(super) fn is_own(&self, place: &Place) -> bool {
        place.is_origin_of(&self.row.head.labels)
    }

    /// Whether it was made of a workload.
    pub(super) fn is_generated(&self) -> bool {
        self.row.head.labels.get(label::MANAGED_BY) == Some(super::GENERATOR)
    }
}
