//! ContainerPatch: changes of the containers that are put beside a workload on Kubernetes.
//!
//! It is an object of one Kubernetes cluster and nothing else: no other control plane gets it, and
//! the REST API does not know it.

use crate::json_patch::{PatchOp, Step};
use resource::{CustomResource, Flow, Json, Kind, NoStatus, Scope, Spec, Violations, cel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// See [`ContainerPatch`].
pub const KIND: Kind = Kind::of::<ContainerPatch>();

/// Changes of the containers of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPatch {
    /// Of the proxy's own container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sidecar_patch: Vec<JsonPatch>,
    /// Of the container that sets up the redirection of traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_patch: Vec<JsonPatch>,
}

/// One step of a patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        ".value",
        "!(self.op in ['add', 'replace']) || has(self.value)",
        "must be defined when op is add or replace",
    ),
    (
        ".from",
        "!(self.op in ['move', 'copy']) || has(self.from)",
        "must be defined when op is move or copy",
    ),
])))]
pub struct JsonPatch {
    /// What it does.
    pub op: PatchOp,
    /// Where.
    pub path: String,
    /// Where it takes a value from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The value, as the text of a JSON document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl Spec for ContainerPatch {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "ContainerPatch";
    const PLURAL: &'static str = "containerpatches";
    const PATH: &'static str = "";
    const SHORT: &'static str = "";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::Local;
    const CUSTOM: Option<CustomResource> =
        Some(CustomResource { names_mesh: true, ..CustomResource::NAMESPACED });

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    fn validate(&self, violations: &mut Violations) {
        for (field, patch) in
            [("sidecarPatch", &self.sidecar_patch), ("initPatch", &self.init_patch)]
        {
            for (i, step) in patch.iter().enumerate() {
                validate_step(step, &format!("spec.{field}[{i}]"), violations);
            }
        }
    }
}

fn validate_step(patch: &JsonPatch, path: &str, violations: &mut Violations) {
    let JsonPatch { op, path: pointer, from, value } = patch;
    let step = Step { op: *op, path: pointer, from: from.as_deref(), has_value: value.is_some() };
    step.check(path, violations);
    if let Some(Err(error)) =
        value.as_ref().map(|text| serde_json::from_str::<serde::de::IgnoredAny>(text))
    {
        violations.add(format_args!("{path}.value"), format_args!("must be JSON: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn violations(spec: Value) -> String {
        KIND.from_json(spec).map(drop).map_err(|error| error.to_string()).err().unwrap_or_default()
    }

    fn full() -> Value {
        json!({
            "sidecarPatch": [
                { "op": "add", "path": "/env/-", "value": r#"{"name":"A","value":"1"}"# },
                { "op": "move", "path": "/a", "from": "/b" },
            ],
            "initPatch": [{ "op": "remove", "path": "/securityContext" }],
        })
    }

    #[test]
    fn every_violation_has_its_path() {
        for (spec, expected) in [
            (full(), ""),
            (json!({}), ""),
            (
                json!({ "sidecarPatch": [
                    { "op": "add", "path": "a" },
                    { "op": "replace", "path": "/a", "value": "{" },
                ], "initPatch": [{ "op": "copy", "path": "/a" }] }),
                "spec.sidecarPatch[0].path: must be a JSON pointer such as /spec/containers/0; \
                 spec.sidecarPatch[0].value: must be defined when op is add; \
                 spec.sidecarPatch[1].value: must be JSON: EOF while parsing an object at line 1 column 1; \
                 spec.initPatch[0].from: must be defined when op is copy",
            ),
            (
                json!({ "initPatch": [{ "op": "test" }] }),
                "spec.initPatch[0].path: in body is required; \
                 spec.initPatch[0].op: in body should be one of [add remove replace move copy]",
            ),
        ] {
            assert_eq!(violations(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn the_json_is_that_of_the_field() {
        let read = KIND.from_json(full()).unwrap();
        assert_eq!(KIND.to_json(&KIND.encode(&read).unwrap()).unwrap(), full());
    }

    #[test]
    fn it_stays_in_its_cluster() {
        assert_eq!([KIND.flow.requested_by_zones(), KIND.flow.requested_by_global()], [false; 2]);
        assert_eq!(KIND.path, "");
    }
}
