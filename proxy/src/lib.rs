//! Runs one Envoy: session with its zone, bootstrap, supervision, drain, probes.

mod app;
pub mod config;
mod dataplane;
pub mod envoy;
mod probe;
mod session;
mod version;
mod workdir;

pub use self::{
    app::{Bound, bind},
    config::Settings,
    dataplane::{Dataplane, DataplaneError},
    probe::{Probe, Thresholds},
    workdir::{Workdir, WorkdirError},
};
