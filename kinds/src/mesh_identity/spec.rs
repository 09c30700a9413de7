use crate::{Condition, DataSource, GoDuration, LabelSelector};
use resource::cel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Gives proxies SPIFFE IDs, and certificates if it has a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshIdentity {
    /// Which proxies; none without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// How their SPIFFE IDs are made.
    #[serde(default, rename = "spiffeID", skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<SpiffeIdTemplates>,
    /// Who issues certificates; without it IDs are published only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
}

/// Which proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Selector {
    /// Dataplanes by label; none without it, all if it names no label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplane: Option<DataplaneSelector>,
}

/// Dataplanes by label.
pub type DataplaneSelector = LabelSelector;

/// The parts of a SPIFFE ID, with `{{ .Mesh }}`, `.Zone`, `.Namespace`, `.ServiceAccount`,
/// `.Workload` and `{{ label "key" }}` filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpiffeIdTemplates {
    /// The trust domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// The path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Who issues certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (".bundled", "self.type != 'Bundled' || has(self.bundled)", "must be set when type is Bundled"),
    (
        ".extension",
        "self.type != 'Extension' || has(self.extension)",
        "must be set when type is Extension",
    ),
    (
        ".bundled.ca",
        "self.type != 'Bundled' || !has(self.bundled) || !has(self.bundled.ca) \
         || !has(self.bundled.autogenerate) || !has(self.bundled.autogenerate.enabled) \
         || !self.bundled.autogenerate.enabled",
        "must not be set when autogenerate is enabled",
    ),
    (
        ".bundled.ca",
        "self.type != 'Bundled' || !has(self.bundled) || has(self.bundled.ca) \
         || (has(self.bundled.autogenerate) && has(self.bundled.autogenerate.enabled) \
         && self.bundled.autogenerate.enabled)",
        "must be set when autogenerate is not enabled",
    ),
])))]
pub struct Provider {
    /// Which of the following it is.
    #[serde(rename = "type")]
    pub kind: ProviderType,
    /// The control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundled: Option<Bundled>,
    /// A SPIRE agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spire: Option<Spire>,
    /// An extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<Extension>,
}

/// The sorts of providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProviderType {
    /// The control plane of each zone.
    Bundled,
    /// A SPIRE agent on each machine.
    Spire,
    /// An extension.
    Extension,
}

/// Certificates issued by the control plane of each zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bundled {
    /// Whether the CA is published as a MeshTrust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_trust_creation: Option<MeshTrustCreation>,
    /// Whether a self-signed CA is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_allow_self_signed: Option<bool>,
    /// Makes a CA in each zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autogenerate: Option<Autogenerate>,
    /// A CA from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<Ca>,
    /// What certificates are like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_parameters: Option<CertificateParameters>,
}

impl Bundled {
    /// Whether each zone makes its CA.
    #[must_use]
    pub fn autogenerates(&self) -> bool {
        self.autogenerate.as_ref().and_then(|autogenerate| autogenerate.enabled).unwrap_or(false)
    }

    /// Whether the CA is published as a MeshTrust; it is unless it is said otherwise.
    #[must_use]
    pub fn creates_mesh_trust(&self) -> bool {
        self.mesh_trust_creation != Some(MeshTrustCreation::Disabled)
    }
}

/// Whether a CA is published as a MeshTrust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MeshTrustCreation {
    /// It is.
    Enabled,
    /// Somebody else does it.
    Disabled,
}

/// Makes a CA in each zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Autogenerate {
    /// Whether it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// A CA from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ca {
    /// Its certificate, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<DataSource>,
    /// Its key, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<DataSource>,
}

/// What certificates are like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateParameters {
    /// How long they are valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<GoDuration>,
}

/// Certificates from a SPIRE agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Spire {
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
}

/// A SPIRE agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Agent {
    /// How long it may take to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
}

/// Certificates from an extension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Extension {
    /// The extension.
    pub name: String,
    /// Its settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<serde_json::Value>,
}

/// How an identity stands in this control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Aspect by aspect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl Status {
    /// Whether it gives out identities: it is ready, or ready in part.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        use super::condition::{PARTIALLY_READY, READY};
        self.conditions.iter().any(|condition| {
            let ready = condition.aspect == READY || condition.aspect == PARTIALLY_READY;
            let partly = condition.aspect == READY && condition.reason == PARTIALLY_READY;
            partly || ready && condition.status == crate::ConditionStatus::True
        })
    }
}
