//! A zone's control plane.

pub mod dataplanes;
pub mod generate;
pub mod identities;
pub mod names;
pub mod reconcile;
pub mod services;
