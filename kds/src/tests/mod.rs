//! Both ends together, over pipes, in paused time.

mod interop;
mod memory;
mod ours;
mod world;
