//! Certificate authorities, trust and the identities of proxies.
