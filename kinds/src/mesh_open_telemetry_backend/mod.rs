//! MeshOpenTelemetryBackend: where proxies send what they measure.

#[cfg(test)]
mod tests;

use crate::{Conditions, rule};
use resource::{Flow, Json, Kind, Scope, Spec, Violations, cel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// See [`MeshOpenTelemetryBackend`].
pub const KIND: Kind = Kind::of::<MeshOpenTelemetryBackend>();

/// A collector that policies name. One that says nothing is the collector of each machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        ".endpoint.path",
        "!has(self.endpoint) || !has(self.endpoint.path) || size(self.endpoint.path) == 0 || \
         (has(self.protocol) && self.protocol == 'http')",
        "must not be set when protocol is grpc",
    ),
])))]
pub struct MeshOpenTelemetryBackend {
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// What it speaks; gRPC without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// What environment variables of a proxy may say about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<EnvPolicy>,
}

/// Where a collector is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// An IP or a DNS name; the machine of the proxy without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The port; 4317 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// What the paths of all signals begin with, over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// What a collector speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// HTTP.
    Http,
}

/// What environment variables of a proxy may say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvPolicy {
    /// Whether they count.
    #[serde(default)]
    pub mode: EnvMode,
    /// Who wins where both say something.
    #[serde(default)]
    pub precedence: EnvPrecedence,
    /// Whether those of one signal count too; they do without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_signal_overrides: Option<bool>,
}

/// Whether environment variables count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EnvMode {
    /// They do not.
    Disabled,
    /// Those that are there do.
    #[default]
    Optional,
    /// They must be there.
    Required,
}

/// Who wins where a resource and an environment variable say something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EnvPrecedence {
    /// The resource.
    ExplicitFirst,
    /// The environment variable.
    #[default]
    EnvFirst,
}

impl Spec for MeshOpenTelemetryBackend {
    type Encoding = Json;
    type Status = Conditions;

    const KIND: &'static str = "MeshOpenTelemetryBackend";
    const PLURAL: &'static str = "meshopentelemetrybackends";
    const SHORT: &'static str = "motb";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::BothWays;

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    fn validate(&self, violations: &mut Violations) {
        const PATH: &str = "spec.endpoint";
        let Some(endpoint) = &self.endpoint else { return };
        if let Some(address) = &endpoint.address {
            let path = format_args!("{PATH}.address");
            if address.is_empty() {
                violations.add(path, "must not be empty");
            } else if address.parse::<IpAddr>().is_err() && !rule::is_dns_name(address) {
                violations.add(path, "address has to be a valid IP or hostname");
            }
        }
        if endpoint.port.is_some_and(|port| !(1..=65535).contains(&port)) {
            violations.add(format_args!("{PATH}.port"), "port must be a valid (1-65535)");
        }
        let path = endpoint.path.as_deref().filter(|path| !path.is_empty());
        let place = format!("{PATH}.path");
        match (path, self.protocol) {
            (None, _) => {}
            (Some(_), None | Some(Protocol::Grpc)) => {
                violations.add(place, "must not be set when protocol is grpc");
            }
            (Some(path), Some(Protocol::Http)) => {
                if !path.starts_with('/') {
                    violations.add(&place, "must start with /");
                }
                if path.contains(['?', '#']) {
                    violations.add(place, "must not contain query or fragment");
                }
            }
        }
    }
}
