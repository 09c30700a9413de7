use crate::LabelSelector;
use resource::cel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Gives host names to the services it selects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostnameGenerator {
    /// Which services it names.
    #[serde(default)]
    pub selector: Selector,
    /// The name, with `{{ .DisplayName }}`, `.Name`, `.Namespace`, `.Mesh`, `.Zone` and
    /// `{{ label "key" }}` filled in.
    pub template: String,
    /// Leaves the naming to an extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<Extension>,
}

/// Selects services of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        "",
        "[has(self.meshService), has(self.meshExternalService), \
         has(self.meshMultiZoneService)].exists_one(set, set)",
        "exactly one selector (meshService, meshExternalService or meshMultiZoneService) must be \
         defined",
    ),
])))]
pub struct Selector {
    /// Services of one zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_service: Option<LabelSelector>,
    /// Services outside the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_external_service: Option<LabelSelector>,
    /// Services of several zones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_multi_zone_service: Option<LabelSelector>,
}

/// An extension and its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Extension {
    /// The extension.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<serde_json::Value>,
}
