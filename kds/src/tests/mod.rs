//! Both ends together, over pipes, in paused time.

mod memory;
mod ours;
mod world;
