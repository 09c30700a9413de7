//! What every process needs.

mod backoff;
mod clock;
mod tasks;

pub use self::{
    backoff::Backoff,
    clock::Clock,
    tasks::{Stopped, Tasks},
};
