//! The global control plane.

mod about;
mod admission;
mod app;
mod audiences;
mod config;
mod core;
mod defaults;
mod envoys;
mod first_start;
mod hooks;
mod numbers;
mod ports;
#[cfg(test)]
mod tests;
mod zones;

pub use self::{
    app::{Bound, bind},
    audiences::AllowedTrust,
    config::{Config, Defaults, Kds},
    core::{Core, Parts, Task},
    ports::Addresses,
};
