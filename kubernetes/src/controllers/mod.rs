//! What pods and services of the cluster are in the mesh: each controller is a small reconciler.
//!
//! The objects of the cluster are kept in `tables`, trimmed to what matters. Pure functions decide
//! what one of them is in the mesh: `dataplane`, `mesh_service`, `zone_address`. `rows` compares that
//! with what is stored, and `run` writes the difference. What was made here says so in its labels, so
//! after a restart it is known what must go.

mod cluster;
mod complaint;
mod dataplane;
mod events;
mod mesh_service;
mod metrics;
mod names;
mod problems;
mod rows;
mod run;
mod settings;
mod tables;
#[cfg(test)]
mod tests;
mod transparent;
mod watch;
mod zone_address;

pub use self::{
    complaint::{Complaint, Weight},
    events::{Events, Subject, Writer},
    names::{
        DIRECT_ACCESS, EGRESS, GATEWAY, IGNORE, INGRESS, INJECTED, INJECTION, MANAGER,
        SERVICE_NAME, SIDECAR, ZONE_PROXY, in_view,
    },
    problems::tell as tell_problems,
    run::run,
    settings::{Config, Settings},
};

use kube::Client;
use std::sync::Arc;
use store::{Kinds, Local};

/// What controllers work with.
#[derive(Clone)]
pub struct Parts {
    /// Asks the API server.
    pub client: Client,
    /// Where resources are kept.
    pub store: Local,
    /// The kinds of the store.
    pub kinds: Arc<Kinds>,
    /// What they know of their zone.
    pub settings: Settings,
    /// Where they tell what is wrong.
    pub events: Events,
    /// Where they count.
    pub metrics: daemon::Metrics,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("settings", &self.settings).finish_non_exhaustive()
    }
}
