//! The parts of end-to-end tests: network namespaces, processes, control planes, peers.
//!
//! Here, and only here, a test waits for the outside world by looking again ([`wait`]).

pub mod cluster;
pub mod clustered;
pub mod control_plane;
pub mod figures;
pub mod lab;
mod leftovers;
pub mod load;
pub mod namespace;
pub mod peer;
pub mod process;
pub mod spire;
pub mod tls;
pub mod wait;

/// How long anything may take.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
