//! Control planes in simulated time, over a simulated network, on simulated disks.
//!
//! One seed is one history: the same seed gives the same trace, so a failure found once can be run
//! again. Three rules make that so:
//!
//! * Every `select!` is `biased`. Otherwise tokio draws the order of its branches from a random
//!   generator that no seed controls.
//! * Nothing runs on another thread: no `spawn_blocking`, no runtime of its own. The store's writer
//!   is polled in place and its disk is a [`Disk`].
//! * Time and randomness are arguments: tokio's paused clock, a generator made of the seed.
//!
//! All control planes of a history share one runtime, and pipes connect them: time jumps to the next
//! thing that happens, and a history of minutes takes a part of a second.

mod disk;
pub mod federation;
mod network;
pub mod power;

pub use self::disk::{Attached, Disk};
