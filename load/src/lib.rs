//! Simulated zones over real sockets: they keep nothing of what global sends, so that a thousand of
//! them fit beside a global on one machine.

mod down;
mod message;
mod target;
mod up;
pub mod usage;
mod zone;

pub use self::{
    target::Target,
    up::{Offers, dataplane},
    zone::{Event, Seen, Zone},
};
