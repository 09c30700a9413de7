//! A zone's control plane.

mod app;
mod config;
pub mod dataplanes;
mod defaults;
pub mod generate;
pub mod identities;
mod join;
pub mod names;
pub mod reconcile;
pub mod services;

pub use self::{
    app::{Addresses, Bound, bind},
    config::Config,
};
