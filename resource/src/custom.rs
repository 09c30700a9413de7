//! What a kind is in Kubernetes.

use serde_json::{Value, json};

/// How the objects of a kind stand in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CustomResource {
    /// Whether they live in namespaces, or belong to the whole cluster.
    pub namespaced: bool,
    /// Whether they name their mesh in a field `mesh`, beside the label.
    pub names_mesh: bool,
    /// The field in which a spec stands.
    pub content: &'static str,
}

impl CustomResource {
    /// In namespaces, with a spec: as most kinds.
    pub const NAMESPACED: Self = Self { namespaced: true, names_mesh: false, content: "spec" };
    /// Of the whole cluster, as what is older than namespaces in Kuma.
    pub const CLUSTER: Self = Self { namespaced: false, names_mesh: true, content: "spec" };
}

/// Rules that span fields, as the schema of what has these fields says them to Kubernetes: the path
/// of the field that breaks a rule (empty for the whole), the rule in CEL, and what is said of it.
#[must_use]
pub fn cel(rules: &[(&str, &str, &str)]) -> Value {
    let rule = |(path, rule, message): &(&str, &str, &str)| match *path {
        "" => json!({ "rule": rule, "message": message }),
        path => json!({ "rule": rule, "message": message, "fieldPath": path }),
    };
    rules.iter().map(rule).collect()
}
