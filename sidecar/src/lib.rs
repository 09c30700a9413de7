//! The Envoy beside a workload.

mod app;
mod config;

pub use self::{app::bind, config::Config};
