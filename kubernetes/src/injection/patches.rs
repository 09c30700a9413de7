//! ContainerPatches, applied to the containers that a pod gets.

use super::{Refusal, annotations};
use crate::edits::object;
use k8s_openapi::api::core::v1::Container;
use kinds::container_patch::{ContainerPatch, JsonPatch};
use serde_json::{Value, json};
use std::sync::Arc;

/// The patches that a pod wants, by name.
pub(super) struct Patches(Vec<(String, Arc<ContainerPatch>)>);

fn refusal(reason: impl std::fmt::Display) -> Refusal {
    annotations::refusal(annotations::CONTAINER_PATCHES, reason)
}

impl Patches {
    /// Finds all of them.
    pub(super) fn find(
        names: &[String],
        find: &dyn Fn(&str) -> Option<Arc<ContainerPatch>>,
    ) -> Result<Self, Refusal> {
        let found = names.iter().map(|name| {
            let missing = || {
                refusal(format_args!("there is no ContainerPatch {name:?} in the system namespace"))
            };
            Ok((name.clone(), find(name).ok_or_else(missing)?))
        });
        Ok(Self(found.collect::<Result<_, Refusal>>()?))
    }

    pub(super) fn sidecar(&self, container: &Container) -> Result<Value, Refusal> {
        self.apply(container, "sidecarPatch", |patch| &patch.sidecar_patch)
    }

    pub(super) fn init(&self, container: &Container) -> Result<Value, Refusal> {
        self.apply(container, "initPatch", |patch| &patch.init_patch)
    }

    fn apply(
        &self,
        container: &Container,
        field: &str,
        steps: fn(&ContainerPatch) -> &[JsonPatch],
    ) -> Result<Value, Refusal> {
        let mut patched = serde_json::to_value(container).map_err(refusal)?;
        for (name, patch) in &self.0 {
            for (i, step) in steps(patch).iter().enumerate() {
                let at = |reason| refusal(format_args!("{name}: {field}[{i}]: {reason}"));
                apply(&mut patched, step).map_err(at)?;
            }
        }
        // Else nobody would find it again.
        match serde_json::from_value::<Container>(patched.clone()) {
            Ok(read) if read.name == container.name => Ok(patched),
            Ok(_) => Err(refusal(format_args!("the name of {} must stay", container.name))),
            Err(error) => Err(refusal(format_args!("{} is no container: {error}", container.name))),
        }
    }
}

fn apply(container: &mut Value, step: &JsonPatch) -> Result<(), String> {
    let value = step.value.as_deref().map(serde_json::from_str::<Value>).transpose();
    let operation = object([
        ("op", Some(json!(step.op))),
        ("path", Some(json!(step.path))),
        ("from", step.from.as_ref().map(|from| json!(from))),
        ("value", value.map_err(|error| error.to_string())?),
    ]);
    let patch: json_patch::Patch =
        serde_json::from_value(json!([operation])).map_err(|error| error.to_string())?;
    json_patch::patch(container, &patch).map_err(|error| error.kind.to_string())
}
