//! Who the proxies of a zone are: authorities, trust, certificates.
//!
//! [`Identities`] turns MeshIdentities into what follows from them: an authority of this zone in two
//! Secrets, a MeshTrust that shows it to others, and a status. It tells the [`Issuer`] what is there,
//! and the issuer gives each proxy its certificate, and a new one in time.
//!
//! A certificate is only issued by an authority that the zone's own trust already contains: a peer
//! must know it before it meets it.

mod authority;
mod handover;
mod issuer;
mod plan;
mod published;
mod task;
#[cfg(test)]
mod tests;
mod trust;

pub use self::{
    issuer::{Changes, Dirty, Issued, Issuer, NoSvid, Proof},
    task::Identities,
};
