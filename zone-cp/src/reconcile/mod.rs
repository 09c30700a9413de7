//! From what a zone knows to what each of its proxies gets.
//!
//! [`Meshes`] holds tables of each mesh that are updated by what changed and never rebuilt. A change
//! marks names in the mailboxes of those proxies that get something else by it, and of no others;
//! what they get is generated when the first of their streams asks, and shared by all who get the
//! same.
//!
//! Nothing is served before the tables were complete once: what a zone does not know yet would be
//! taken for gone.

mod calls;
mod change;
mod connections;
mod direct;
mod drafts;
mod effects;
mod groups;
mod lacking;
mod marks;
mod mesh;
mod meshes;
mod proxies;
mod replicas;
mod results;
mod run;
mod services;
mod source;
mod tcp;
#[cfg(test)]
mod tests;
mod told;
mod written;

pub(crate) use self::change::reaching;
pub use self::{
    change::Concerned,
    lacking::Lacking,
    meshes::{Certificates, Meshes, NotServed, ProxyKey},
    proxies::Traits,
    run::Failed,
};
