//! A zone's control plane.

mod app;
pub mod beacons;
mod cluster;
mod config;
pub mod dataplanes;
mod defaults;
mod envoys;
mod following;
pub mod generate;
mod hooks;
pub mod identities;
mod join;
pub mod names;
mod parts;
mod ports;
mod propagation;
pub mod reconcile;
mod refused;
pub mod services;
#[cfg(test)]
mod tests;

pub use self::{
    app::{Bound, bind},
    config::{Config, Environment},
    parts::{Parts, Told},
    ports::Addresses,
};
