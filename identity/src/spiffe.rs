//! SPIFFE IDs and trust domains. They are compared as parsed values, never as text.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

const SCHEME: &str = "spiffe://";
const MAX_TRUST_DOMAIN: usize = 255;
const MAX_ID: usize = 2048;

/// Why a text is not a SPIFFE ID or a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpiffeId {
    /// It does not begin with `spiffe://`.
    #[error("{0:?} does not begin with spiffe://")]
    Scheme(String),
    /// It is empty.
    #[error("the trust domain is empty")]
    NoTrustDomain,
    /// It is too long.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// A trust domain has lower case letters, digits, dots, dashes and underscores.
    #[error("{character:?} is not allowed in the trust domain {domain:?}")]
    TrustDomain {
        /// The trust domain.
        domain: String,
        /// What it may not contain.
        character: char,
    },
    /// A segment of a path is not empty, and not `.` or `..`.
    #[error("the path {0:?} has an empty or relative segment")]
    Segment(String),
    /// A path has letters, digits, dots, dashes and underscores.
    #[error("{character:?} is not allowed in the path {path:?}")]
    Path {
        /// The path.
        path: String,
        /// What it may not contain.
        character: char,
    },
}

/// Whose certificates an authority may issue: the first part of a SPIFFE ID.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Reads a trust domain, such as `shop.east.mesh.local`.
    pub fn new(name: &str) -> Result<Self, InvalidSpiffeId> {
        if name.is_empty() {
            return Err(InvalidSpiffeId::NoTrustDomain);
        }
        if name.len() > MAX_TRUST_DOMAIN {
            return Err(InvalidSpiffeId::TooLong(MAX_TRUST_DOMAIN));
        }
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_');
        match name.chars().find(|c| !allowed(*c)) {
            Some(character) => Err(InvalidSpiffeId::TrustDomain { domain: name.into(), character }),
            None => Ok(Self(name.into())),
        }
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID of the trust domain itself, as its authority carries it.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        SpiffeId { trust_domain: self.clone(), path: "".into() }
    }
}

/// The name of a workload, or of a trust domain.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    path: Arc<str>,
}

impl SpiffeId {
    /// The workload at `path`, which begins with a slash, or is empty.
    pub fn new(trust_domain: TrustDomain, path: &str) -> Result<Self, InvalidSpiffeId> {
        if SCHEME.len() + trust_domain.0.len() + path.len() > MAX_ID {
            return Err(InvalidSpiffeId::TooLong(MAX_ID));
        }
        let segment = || InvalidSpiffeId::Segment(path.into());
        if !path.is_empty() {
            let segments = path.strip_prefix('/').ok_or_else(segment)?;
            if segments.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
                return Err(segment());
            }
        }
        let allowed =
            |c: char| matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' | '/');
        match path.chars().find(|c| !allowed(*c)) {
            Some(character) => Err(InvalidSpiffeId::Path { path: path.into(), character }),
            None => Ok(Self { trust_domain, path: path.into() }),
        }
    }

    /// Its trust domain.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Its path: empty, or with a leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| InvalidSpiffeId::Scheme(text.into()))?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Self::new(TrustDomain::new(domain)?, path)
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        Self::new(text)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.trust_domain, self.path)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.to_string()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = InvalidSpiffeId;

    fn try_from(text: String) -> Result<Self, InvalidSpiffeId> {
        Self::new(&text)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = InvalidSpiffeId;

    fn try_from(text: String) -> Result<Self, InvalidSpiffeId> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(
            text in r"spiffe://[a-z0-9._-]{1,20}(/[a-zA-Z0-9_-]{1,5}){0,4}",
        ) {
            let id: SpiffeId = text.parse().unwrap();
            prop_assert_eq!(id.to_string(), text);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let read = format!("spiffe://{text}").parse::<SpiffeId>();
            prop_assert!(read.is_err() || read.unwrap().to_string().ends_with(&text));
        }
    }

    #[test]
    fn the_parts_are_told_apart() {
        let id: SpiffeId = "spiffe://shop.east.mesh.local/workload/cart".parse().unwrap();
        assert_eq!(id.trust_domain().as_str(), "shop.east.mesh.local");
        assert_eq!(id.path(), "/workload/cart");
        assert_eq!(id.trust_domain().id().to_string(), "spiffe://shop.east.mesh.local");
    }

    #[test]
    fn each_mistake_has_its_reason() {
        let reason = |text: &str| text.parse::<SpiffeId>().unwrap_err().to_string();
        assert_eq!(reason("http://a/b"), r#""http://a/b" does not begin with spiffe://"#);
        assert_eq!(reason("SPIFFE://a"), r#""SPIFFE://a" does not begin with spiffe://"#);
        assert_eq!(reason("spiffe:///b"), "the trust domain is empty");
        assert_eq!(reason("spiffe://East"), r#"'E' is not allowed in the trust domain "East""#);
        assert_eq!(reason("spiffe://a:80/b"), r#"':' is not allowed in the trust domain "a:80""#);
        for path in ["/", "/b/", "/b//c", "/b/../c", "/."] {
            let expected = format!("the path {path:?} has an empty or relative segment");
            assert_eq!(reason(&format!("spiffe://a{path}")), expected);
        }
        assert_eq!(reason("spiffe://a/b%2f"), r#"'%' is not allowed in the path "/b%2f""#);
        assert_eq!(reason(&format!("spiffe://{}", "a".repeat(256))), "longer than 255 bytes");
        assert_eq!(reason(&format!("spiffe://a/{}", "b".repeat(2048))), "longer than 2048 bytes");
    }
}
