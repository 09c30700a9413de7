//! Versions of TLS.

use resource::Violations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which versions are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsVersions {
    /// The oldest.
    #[serde(default)]
    pub min: TlsVersion,
    /// The newest.
    #[serde(default)]
    pub max: TlsVersion,
}

/// A version.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum TlsVersion {
    /// What Envoy has as its default.
    #[default]
    #[serde(rename = "TLSAuto")]
    Auto,
    /// 1.0.
    #[serde(rename = "TLS10")]
    V1_0,
    /// 1.1.
    #[serde(rename = "TLS11")]
    V1_1,
    /// 1.2.
    #[serde(rename = "TLS12")]
    V1_2,
    /// 1.3.
    #[serde(rename = "TLS13")]
    V1_3,
}

impl TlsVersions {
    /// Reports what is wrong with them at `path`.
    pub(crate) fn check(self, path: &str, violations: &mut Violations) {
        if self.max != TlsVersion::Auto && self.min > self.max {
            violations.add(format_args!("{path}.min"), "min version must be lower than max");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_version_is_not_newer_than_the_newest() {
        for (json, expected) in [
            (r#"{}"#, ""),
            (r#"{"min":"TLS13"}"#, ""),
            (r#"{"min":"TLS12","max":"TLS12"}"#, ""),
            (r#"{"min":"TLS13","max":"TLS12"}"#, "v.min: min version must be lower than max"),
        ] {
            let versions: TlsVersions = serde_json::from_str(json).unwrap();
            let mut violations = Violations::default();
            versions.check("v", &mut violations);
            assert_eq!(violations.to_string(), expected, "{json}");
        }
        let written = serde_json::to_string(&TlsVersions::default()).unwrap();
        assert_eq!(written, r#"{"min":"TLSAuto","max":"TLSAuto"}"#);
    }
}
