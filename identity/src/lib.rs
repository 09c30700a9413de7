//! Who is who: SPIFFE identities, certificate authorities, tokens, TLS.

mod authority;
mod pem;
mod spiffe;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod token;

pub use self::{
    authority::{
        Authority, AuthorityError, ServerPair, Svid, certificates, is_issued_by, not_after,
        renew_server_at, to_pem,
    },
    spiffe::{InvalidSpiffeId, SpiffeId, TrustDomain},
};
