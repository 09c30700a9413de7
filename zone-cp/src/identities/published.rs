//! The MeshTrust that a zone publishes for a MeshIdentity.

use super::plan::{Planner, Step, Trouble, split, written};
use identity::{Authority, TrustDomain, certificates, not_after, to_pem};
use kinds::{
    mesh_identity::condition,
    mesh_trust::{self, CaBundle, MeshTrust, Origin},
};
use resource::{Kri, Labels, Resource, ResourceKey, label};
use std::{collections::BTreeSet, sync::Arc};

impl Planner<'_> {
    /// Whether the zone's MeshTrust has the authority. Otherwise it will.
    pub(super) fn is_trusted(
        &mut self,
        identity: &Resource,
        kri: &Kri,
        domain: &TrustDomain,
        authority: &Authority,
    ) -> Result<bool, Trouble> {
        let trouble =
            |reason, message| Trouble { aspect: condition::MESH_TRUST_CREATED, reason, message };
        let name = &identity.head.key.name;
        let before = self.view.trusts.iter().find(|trust| trust.head.key.name == *name);
        let mut certificates = BTreeSet::new();
        let mut bundles = Vec::new();
        if let Some(before) = before {
            let spec = kinds::read::<MeshTrust>(before).ok();
            let spec = spec.filter(|spec| spec.trust_domain == domain.as_str());
            // One that was written here for this trust domain is taken over: a user who changes ours
            // leaves no origin.
            let may_extend = match self.origin(before) {
                Some(origin) => origin == *kri,
                None => self.is_local(before) && spec.is_some(),
            };
            if !may_extend {
                let message = format!("a MeshTrust {name:?} is there already, from elsewhere");
                return Err(trouble("NameTaken", message));
            }
            if let Some(spec) = spec {
                bundles.extend(spec.ca_bundles.iter().filter_map(|bundle| self.current(bundle)));
                let texts = bundles.iter().filter_map(|bundle| bundle.pem.as_ref());
                certificates.extend(texts.flat_map(|pem| split(&pem.value)));
            }
        }
        if !split(authority.certificate_pem()).is_subset(&certificates) {
            bundles.push(CaBundle::pem(authority.certificate_pem()));
        }
        let spec = MeshTrust { trust_domain: domain.to_string(), ca_bundles: bundles };
        let status = mesh_trust::Status {
            origin: Some(Origin { kri: Some(kri.to_string()) }),
            conditions: before
                .and_then(|before| kinds::status::<MeshTrust>(before).ok())
                .map(|status| status.conditions)
                .unwrap_or_default(),
        };
        let key = ResourceKey::in_mesh(self.view.mesh, name);
        let own = self.here.labels(mesh_trust::KIND, &key);
        let given = before.iter().flat_map(|before| before.head.labels.iter());
        let labels: Labels = given.chain(own.iter()).collect();
        let status = serde_json::to_vec(&status).unwrap_or_default();
        let now = written(mesh_trust::KIND, key, labels, Arc::new(spec), status)
            .map_err(|message| trouble("MeshTrustNotCreated", message))?;
        if before.is_some_and(|before| before.head.version == now.head.version) {
            return Ok(true);
        }
        let before = before.cloned();
        self.memory.relayed.remove(name);
        self.steps.push(Step::Put { kind: mesh_trust::KIND, before, now });
        Ok(false)
    }

    /// The certificates of a bundle that are still valid.
    fn current(&self, bundle: &CaBundle) -> Option<CaBundle> {
        let text = &bundle.pem.as_ref()?.value;
        let valid = certificates(text)?;
        let all = valid.len();
        let is_valid = |der: &_| not_after(der).is_none_or(|end| self.view.now < end);
        let valid: Vec<_> = valid.iter().filter(|der| is_valid(der)).map(to_pem).collect();
        match valid.len() {
            0 => None,
            // As it was written, if it can stay.
            count if count == all => Some(bundle.clone()),
            _ => Some(CaBundle::pem(valid.concat())),
        }
    }

    /// The MeshIdentity that a MeshTrust of this zone was made from.
    pub(super) fn origin(&self, trust: &Resource) -> Option<Kri> {
        let status = kinds::status::<MeshTrust>(trust).ok().filter(|_| self.is_local(trust))?;
        status.origin?.kri?.parse().ok()
    }

    fn is_local(&self, resource: &Resource) -> bool {
        let labels = &resource.head.labels;
        labels.get(label::ORIGIN) == Some(label::ORIGIN_ZONE)
            && labels.get(label::ZONE) == Some(self.here.zone.as_str())
    }
}
