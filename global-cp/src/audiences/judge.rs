//! Whose trust is believed, as a value.
//!
//! A zone that could vouch for a trust domain of somebody else could be everybody. So a zone's
//! MeshTrust goes on to the other zones only if global itself said, by a MeshIdentity of the mesh,
//! that this trust domain is the zone's, or if a setting names it.

use daemon::config::Problems;
use jiff::Timestamp;
use kinds::mesh_identity::{MeshIdentity, Place};
use resource::{Labels, MeshName, ZoneName};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A trust domain that a zone may have although no MeshIdentity gives it to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AllowedTrust {
    /// The zone.
    pub zone: String,
    /// The mesh.
    pub mesh: String,
    /// The trust domain.
    pub trust_domain: String,
}

impl AllowedTrust {
    pub(crate) fn check(&self, problems: &mut Problems) {
        if let Err(error) = ZoneName::new(&self.zone) {
            problems.add("zone", error);
        }
        if let Err(error) = MeshName::new(&self.mesh) {
            problems.add("mesh", error);
        }
        if let Err(error) = identity::TrustDomain::new(&self.trust_domain) {
            problems.add("trustDomain", error);
        }
    }
}

/// What a zone claims: that a trust domain of a mesh is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) zone: ZoneName,
    pub(super) domain: String,
    /// Who claimed it first keeps it.
    pub(super) since: Timestamp,
}

/// What becomes of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Other zones hear of it.
    Relayed,
    /// No MeshIdentity of the mesh gives the trust domain to the zone.
    Foreign,
    /// Another zone has it.
    Taken(ZoneName),
}

/// A MeshIdentity of global.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) spec: Arc<MeshIdentity>,
    pub(super) labels: Labels,
    pub(super) mesh: MeshName,
}

impl Identity {
    /// The trust domain that it gives to the proxies of a zone.
    fn domain(&self, zone: &str) -> Option<String> {
        // What a zone runs on decides about paths, not about trust domains.
        let place = Place { mesh: self.mesh.as_str(), zone, kubernetes: false };
        self.spec.trust_domain(place, &self.labels).ok()
    }

    /// Whether all zones share its trust domain.
    fn is_common(&self) -> bool {
        // No zone is called so: names are labels.
        self.domain(".").is_some_and(|domain| self.domain("..") == Some(domain))
    }
}

/// The claims and identities of one mesh, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Mesh {
    pub(super) identities: BTreeMap<Arc<str>, Identity>,
    pub(super) claims: BTreeMap<Arc<str>, Claim>,
}

impl Mesh {
    /// Whether nothing is known of it.
    pub(super) fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.claims.is_empty()
    }

    /// The claims of the same trust domain as one of them.
    pub(super) fn rivals(&self, domain: &str) -> BTreeSet<Arc<str>> {
        let same = self.claims.iter().filter(|(_, claim)| claim.domain == domain);
        same.map(|(name, _)| name.clone()).collect()
    }

    /// What becomes of the claim called `name`.
    pub(super) fn judge(&self, name: &str, allowed: &[AllowedTrust], mesh: &MeshName) -> Verdict {
        let Some(claim) = self.claims.get(name) else { return Verdict::Foreign };
        let Some(right) = self.right(claim, allowed, mesh) else { return Verdict::Foreign };
        if right == Right::Common {
            return Verdict::Relayed;
        }
        let rank = |name: &str, claim: &Claim| (claim.since, name.to_owned());
        let first = self
            .claims
            .iter()
            .filter(|(_, other)| other.domain == claim.domain && other.zone != claim.zone)
            .filter(|(_, other)| self.right(other, allowed, mesh).is_some())
            .filter(|(other, known)| rank(other, known) < rank(name, claim))
            .min_by_key(|(other, known)| rank(other, known));
        first.map_or(Verdict::Relayed, |(_, other)| Verdict::Taken(other.zone.clone()))
    }

    /// By what a zone may have the trust domain that it claims.
    fn right(&self, claim: &Claim, allowed: &[AllowedTrust], mesh: &MeshName) -> Option<Right> {
        let zone = claim.zone.as_str();
        let mut given = self
            .identities
            .values()
            .filter(|identity| identity.domain(zone).as_deref() == Some(&*claim.domain))
            .peekable();
        if given.peek().is_some() {
            return Some(if given.any(Identity::is_common) { Right::Common } else { Right::Own });
        }
        let listed = allowed.iter().any(|allowed| {
            allowed.zone == zone
                && allowed.mesh == mesh.as_str()
                && allowed.trust_domain == claim.domain
        });
        listed.then_some(Right::Own)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// It is the zone's.
    Own,
    /// It is every zone's.
    Common,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh() -> MeshName {
        MeshName::new("shop").unwrap()
    }

    fn identity(template: Option<&str>) -> Identity {
        let spec = match template {
            Some(template) => serde_json::json!({"spiffeID": {"trustDomain": template}}),
            None => serde_json::json!({}),
        };
        let spec = Arc::new(serde_json::from_value(spec).unwrap());
        Identity { spec, labels: Labels::default(), mesh: mesh() }
    }

    /// Claims of zones, each a second after the one before.
    fn claims(identity: Identity, claims: &[(&str, &str)]) -> Mesh {
        let claim = |(i, (zone, domain)): (usize, &(&str, &str))| {
            let since = Timestamp::from_second(i64::try_from(i).unwrap()).unwrap();
            let zone = ZoneName::new(zone).unwrap();
            let name = format!("{i}-{zone}").into();
            (name, Claim { zone, domain: (*domain).into(), since })
        };
        Mesh {
            identities: [("identity".into(), identity)].into(),
            claims: claims.iter().enumerate().map(claim).collect(),
        }
    }

    fn verdicts(known: &Mesh, allowed: &[AllowedTrust]) -> Vec<Verdict> {
        known.claims.keys().map(|name| known.judge(name, allowed, &mesh())).collect()
    }

    fn taken(zone: &str) -> Verdict {
        Verdict::Taken(ZoneName::new(zone).unwrap())
    }

    #[test]
    fn a_zone_vouches_for_the_trust_domain_that_the_template_gives_it() {
        let known = claims(
            identity(None),
            &[
                ("east", "shop.east.mesh.local"),
                ("west", "shop.west.mesh.local"),
                ("west", "shop.east.mesh.local"),
                ("west", "bank.west.mesh.local"),
                ("west", "example.org"),
            ],
        );
        let foreign = Verdict::Foreign;
        assert_eq!(
            verdicts(&known, &[]),
            [Verdict::Relayed, Verdict::Relayed, foreign.clone(), foreign.clone(), foreign]
        );
    }

    #[test]
    fn a_setting_gives_a_zone_one_more_but_not_what_another_has() {
        let known = claims(
            identity(None),
            &[
                ("east", "example.org"),
                ("west", "example.org"),
                ("west", "shop.east.mesh.local"),
                ("east", "shop.east.mesh.local"),
            ],
        );
        let allowed = |zone: &str, domain: &str| AllowedTrust {
            zone: zone.into(),
            mesh: "shop".into(),
            trust_domain: domain.into(),
        };
        let east = [allowed("east", "example.org")];
        let (relayed, foreign) = (Verdict::Relayed, Verdict::Foreign);
        assert_eq!(
            verdicts(&known, &east),
            [relayed.clone(), foreign.clone(), foreign, relayed.clone()]
        );
        let both = [
            allowed("east", "example.org"),
            allowed("west", "example.org"),
            allowed("west", "shop.east.mesh.local"),
        ];
        assert_eq!(
            verdicts(&known, &both),
            [relayed.clone(), taken("east"), relayed, taken("west")]
        );
    }

    #[test]
    fn all_zones_may_share_a_trust_domain_that_the_template_makes_common() {
        let template = "{{ .Mesh }}.example.org";
        let known = claims(
            identity(Some(template)),
            &[("east", "shop.example.org"), ("west", "shop.example.org")],
        );
        assert_eq!(verdicts(&known, &[]), [Verdict::Relayed, Verdict::Relayed]);
    }
}
