use super::{
    Change, FilterMatch, FilterOperation, JsonPatch, MeshProxyPatch, Modification, Operation,
};
use crate::json_patch::Step;
use prost_reflect::{DeserializeOptions, DynamicMessage};
use resource::Violations;
use serde_json::{Value, json};

pub(super) fn validate(policy: &MeshProxyPatch, violations: &mut Violations) {
    if let Some(target) = &policy.target_ref {
        target.check(false, violations);
    }
    let path = "spec.default.appendModifications";
    let changes = policy.default.append_modifications.as_deref().unwrap_or_default();
    if changes.is_empty() {
        violations.add(path, "must not be empty");
    }
    for (i, change) in changes.iter().enumerate() {
        check_modification(change, &format!("{path}[{i}]"), violations);
    }
}

fn check_modification(change: &Modification, path: &str, violations: &mut Violations) {
    let Modification { cluster, listener, network_filter, http_filter, virtual_host } = change;
    let found = [
        cluster.is_some(),
        listener.is_some(),
        network_filter.is_some(),
        http_filter.is_some(),
        virtual_host.is_some(),
    ];
    let found = found.into_iter().filter(|is_set| *is_set).count();
    if found != 1 {
        let reason = format_args!(
            "must have exactly one defined: cluster, listener, networkFilter, httpFilter, virtualHost; it has {found}"
        );
        violations.add(path, reason);
    }
    if let Some(change) = cluster {
        check_object(change, Message::Cluster, &format!("{path}.cluster"), violations);
    }
    if let Some(change) = listener {
        check_object(change, Message::Listener, &format!("{path}.listener"), violations);
    }
    if let Some(change) = network_filter {
        check_filter(change, Message::NetworkFilter, &format!("{path}.networkFilter"), violations);
    }
    if let Some(change) = http_filter {
        check_filter(change, Message::HttpFilter, &format!("{path}.httpFilter"), violations);
    }
    if let Some(change) = virtual_host {
        let path = format!("{path}.virtualHost");
        if change.operation == Operation::Add && change.r#match.name.is_some() {
            violations.add(format_args!("{path}.match.name"), "must not be defined");
        }
        let content =
            Content { value: change.value.as_deref(), steps: change.json_patches.as_deref() };
        content.check(change.operation, Message::VirtualHost, &path, violations);
    }
}

fn check_object<M>(
    change: &Change<M, Operation>,
    message: Message,
    path: &str,
    violations: &mut Violations,
) {
    if change.operation == Operation::Add && change.r#match.is_some() {
        violations.add(format_args!("{path}.match"), "must not be defined");
    }
    Content::of(change).check(change.operation, message, path, violations);
}

fn check_filter(
    change: &Change<FilterMatch, FilterOperation>,
    message: Message,
    path: &str,
    violations: &mut Violations,
) {
    let named = change.r#match.as_ref().is_some_and(|filters| filters.name.is_some());
    let (operation, missing) = match change.operation {
        FilterOperation::Remove => (Operation::Remove, None),
        FilterOperation::AddFirst | FilterOperation::AddLast => (Operation::Add, None),
        FilterOperation::Patch => (Operation::Patch, Some("must be defined")),
        FilterOperation::AddBefore => {
            (Operation::Add, Some("must be defined: the filter before which it is added"))
        }
        FilterOperation::AddAfter => {
            (Operation::Add, Some("must be defined: the filter after which it is added"))
        }
    };
    if let (Some(reason), false) = (missing, named) {
        violations.add(format_args!("{path}.match.name"), reason);
    }
    Content::of(change).check(operation, message, path, violations);
}

/// What a change brings.
#[derive(Clone, Copy)]
struct Content<'a> {
    value: Option<&'a str>,
    steps: Option<&'a [JsonPatch]>,
}

impl<'a> Content<'a> {
    fn of<M, O>(change: &'a Change<M, O>) -> Self {
        Self { value: change.value.as_deref(), steps: change.json_patches.as_deref() }
    }

    fn check(
        self,
        operation: Operation,
        message: Message,
        path: &str,
        violations: &mut Violations,
    ) {
        let steps = self.steps.filter(|steps| !steps.is_empty());
        match (operation, self.value, steps) {
            (Operation::Add, None, _) => {
                violations.add(format_args!("{path}.value"), "must be defined");
            }
            (Operation::Remove, Some(_), _) => {
                violations.add(format_args!("{path}.value"), "must not be defined");
            }
            (Operation::Remove, None, _) => {}
            (Operation::Patch, Some(_), Some(_)) => {
                violations.add(path, "must have only one defined: value, jsonPatches");
            }
            (Operation::Patch, None, None) => {
                violations.add(path, "must have exactly one defined: value, jsonPatches");
            }
            (Operation::Patch, None, Some(steps)) => check_steps(steps, path, violations),
            (Operation::Add | Operation::Patch, Some(value), _) => {
                if let Err(error) = message.read(value) {
                    let reason = format_args!("native Envoy resource is not valid: {error}");
                    violations.add(format_args!("{path}.value"), reason);
                }
            }
        }
    }
}

fn check_steps(steps: &[JsonPatch], path: &str, violations: &mut Violations) {
    for (i, JsonPatch { op, path: pointer, from, value }) in steps.iter().enumerate() {
        let (from, has_value) = (from.as_deref(), value.is_some());
        let step = Step { op: *op, path: pointer, from, has_value };
        step.check(&format!("{path}.jsonPatches[{i}]"), violations);
    }
}

/// What Envoy's objects are as messages.
#[derive(Clone, Copy)]
enum Message {
    Cluster,
    Listener,
    NetworkFilter,
    HttpFilter,
    VirtualHost,
}

impl Message {
    const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "envoy.config.cluster.v3.Cluster",
            Self::Listener => "envoy.config.listener.v3.Listener",
            Self::NetworkFilter => "envoy.config.listener.v3.Filter",
            Self::HttpFilter => {
                "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter"
            }
            Self::VirtualHost => "envoy.config.route.v3.VirtualHost",
        }
    }

    /// Reads an object, or a part of one.
    fn read(self, yaml: &str) -> Result<DynamicMessage, String> {
        // No object of Envoy is deeper; what reads them calls itself once a level.
        let options = serde_saphyr::options! {
            with_snippet: false,
            budget: serde_saphyr::budget! { max_depth: 64 },
        };
        let object = serde_saphyr::from_str_with_options(yaml, options);
        let mut object: Value = object.map_err(|error| error.to_string())?;
        hide_unknown(&mut object);
        let descriptor = proto::descriptors().get_message_by_name(self.name());
        let descriptor = descriptor.expect("the pool describes every object of Envoy");
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        DynamicMessage::deserialize_with_options(descriptor, object, &options)
            .map_err(|error| error.to_string())
    }
}

/// Takes the place of an extension: Envoy has more of them than are known here.
const UNKNOWN: &str = "type.googleapis.com/google.protobuf.Struct";

fn hide_unknown(object: &mut Value) {
    match object {
        Value::Array(items) => items.iter_mut().for_each(hide_unknown),
        Value::Object(fields) => {
            let url = fields.get("@type").and_then(Value::as_str);
            let is_known = |url: &str| {
                let name = url.rsplit('/').next().unwrap_or_default();
                proto::descriptors().get_message_by_name(name).is_some()
            };
            if url.is_some_and(|url| !is_known(url)) {
                *object = json!({ "@type": UNKNOWN, "value": {} });
            } else {
                fields.values_mut().for_each(hide_unknown);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
