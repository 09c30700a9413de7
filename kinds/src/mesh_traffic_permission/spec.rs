use resource::cel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xds::{Match, Rule, TargetRef};

/// Says who may call. Without one that admits a caller, nobody may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshTrafficPermission {
    /// Which proxies are called; all of the mesh without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Who may call them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule<Conf>>,
}

/// Who may call and who may not; who is denied is denied whatever else admits it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        "",
        "has(self.allow) || has(self.allowWithShadowDeny) || has(self.deny)",
        "at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined",
    ),
])))]
pub struct Conf {
    /// Who may not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Match>,
    /// Who may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Match>,
    /// Who may, but would be denied once this becomes `deny`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_with_shadow_deny: Vec<Match>,
}
