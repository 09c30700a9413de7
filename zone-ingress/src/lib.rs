//! The Envoy through which other zones come in.

mod app;
mod config;

pub use self::{app::bind, config::Config};
