//! MeshTrust: the CAs that vouch for the identities of a trust domain.

#[cfg(test)]
mod tests;

use crate::rule;
use base64::{Engine, engine::general_purpose::STANDARD};
use resource::{Flow, Json, Kind, Scope, Spec, Violations, cel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// See [`MeshTrust`].
pub const KIND: Kind = Kind::of::<MeshTrust>();

/// The CAs of a trust domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshTrust {
    /// The trust domain.
    #[schemars(length(max = 253))]
    pub trust_domain: String,
    /// Its CAs.
    #[schemars(length(min = 1))]
    pub ca_bundles: Vec<CaBundle>,
}

/// Certificates of CAs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (".pem", "self.type != 'Pem' || has(self.pem)", "must be set when type is Pem"),
])))]
pub struct CaBundle {
    /// Their form.
    #[serde(rename = "type")]
    pub kind: CaBundleType,
    /// Certificates in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pem: Option<Pem>,
}

/// The forms of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaBundleType {
    /// PEM.
    Pem,
}

/// Certificates in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pem {
    /// The text.
    pub value: String,
}

impl CaBundle {
    /// The certificates in the PEM text `value`.
    #[must_use]
    pub fn pem(value: impl Into<String>) -> Self {
        Self { kind: CaBundleType::Pem, pem: Some(Pem { value: value.into() }) }
    }
}

/// Where a MeshTrust comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The resource it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Why it is not relayed to other zones, if it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<crate::Condition>,
}

/// The resource that a MeshTrust was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// Its KRI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kri: Option<String>,
}

impl resource::Status for Status {}

impl Spec for MeshTrust {
    type Encoding = Json;
    type Status = Status;

    const KIND: &'static str = "MeshTrust";
    const PLURAL: &'static str = "meshtrusts";
    const SHORT: &'static str = "mtrust";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::BothWays;

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// It is relayed for its trust domain; which CAs vouch for that is its zone's business.
    fn keeps_audience_of(&self, before: &Self) -> bool {
        self.trust_domain == before.trust_domain
    }

    fn validate(&self, violations: &mut Violations) {
        if !rule::is_host_name(&self.trust_domain) {
            violations
                .add("spec.trustDomain", "must be a trust domain such as shop.east.mesh.local");
        }
        if self.ca_bundles.is_empty() {
            violations.add("spec.caBundles", "must not be empty");
        }
        for (i, bundle) in self.ca_bundles.iter().enumerate() {
            match &bundle.pem {
                Some(pem) if has_certificates_only(&pem.value) => {}
                Some(_) => {
                    let path = format_args!("spec.caBundles[{i}].pem.value");
                    violations.add(path, "must be one or more certificates in PEM");
                }
                None => {
                    let path = format_args!("spec.caBundles[{i}].pem");
                    violations.add(path, "must be set when type is Pem");
                }
            }
        }
    }
}

/// Whether the text is certificates in PEM. One that an Envoy cannot read would make it refuse the
/// bundle of all trust domains.
fn has_certificates_only(text: &str) -> bool {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut rest = text.trim();
    let mut found = false;
    while let Some(body) = rest.strip_prefix(BEGIN) {
        let Some((body, after)) = body.split_once(END) else { return false };
        let body: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(body).unwrap_or_default();
        if !is_certificate(&der) {
            return false;
        }
        (found, rest) = (true, after.trim_start());
    }
    found && rest.is_empty()
}

fn is_certificate(der: &[u8]) -> bool {
    x509_parser::parse_x509_certificate(der).is_ok_and(|(rest, _)| rest.is_empty())
}
