//! KRIs: names that are the same in every control plane, and the names of Envoy's resources.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{borrow::Cow, fmt, str::FromStr};

/// The printed, global name of a resource or of a section of it:
/// `kri_<kind>_<mesh>_<zone>_<namespace>_<name>_<section>`. Parts that do not apply are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kri {
    /// The kind's abbreviation.
    pub short: String,
    /// The mesh.
    pub mesh: String,
    /// The zone that wrote the resource; empty if global did.
    pub zone: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its display name.
    pub name: String,
    /// A port, an inbound or a listener, by its name wherever it has one.
    pub section: String,
}

impl Kri {
    /// The KRI of a section of the same resource.
    #[must_use]
    pub fn with_section(&self, section: impl Into<String>) -> Self {
        Self { section: section.into(), ..self.clone() }
    }
}

impl fmt::Display for Kri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { short, mesh, zone, namespace, name, section } = self;
        write!(f, "kri_{short}_{mesh}_{zone}_{namespace}_{name}_{section}")
    }
}

impl Serialize for Kri {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Kri {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The text is not a KRI.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a KRI: kri_<kind>_<mesh>_<zone>_<namespace>_<name>_<section>")]
pub struct InvalidKri(String);

impl FromStr for Kri {
    type Err = InvalidKri;

    fn from_str(text: &str) -> Result<Self, InvalidKri> {
        // A section may contain underscores, nothing before it does.
        let mut parts = text.splitn(7, '_');
        let mut next = || parts.next().map(str::to_owned).ok_or_else(|| InvalidKri(text.into()));
        if next()? != "kri" {
            return Err(InvalidKri(text.into()));
        }
        Ok(Self {
            short: next()?,
            mesh: next()?,
            zone: next()?,
            namespace: next()?,
            name: next()?,
            section: next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_that_do_not_apply_are_empty() {
        let kri: Kri = "kri_mzsvc_default___backend_http".parse().unwrap();
        assert_eq!(kri.mesh, "default");
        assert_eq!((&*kri.zone, &*kri.namespace, &*kri.name), ("", "", "backend"));
        assert_eq!(kri.section, "http");
        assert!("kri_mzsvc_default___backend".parse::<Kri>().is_err());
        assert!("krx_mzsvc_default___backend_".parse::<Kri>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_can_be_parsed(
            [short, mesh, zone, namespace, name] in proptest::array::uniform5("[a-z0-9.-]{0,6}"),
            section in "[a-z0-9_-]{0,6}",
        ) {
            let kri = Kri { short, mesh, zone, namespace, name, section };
            prop_assert_eq!(kri.to_string().parse::<Kri>().unwrap(), kri);
        }
    }
}
