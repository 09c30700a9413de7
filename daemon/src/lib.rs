//! What every process needs.

pub mod admin;
mod backoff;
mod clock;
pub mod config;
pub mod data;
pub mod duration;
mod listen;
pub mod log;
mod metrics;
pub mod program;
pub mod ready;
mod repeats;
mod shutdown;
mod tasks;

pub use self::{
    backoff::Backoff,
    clock::Clock,
    config::Config,
    listen::{ListenError, listen, listen_udp},
    log::Log,
    metrics::Metrics,
    ready::Ready,
    repeats::Repeats,
    tasks::{Stopped, Tasks},
};
