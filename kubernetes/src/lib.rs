//! A zone in a Kubernetes cluster: what its pods and services are in the mesh, and what the API
//! server asks before it takes an object.

pub mod admission;
pub mod config;
pub mod controllers;
#[cfg(test)]
mod fake;
pub mod injection;
pub mod lease;
pub mod tokens;

pub use self::config::Config;
