//! Control planes in simulated time, over a simulated network, on simulated disks.
//!
//! One seed is one history: the same seed gives the same trace, so a failure found once can be run
//! again. Three rules make that so:
//!
//! * Every `select!` is `biased`. Otherwise tokio draws the order of its branches from a random
//!   generator that no seed controls.
//! * Nothing runs on another thread: no `spawn_blocking`, no runtime of its own. The store's writer
//!   is polled in place and its disk is a [`Disk`].
//! * Time and randomness are arguments: turmoil's clock, a generator made of the seed.

mod disk;
mod network;
pub mod power;
mod world;

pub use self::{
    disk::{Attached, Disk},
    world::{Trace, run},
};
