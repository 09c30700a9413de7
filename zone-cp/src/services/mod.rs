//! From proxies to services that can be called by name, in one pass.
//!
//! Services are made of workloads; they are told who their proxies are and how they are; they get a
//! virtual address and host names. All of it is decided together, when one of its inputs changed,
//! and written as one batch: a new workload has its service, its address and its names at once.
//! Nothing is lost when somebody else writes meanwhile: that is a change too, so it is decided again.
//! What was written comes back as a change of which nothing follows.

mod build;
pub mod config;
mod deadlines;
mod hostnames;
mod mesh;
mod plan;
mod proxy;
pub(crate) mod selection;
mod state;
mod task;
#[cfg(test)]
mod tests;
mod vips;

pub use self::{state::Settings, task::run};

/// Marks the services that are made of workloads.
pub const GENERATOR: &str = "meshservice-generator";
/// Marks the workloads that are made of proxies.
pub const WORKLOADS: &str = "workload-generator";
