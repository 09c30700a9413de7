//! Runs one Envoy: session with its zone, bootstrap, supervision, drain, probes.

mod app;
mod begin;
pub mod config;
mod dataplane;
pub mod envoy;
mod numbers;
mod probe;
mod probes;
mod records;
mod session;
mod state;
mod transparent_proxy;
mod version;
mod workdir;

pub use self::{
    app::{Bound, bind},
    config::Settings,
    dataplane::{Dataplane, DataplaneError},
    probe::{Probe, Thresholds},
    probes::{ApplicationProbe, ApplicationProbes, How},
    transparent_proxy::{Families, TransparentProxy},
    workdir::{Workdir, WorkdirError},
};
