//! Who is who: SPIFFE identities, certificate authorities, tokens, TLS.
