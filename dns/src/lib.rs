//! Answers names: those of the mesh from a table of records, all others by asking upstream servers.
//!
//! What to answer is a function of a message and of [`Records`]. The sockets are a thin shell
//! around it.

mod answer;
mod config;
mod forward;
mod records;
mod server;
#[cfg(test)]
mod tests;

pub use self::{
    config::Config,
    records::{Change, Found, Records},
    server::{BindError, Bound, bind},
};
