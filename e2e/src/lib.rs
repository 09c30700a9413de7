//! The parts of end-to-end tests: network namespaces, processes, a lab of several zones.
//!
//! Here, and only here, a test waits for the outside world by looking again ([`wait`]).

pub mod lab;
pub mod namespace;
pub mod peer;
pub mod process;
pub mod wait;
