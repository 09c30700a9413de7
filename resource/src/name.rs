//! Names. Strings are parsed here, once, and compared as values afterwards.

use std::{fmt, str::FromStr, sync::Arc};

/// Why a name was refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidName {
    /// It is not an RFC 1035 label.
    #[error(
        "{0:?} is not a DNS label: at most 63 of a-z, 0-9 and '-', starting with a letter and not ending with '-'"
    )]
    Label(String),
    /// It is not a DNS subdomain.
    #[error(
        "{0:?} is not a resource name: at most 253 of a-z, 0-9, '-' and '.', starting and ending with a letter or digit"
    )]
    Subdomain(String),
}

/// What the name of a resource may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// An RFC 1035 label, because the name becomes a part of host names.
    Label,
    /// Lower-case letters, digits, `-` and `.`, up to 253.
    Subdomain,
}

impl NameRule {
    /// Checks `name`.
    pub fn check(self, name: &str) -> Result<(), InvalidName> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let alphanumeric = |b: Option<&u8>| b.is_some_and(|b| *b != b'-' && inner(*b));
        let bytes = name.as_bytes();
        match self {
            Self::Label => {
                let ok = bytes.len() <= 63
                    && bytes.first().is_some_and(u8::is_ascii_lowercase)
                    && alphanumeric(bytes.last())
                    && bytes.iter().all(|b| inner(*b));
                if ok { Ok(()) } else { Err(InvalidName::Label(name.into())) }
            }
            Self::Subdomain => {
                let ok = bytes.len() <= 253
                    && alphanumeric(bytes.first())
                    && alphanumeric(bytes.last())
                    && bytes.iter().all(|b| inner(*b) || *b == b'.');
                if ok { Ok(()) } else { Err(InvalidName::Subdomain(name.into())) }
            }
        }
    }
}

macro_rules! label_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `value`, an RFC 1035 label, and wraps it.
            pub fn new(value: &str) -> Result<Self, InvalidName> {
                NameRule::Label.check(value)?;
                Ok(Self(value.into()))
            }

            /// The name as it is written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(value: &str) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

label_name! {
    /// The name of a mesh.
    MeshName
}

label_name! {
    /// The name of a zone.
    ZoneName
}

/// Names one resource of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    /// The mesh the resource belongs to; `None` for kinds with [`Scope::Global`](super::Scope).
    pub mesh: Option<MeshName>,
    /// Unique within the mesh.
    pub name: Arc<str>,
}

impl ResourceKey {
    /// The key of a resource outside meshes.
    #[must_use]
    pub fn global(name: &str) -> Self {
        Self { mesh: None, name: name.into() }
    }

    /// The key of a resource of `mesh`.
    #[must_use]
    pub fn in_mesh(mesh: &MeshName, name: &str) -> Self {
        Self { mesh: Some(mesh.clone()), name: name.into() }
    }
}

/// As in logs: `mesh/name`, or the name alone.
impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mesh {
            Some(mesh) => write!(f, "{mesh}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_starts_with_a_letter_and_ends_without_a_dash() {
        for good in ["a", "east-1", &"x".repeat(63)] {
            assert_eq!(NameRule::Label.check(good), Ok(()));
        }
        for bad in ["", "1a", "a-", "-a", "A", "a.b", "a_b", &"x".repeat(64)] {
            assert_eq!(NameRule::Label.check(bad), Err(InvalidName::Label(bad.into())));
        }
    }

    #[test]
    fn a_subdomain_may_have_dots() {
        for good in ["a", "1a.b-c", &"x".repeat(253)] {
            assert_eq!(NameRule::Subdomain.check(good), Ok(()));
        }
        for bad in ["", ".a", "a.", "a_b", "A", &"x".repeat(254)] {
            assert_eq!(NameRule::Subdomain.check(bad), Err(InvalidName::Subdomain(bad.into())));
        }
    }
}
