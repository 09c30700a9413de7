//! Both ends together, over pipes, in paused time.

mod admin;
mod beacon;
mod filters;
mod held;
mod homes;
mod interop;
mod log;
mod memory;
mod ours;
mod quota;
pub(crate) mod world;
