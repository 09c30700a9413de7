//! The parts of end-to-end tests: network namespaces, processes, peers.
//!
//! Here, and only here, a test waits for the outside world by looking again ([`wait`]).

pub mod namespace;
pub mod peer;
pub mod process;
pub mod wait;
