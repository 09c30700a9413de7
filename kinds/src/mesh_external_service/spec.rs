use crate::{
    DataSource, TlsVersions,
    mesh_service::{Address, GeneratorConditions, Vip},
};
use resource::cel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A service outside the mesh that proxies of the mesh call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        ".tls.verification.clientKey",
        "has(self.extension) || !has(self.tls) || !has(self.tls.verification) || \
         !has(self.tls.verification.clientCert) || has(self.tls.verification.clientKey)",
        "must be defined when clientCert is defined",
    ),
    (
        ".tls.verification.clientCert",
        "has(self.extension) || !has(self.tls) || !has(self.tls.verification) || \
         !has(self.tls.verification.clientKey) || has(self.tls.verification.clientCert)",
        "must be defined when clientKey is defined",
    ),
])))]
pub struct MeshExternalService {
    /// What is called by the mesh.
    pub r#match: Match,
    /// Leaves the calling to an extension, which then knows what endpoints and TLS mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<Extension>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<Endpoint>>,
    /// How TLS is spoken with it, where a proxy begins it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// What is called by the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Match {
    /// How it is found.
    #[serde(default)]
    pub r#type: MatchType,
    /// The port that callers use.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// What is spoken on it.
    #[serde(default)]
    pub protocol: Protocol,
}

/// How an external service is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchType {
    /// By the names that generators give it.
    #[default]
    HostnameGenerator,
}

/// What is spoken with an external service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Bytes.
    #[default]
    Tcp,
    /// gRPC.
    Grpc,
    /// HTTP/1.
    Http,
    /// HTTP/2.
    Http2,
}

impl From<Protocol> for xds::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Grpc => Self::Grpc,
            Protocol::Http => Self::Http,
            Protocol::Http2 => Self::Http2,
        }
    }
}

/// An extension and its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Extension {
    /// The extension.
    pub r#type: String,
    /// Its settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<serde_json::Value>,
}

/// One place where the service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// An IP or a DNS name.
    #[schemars(length(min = 1))]
    pub address: String,
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The lower, the sooner it is used; zero without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub priority: Option<i32>,
}

/// How TLS is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Whether it is.
    #[serde(default)]
    pub enabled: bool,
    /// In which versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<TlsVersions>,
    /// Whether the service may negotiate anew, which is not safe.
    #[serde(default)]
    pub allow_renegotiation: bool,
    /// How the service is verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
}

/// How a service is verified, and how it verifies its caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// What is verified.
    #[serde(default)]
    pub mode: VerificationMode,
    /// The server name that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The names of which its certificate must have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<SanMatch>,
    /// The CA of its certificate; those of the system without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_cert: Option<DataSource>,
    /// The caller's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<DataSource>,
    /// The key of the caller's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<DataSource>,
}

/// What is verified of a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerificationMode {
    /// The CA only.
    SkipSAN,
    /// The names only.
    SkipCA,
    /// CA and names.
    #[default]
    Secured,
    /// Nothing.
    SkipAll,
}

/// Compares a name of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SanMatch {
    /// How.
    #[serde(default)]
    pub r#type: SanMatchType,
    /// With what.
    pub value: String,
}

/// How names of certificates are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SanMatchType {
    /// The same name.
    #[default]
    Exact,
    /// It begins with this.
    Prefix,
}

/// What a zone knows about an external service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Its virtual address in this zone.
    #[serde(default)]
    pub vip: Vip,
    /// Its host names in this zone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// How the generators of this zone named it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostname_generators: Vec<GeneratorConditions>,
}
