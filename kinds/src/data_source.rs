//! Bytes that a resource names or contains.

use resource::{Violations, cel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where bytes come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        ".file",
        "self.type != 'File' || (has(self.file) && size(self.file.path) > 0)",
        "must be set when type is File",
    ),
    (
        ".secretRef",
        "self.type != 'Secret' || (has(self.secretRef) && size(self.secretRef.name) > 0)",
        "must be set when type is Secret",
    ),
    (
        ".envVar",
        "self.type != 'EnvVar' || (has(self.envVar) && size(self.envVar.name) > 0)",
        "must be set when type is EnvVar",
    ),
    (
        ".insecureInline",
        "self.type != 'InsecureInline' || (has(self.insecureInline) && \
         size(self.insecureInline.value) > 0)",
        "must be set when type is InsecureInline",
    ),
])))]
pub struct DataSource {
    /// Which of the following it is.
    #[serde(rename = "type")]
    pub kind: DataSourceType,
    /// A file of the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<File>,
    /// A Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// An environment variable of the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_var: Option<EnvVar>,
    /// The bytes themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_inline: Option<Inline>,
}

/// The sorts of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DataSourceType {
    /// A file of the control plane.
    File,
    /// A Secret.
    Secret,
    /// An environment variable of the control plane.
    EnvVar,
    /// The bytes themselves.
    InsecureInline,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct File {
    /// Its path.
    pub path: String,
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
}

/// Bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Inline {
    /// The bytes, as text.
    pub value: String,
}

/// A Secret of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Always `Secret`.
    pub kind: SecretKind,
    /// Its name.
    pub name: String,
}

/// The kinds that hold secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SecretKind {
    /// A Secret.
    Secret,
}

impl DataSource {
    /// Reports what is wrong with it at `path`.
    pub(crate) fn check(&self, path: &str, violations: &mut Violations) {
        let file = self.file.as_ref().map(|file| &file.path);
        let secret = self.secret_ref.as_ref().map(|secret| &secret.name);
        let variable = self.env_var.as_ref().map(|variable| &variable.name);
        let inline = self.insecure_inline.as_ref().map(|inline| &inline.value);
        let (field, value, kind) = match self.kind {
            DataSourceType::File => ("file.path", file, "File"),
            DataSourceType::Secret => ("secretRef.name", secret, "Secret"),
            DataSourceType::EnvVar => ("envVar.name", variable, "EnvVar"),
            DataSourceType::InsecureInline => ("insecureInline.value", inline, "InsecureInline"),
        };
        if value.is_none_or(String::is_empty) {
            let path = format_args!("{path}.{field}");
            violations.add(path, format_args!("must be set when type is {kind}"));
        }
    }
}
