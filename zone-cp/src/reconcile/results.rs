//! What was generated, once for all who get the same.

use crate::generate::{Credentials, Part};
use delta::{Item, Name};
use resource::Version;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

/// Results by destination and by what else they depend on, each made once. An input that does not
/// matter is left out, so that more callers are equal.
#[derive(Debug)]
pub(super) struct Shared<I> {
    by_destination: BTreeMap<Name, BTreeMap<I, Item>>,
    made: usize,
}

impl<I> Default for Shared<I> {
    fn default() -> Self {
        Self { by_destination: BTreeMap::new(), made: 0 }
    }
}

impl<I: Ord> Shared<I> {
    /// The result for `inputs`, made if it is not there.
    pub(super) fn get(
        &mut self,
        destination: &Name,
        inputs: I,
        make: impl FnOnce() -> Item,
    ) -> Item {
        let results = self.by_destination.entry(destination.clone()).or_default();
        let made = &mut self.made;
        let make = || {
            *made += 1;
            make()
        };
        results.entry(inputs).or_insert_with(make).clone()
    }

    /// Forgets one result: somebody gets something else instead, and so do all the others soon.
    pub(super) fn forget(&mut self, destination: &str, inputs: &I) {
        let Some(results) = self.by_destination.get_mut(destination) else { return };
        results.remove(inputs);
        if results.is_empty() {
            self.by_destination.remove(destination);
        }
    }

    /// Forgets the results of a destination that depend on what is gone.
    fn retain(&mut self, destination: &str, stays: impl Fn(&I) -> bool) {
        let Some(results) = self.by_destination.get_mut(destination) else { return };
        results.retain(|inputs, _| stays(inputs));
        if results.is_empty() {
            self.by_destination.remove(destination);
        }
    }

    /// Forgets the results of a destination: it changed, or what shapes it did. That bounds what is
    /// kept: results of settings that are gone do not stay.
    fn changed(&mut self, destination: &str) {
        self.by_destination.remove(destination);
    }
}

/// Everything that proxies share.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// By what shapes the connections, and by who calls.
    pub(super) clusters: Shared<(Version, Credentials)>,
    /// By what shapes the connections of applications, and by where and how these reach it.
    pub(super) listeners: Shared<(Version, Arc<BTreeSet<SocketAddr>>, bool)>,
    /// By what shapes the requests.
    pub(super) routes: Shared<Version>,
    pub(super) assignments: Shared<()>,
    /// The same as clusters, listeners and routes, for those who call replicas one by one.
    pub(super) direct_clusters: Shared<(Version, Credentials)>,
    pub(super) direct_listeners: Shared<(SocketAddr, Version)>,
    pub(super) direct_routes: Shared<Version>,
    /// The same destinations, as an ingress forwards to them.
    pub(super) exposed: Shared<()>,
    /// What goes with redirected connections, by its own name.
    pub(super) redirected: Shared<Part>,
    /// What is of one proxy alone is not kept: it is asked for once.
    pub(super) made_for_one: usize,
}

impl Results {
    /// What a destination is, or what shapes it, changed; where it is did not.
    pub(super) fn changed(&mut self, destination: &str) {
        self.clusters.changed(destination);
        self.listeners.changed(destination);
        self.routes.changed(destination);
        self.direct_clusters.changed(destination);
        self.direct_listeners.changed(destination);
        self.direct_routes.changed(destination);
    }

    /// Replicas of a destination left these addresses.
    pub(super) fn left(&mut self, destination: &str, addresses: &BTreeSet<SocketAddr>) {
        self.direct_listeners.retain(destination, |(address, _)| !addresses.contains(address));
    }

    /// How ingresses offer a destination changed.
    pub(super) fn exposed_changed(&mut self, destination: &str) {
        self.exposed.changed(destination);
    }

    /// Where a destination is changed.
    pub(super) fn moved(&mut self, destination: &str) {
        self.assignments.changed(destination);
    }

    /// How many were made so far: what tests of cost look at.
    pub(super) const fn made(&self) -> usize {
        self.clusters.made
            + self.listeners.made
            + self.routes.made
            + self.assignments.made
            + self.direct_clusters.made
            + self.direct_listeners.made
            + self.direct_routes.made
            + self.exposed.made
            + self.redirected.made
            + self.made_for_one
    }
}
