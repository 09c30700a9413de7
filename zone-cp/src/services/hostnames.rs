//! Who has which host name, in one mesh.

use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The name of a service or of a generator in this control plane.
pub(super) type Name = Arc<str>;

/// The order in which generators and services ask for names: those of this zone first, then the
/// older ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) foreign: bool,
    pub(super) generator_created: Timestamp,
    pub(super) generator: Name,
    pub(super) service_created: Timestamp,
    pub(super) service: Name,
}

/// What one service asks for and has.
#[derive(Debug, Default)]
struct Asked {
    claims: BTreeSet<(String, Claim)>,
    /// As its status says.
    holds: BTreeSet<String>,
}

/// Claims and possession. The first owner keeps a name as long as it asks for it.
#[derive(Debug, Default)]
pub(super) struct Hostnames {
    asked: BTreeMap<Name, Asked>,
    claims: BTreeMap<String, BTreeSet<Claim>>,
    holds: BTreeMap<String, BTreeSet<Name>>,
}

impl Hostnames {
    /// Replaces what `service` asks for and has. The names concerned, of which the owner may have
    /// changed.
    pub(super) fn replace(
        &mut self,
        service: &Name,
        claims: BTreeSet<(String, Claim)>,
        holds: BTreeSet<String>,
    ) -> BTreeSet<String> {
        let asked = Asked { claims, holds };
        let old = self.asked.remove(service).unwrap_or_default();
        let mut touched = BTreeSet::new();
        for (name, claim) in old.claims.difference(&asked.claims) {
            touched.insert(name.clone());
            remove(&mut self.claims, name, claim);
        }
        for (name, claim) in asked.claims.difference(&old.claims) {
            touched.insert(name.clone());
            self.claims.entry(name.clone()).or_default().insert(claim.clone());
        }
        for name in old.holds.difference(&asked.holds) {
            touched.insert(name.clone());
            remove(&mut self.holds, name, service);
        }
        for name in asked.holds.difference(&old.holds) {
            touched.insert(name.clone());
            self.holds.entry(name.clone()).or_default().insert(service.clone());
        }
        if !asked.claims.is_empty() || !asked.holds.is_empty() {
            self.asked.insert(service.clone(), asked);
        }
        touched
    }

    /// Who has `hostname`: the first of those who have it and ask for it, else the first who asks.
    pub(super) fn owner(&self, hostname: &str) -> Option<&Claim> {
        let claims = self.claims.get(hostname)?;
        let holds = self.holds.get(hostname);
        let holder = |claim: &&Claim| holds.is_some_and(|holds| holds.contains(&claim.service));
        claims.iter().find(holder).or_else(|| claims.first())
    }

    /// The services that ask for `hostname`.
    pub(super) fn claimants(&self, hostname: &str) -> impl Iterator<Item = &Name> {
        self.claims.get(hostname).into_iter().flatten().map(|claim| &claim.service)
    }
}

fn remove<T: Ord>(table: &mut BTreeMap<String, BTreeSet<T>>, name: &str, item: &T) {
    if let Some(items) = table.get_mut(name) {
        items.remove(item);
        if items.is_empty() {
            table.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(generator: &str, service: &str, created: i64) -> Claim {
        Claim {
            foreign: false,
            generator_created: Timestamp::UNIX_EPOCH,
            generator: generator.into(),
            service_created: Timestamp::from_second(created).unwrap(),
            service: service.into(),
        }
    }

    fn ask(names: &mut Hostnames, claim: &Claim, holds: bool) -> BTreeSet<String> {
        let held = holds.then(|| "cart.mesh".to_owned());
        let claims = [("cart.mesh".to_owned(), claim.clone())].into();
        names.replace(&claim.service, claims, held.into_iter().collect())
    }

    #[test]
    fn the_older_service_has_the_name_unless_another_has_it_already() {
        let (old, young) = (claim("g", "z", 1), claim("g", "a", 2));
        let mut names = Hostnames::default();
        ask(&mut names, &young, false);
        ask(&mut names, &old, false);
        assert_eq!(names.owner("cart.mesh"), Some(&old));
        assert_eq!(
            names.claimants("cart.mesh").map(|name| &**name).collect::<Vec<_>>(),
            ["z", "a"]
        );

        assert_eq!(ask(&mut names, &young, true), ["cart.mesh".to_owned()].into());
        assert_eq!(names.owner("cart.mesh"), Some(&young));
        names.replace(&young.service, BTreeSet::new(), ["cart.mesh".into()].into());
        assert_eq!(names.owner("cart.mesh"), Some(&old), "it has it but no longer asks");
    }

    #[test]
    fn what_is_given_up_leaves_nothing_behind() {
        let one = claim("g", "a", 1);
        let mut names = Hostnames::default();
        ask(&mut names, &one, true);
        assert!(ask(&mut names, &one, true).is_empty(), "nothing changed");
        let touched = names.replace(&one.service, BTreeSet::new(), BTreeSet::new());
        assert_eq!(touched, ["cart.mesh".to_owned()].into());
        assert_eq!(names.owner("cart.mesh"), None);
        assert!(names.asked.is_empty() && names.claims.is_empty() && names.holds.is_empty());
    }
}
