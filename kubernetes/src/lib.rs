//! A zone in a Kubernetes cluster: what its pods and services are in the mesh, and what the API
//! server asks before it takes an object.

mod active;
pub mod admission;
pub mod config;
pub mod controllers;
mod edits;
#[cfg(test)]
mod fake;
pub mod injection;
pub mod lease;
pub mod name;
pub mod tokens;

pub use self::{
    active::{ACTIVE, OwnPod},
    config::Config,
};

/// The service, in the system namespace, of a zone's control plane; and the ServiceAccount that it
/// has.
pub const SERVICE: &str = "atoll-zone-cp";
