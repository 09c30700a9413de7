use crate::{PatchOp, policy};
use resource::cel;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use xds::TargetRef;

/// Changes the Envoy configuration of proxies, after everything else made it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    policy::NO_SECTION,
])))]
pub struct MeshProxyPatch {
    /// Which proxies; all of the mesh without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// What is changed.
    pub default: Conf,
}

/// What is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conf {
    /// Changes, in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_modifications: Option<Vec<Modification>>,
}

/// One change: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Modification {
    /// Of clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Change<ClusterMatch, Operation>>,
    /// Of listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Change<ListenerMatch, Operation>>,
    /// Of the filters of listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_filter: Option<Change<FilterMatch, FilterOperation>>,
    /// Of the filters of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_filter: Option<Change<FilterMatch, FilterOperation>>,
    /// Of virtual hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_host: Option<VirtualHostChange>,
}

/// A change of objects of one sort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (".value", "self.operation != 'Remove' || !has(self.value)", "must not be defined"),
    (".value", "!self.operation.startsWith('Add') || has(self.value)", "must be defined"),
    (
        "",
        "self.operation != 'Patch' || has(self.value) != (has(self.jsonPatches) && \
         size(self.jsonPatches) > 0)",
        "must have exactly one defined: value, jsonPatches",
    ),
])))]
pub struct Change<M, O> {
    /// Which objects; all of them without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#match: Option<M>,
    /// What becomes of them.
    pub operation: O,
    /// The object in YAML that is added, or laid over those that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Steps that change them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_patches: Option<Vec<JsonPatch>>,
}

/// A change of virtual hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (".value", "self.operation != 'Remove' || !has(self.value)", "must not be defined"),
    (".value", "self.operation != 'Add' || has(self.value)", "must be defined"),
    (
        "",
        "self.operation != 'Patch' || has(self.value) != (has(self.jsonPatches) && \
         size(self.jsonPatches) > 0)",
        "must have exactly one defined: value, jsonPatches",
    ),
    (".match.name", "self.operation != 'Add' || !has(self.match.name)", "must not be defined"),
])))]
pub struct VirtualHostChange {
    /// Which ones.
    pub r#match: VirtualHostMatch,
    /// What becomes of them.
    pub operation: Operation,
    /// The object in YAML that is added, or laid over those that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Steps that change them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_patches: Option<Vec<JsonPatch>>,
}

/// What becomes of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operation {
    /// One is added.
    Add,
    /// They are removed.
    Remove,
    /// They are changed.
    Patch,
}

/// What becomes of filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FilterOperation {
    /// They are removed.
    Remove,
    /// They are changed.
    Patch,
    /// One is added before all.
    AddFirst,
    /// One is added before each of them.
    AddBefore,
    /// One is added after each of them.
    AddAfter,
    /// One is added after all.
    AddLast,
}

/// Which clusters; what is left out does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterMatch {
    /// For what they were made, such as `inbound`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Their name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Which listeners; what is left out does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListenerMatch {
    /// For what they were made, such as `inbound`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Their name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Their tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
}

/// Which filters; what is left out does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilterMatch {
    /// For what their listeners were made, such as `inbound`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Their name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The name of their listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_name: Option<String>,
    /// The tags of their listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_tags: Option<BTreeMap<String, String>>,
}

/// Which virtual hosts; what is left out does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualHostMatch {
    /// For what their routes were made, such as `inbound`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Their name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The name of their route configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_configuration_name: Option<String>,
}

/// One step that changes an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JsonPatch {
    /// What it does.
    pub op: PatchOp,
    /// Where.
    pub path: String,
    /// Where it takes a value from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The value that it brings; `null` is one.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}
