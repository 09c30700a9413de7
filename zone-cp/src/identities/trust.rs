//! Whose certificates count in a mesh: the sum of its MeshTrusts, within what each may say.

use super::plan::Member;
use crate::generate::Trust;
use identity::{TrustDomain, certificates, to_pem};
use jiff::Timestamp;
use kinds::mesh_trust::MeshTrust;
use resource::{Resource, Version, ZoneName, label};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a MeshTrust says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The zone that wrote it; `None` if global did.
    pub(super) zone: Option<ZoneName>,
    pub(super) domain: TrustDomain,
    /// Certificates, one each.
    pub(super) authorities: BTreeSet<String>,
    pub(super) created: Timestamp,
}

/// Reads MeshTrusts; those that did not change are not read again.
#[derive(Debug, Default)]
pub(super) struct Claims(BTreeMap<Arc<str>, (Version, Option<Arc<Claim>>)>);

impl Claims {
    /// What the MeshTrusts of a mesh say. One that cannot be read says nothing.
    pub(super) fn read(&mut self, trusts: &[Arc<Resource>]) -> Vec<Arc<Claim>> {
        let mut before = std::mem::take(&mut self.0);
        for trust in trusts {
            let (name, version) = (trust.head.key.name.clone(), trust.head.version);
            let known = before.remove(&name).filter(|(known, _)| *known == version);
            let claim = known.map_or_else(|| claim(trust).map(Arc::new), |(_, claim)| claim);
            self.0.insert(name, (version, claim));
        }
        self.0.values().filter_map(|(_, claim)| claim.clone()).collect()
    }
}

fn claim(resource: &Resource) -> Option<Claim> {
    let spec = kinds::read::<MeshTrust>(resource).ok()?;
    let texts = spec.ca_bundles.iter().filter_map(|bundle| bundle.pem.as_ref());
    let mut authorities = BTreeSet::new();
    for text in texts {
        authorities.extend(certificates(&text.value)?.iter().map(to_pem));
    }
    Some(Claim {
        zone: resource.head.labels.get(label::ZONE).and_then(|zone| ZoneName::new(zone).ok()),
        domain: TrustDomain::new(&spec.trust_domain).ok()?,
        authorities,
        created: resource.head.times.created,
    })
}

/// Whose certificates count.
///
/// A zone speaks for the trust domains that a MeshIdentity's template makes for it. What others say
/// about such a domain does not count, unless the template makes it for them, too. Of those who speak
/// for a domain that is nobody's by a template, the first one counts. What was written on global, or
/// here, counts always: who may do that is trusted with it.
pub(super) fn trust(own: &ZoneName, members: &[Member], claims: &[Arc<Claim>]) -> Trust {
    let mut domains: BTreeMap<&TrustDomain, Vec<&Claim>> = BTreeMap::new();
    for claim in claims {
        domains.entry(&claim.domain).or_default().push(claim);
    }
    let mut trust = Trust::default();
    for (domain, claims) in domains {
        let makes = |zone: &ZoneName| members.iter().any(|member| member.makes(domain, zone));
        let is_own = |claim: &Claim| claim.zone.as_ref().is_none_or(|zone| zone == own);
        let foreign = || claims.iter().filter(|claim| !is_own(claim));
        let of = |claim: &Claim, zone: &ZoneName| claim.zone.as_ref() == Some(zone);
        let rightful: BTreeSet<&ZoneName> =
            foreign().filter_map(|claim| claim.zone.as_ref()).filter(|zone| makes(zone)).collect();
        let is_ours = makes(own) || claims.iter().any(|claim| of(claim, own));
        let first = if is_ours || !rightful.is_empty() {
            None
        } else {
            let first = foreign().min_by_key(|claim| (claim.created, &claim.zone));
            first.and_then(|claim| claim.zone.as_ref())
        };
        let counts = |claim: &&Claim| {
            is_own(claim)
                || claim
                    .zone
                    .as_ref()
                    .is_some_and(|zone| rightful.contains(zone) || first == Some(zone))
        };
        let authorities =
            claims.iter().copied().filter(counts).flat_map(|claim| &claim.authorities);
        trust.0.insert(domain.clone(), authorities.cloned().collect());
    }
    trust.0.retain(|_, authorities| !authorities.is_empty());
    trust
}
