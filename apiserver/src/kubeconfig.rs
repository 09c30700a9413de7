//! Who asks an API server, and where it is.

use anyhow::Result;
use serde_json::{Value, json};
use std::{fs, path::Path};

/// What a kubeconfig says.
#[derive(Clone, Debug)]
pub struct Kubeconfig {
    /// The URL of the API server.
    pub server: String,
    /// The certificate that its own descends from, as PEM.
    pub authority: String,
    /// What shows who asks.
    pub token: String,
}

impl Kubeconfig {
    /// Writes it to a file.
    pub fn write(&self, file: &Path) -> Result<()> {
        self.save(file, json!({ "token": self.token }))
    }

    /// Writes one that asks in the name of somebody else.
    pub fn write_as(&self, file: &Path, user: &str, groups: &[&str]) -> Result<()> {
        self.save(file, json!({ "token": self.token, "as": user, "as-groups": groups }))
    }

    fn save(&self, file: &Path, user: Value) -> Result<()> {
        let authority = file.with_extension("ca.crt");
        fs::write(&authority, &self.authority)?;
        let cluster = json!({ "server": self.server, "certificate-authority": authority });
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{ "name": "test", "cluster": cluster }],
            "users": [{ "name": "test", "user": user }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        });
        // Every JSON document is a YAML document.
        Ok(fs::write(file, config.to_string())?)
    }
}
