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
    identities: BTreeMap<Arc<str>, Identity>,
    claims: BTreeMap<Arc<str>, Claim>,
    /// The claims of each trust domain, by their rank: who came first.
    by_domain: BTreeMap<String, BTreeSet<(Timestamp, Arc<str>)>>,
    /// How many claims were looked at so far.
    #[cfg(test)]
    pub(super) looks: std::cell::Cell<usize>,
}

impl Mesh {
    /// A MeshIdentity is this now, or is gone. Returns whether that changes anything.
    pub(super) fn identify(&mut self, name: &Arc<str>, now: Option<Identity>) -> bool {
        let before = match now.clone() {
            Some(identity) => self.identities.insert(name.clone(), identity),
            None => self.identities.remove(name),
        };
        let said = |identity: &Identity| (identity.spec.clone(), identity.labels.clone());
        before.as_ref().map(said) != now.as_ref().map(said)
    }

    /// A claim is this now, or is gone. Returns what it was.
    pub(super) fn claim(&mut self, name: &Arc<str>, now: Option<Claim>) -> Option<Claim> {
        let before = self.claims.remove(name);
        if let Some(before) = &before
            && let Some(rivals) = self.by_domain.get_mut(&before.domain)
        {
            rivals.remove(&(before.since, name.clone()));
            if rivals.is_empty() {
                self.by_domain.remove(&before.domain);
            }
        }
        if let Some(now) = now {
            let rivals = self.by_domain.entry(now.domain.clone()).or_default();
            rivals.insert((now.since, name.clone()));
            self.claims.insert(name.clone(), now);
        }
        before
    }

    /// The names of all claims.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.claims.keys()
    }

    /// Whether nothing is known of it.
    pub(super) fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.claims.is_empty()
    }

    /// The claims of the same trust domain as one of them.
    pub(super) fn rivals(&self, domain: &str) -> impl Iterator<Item = &Arc<str>> {
        let same = self.by_domain.get(domain).into_iter().flatten();
        same.map(|(_, name)| name).inspect(|_| {
            #[cfg(test)]
            self.looks.set(self.looks.get() + 1);
        })
    }

    /// What becomes of the claim called `name`.
    pub(super) fn judge(&self, name: &str, allowed: &[AllowedTrust], mesh: &MeshName) -> Verdict {
        let Some(claim) = self.claims.get(name) else { return Verdict::Foreign };
        let Some(right) = self.right(claim, allowed, mesh) else { return Verdict::Foreign };
        if right == Right::Common {
            return Verdict::Relayed;
        }
        let earlier = self.rivals(&claim.domain).take_while(|other| &***other != name);
        let first = earlier
            .filter_map(|other| self.claims.get(other))
            .filter(|other| other.zone != claim.zone)
            .find(|other| self.right(other, allowed, mesh).is_some());
        first.map_or(Verdict::Relayed, |other| Verdict::Taken(other.zone.clone()))
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
        let mut known = Mesh::default();
        known.identify(&"identity".into(), Some(identity));
        for (i, (zone, domain)) in claims.iter().enumerate() {
            let since = Timestamp::from_second(i64::try_from(i).unwrap()).unwrap();
            let zone = ZoneName::new(zone).unwrap();
            let name = format!("{i}-{zone}").into();
            known.claim(&name, Some(Claim { zone, domain: (*domain).into(), since }));
        }
        known
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
    fn only_claims_of_the_same_trust_domain_are_looked_at() {
        let mut known = claims(identity(None), &[]);
        for i in 0..1000 {
            let zone = ZoneName::new(&format!("zone-{i}")).unwrap();
            let domain = format!("shop.{zone}.mesh.local");
            let name = zone.to_string().into();
            known.claim(&name, Some(Claim { zone, domain, since: Timestamp::UNIX_EPOCH }));
        }
        let zone = ZoneName::new("zone-7").unwrap();
        let claim = Claim {
            zone,
            domain: "shop.zone-7.mesh.local".into(),
            since: Timestamp::from_second(1).unwrap(),
        };
        known.claim(&"second".into(), Some(claim));
        known.looks.set(0);
        assert_eq!(known.judge("zone-7", &[], &mesh()), Verdict::Relayed);
        assert_eq!(known.judge("second", &[], &mesh()), Verdict::Relayed);
        assert_eq!(known.rivals("shop.zone-7.mesh.local").count(), 2);
        assert!(known.looks.get() <= 5, "{} of 1001 claims", known.looks.get());

        // What is gone is not looked at any more.
        known.claim(&"zone-7".into(), None);
        known.claim(&"second".into(), None);
        assert_eq!(known.rivals("shop.zone-7.mesh.local").count(), 0);
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
