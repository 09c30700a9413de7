//! Both ends together, over pipes, in paused time.

mod admin;
mod held;
mod interop;
mod memory;
mod ours;
pub(crate) mod world;
