//! The one trait that a kind implements.

use super::{
    CustomResource, Export, Features, Flow, Labels, NameRule, Peer, ResourceKey, Scope,
    TransitName, Violations,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::fmt;

/// How the specs of a kind are written on the wire, and as JSON in the API.
pub trait Encoding<S> {
    /// Where the fields of a spec stand in the API: beside `name`, or under `spec`.
    const INLINE: bool;
    /// The type URL of an encoded spec; empty where the protocol has none.
    fn type_url() -> String;
    /// The JSON schema of specs, where the encoding knows it and the kind need not say it.
    #[must_use]
    fn schema() -> Option<schemars::Schema> {
        None
    }
    /// Reads a spec. Fields that are not known are skipped: the peer may be newer.
    fn decode(bytes: &[u8]) -> Result<S, BoxError>;
    /// Writes a spec; equal specs give equal bytes.
    fn encode(spec: &S) -> Result<Vec<u8>, BoxError>;
    /// Reads the JSON of the API.
    fn from_json(json: Value) -> Result<S, BoxError>;
    /// Writes the JSON of the API.
    fn to_json(spec: &S) -> Result<Value, BoxError>;
}

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

const LIST: &str = "a list is no spec";

/// JSON, as most kinds use.
#[derive(Debug)]
pub enum Json {}

impl<S: Serialize + DeserializeOwned> Encoding<S> for Json {
    const INLINE: bool = false;

    fn type_url() -> String {
        String::new()
    }

    fn decode(bytes: &[u8]) -> Result<S, BoxError> {
        // Types take the list of their fields for themselves.
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        if first == Some(&b'[') { Err(LIST.into()) } else { Ok(serde_json::from_slice(bytes)?) }
    }

    fn encode(spec: &S) -> Result<Vec<u8>, BoxError> {
        Ok(serde_json::to_vec(spec)?)
    }

    fn from_json(json: Value) -> Result<S, BoxError> {
        if json.is_array() { Err(LIST.into()) } else { Ok(S::deserialize(json)?) }
    }

    fn to_json(spec: &S) -> Result<Value, BoxError> {
        Ok(serde_json::to_value(spec)?)
    }
}

/// What control planes report back about a resource.
pub trait Status: schemars::JsonSchema + Serialize + DeserializeOwned + Default + 'static {
    /// Whether there is anything to report.
    const PRESENT: bool = true;
}

/// The status of kinds that have none.
#[derive(Debug, Default, Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct NoStatus {}

impl Status for NoStatus {
    const PRESENT: bool = false;
}

/// Who may use the API for a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody who may use the mesh.
    Users,
    /// Administrators, because it holds secrets.
    Admins,
    /// Everybody may read it; only control planes write it.
    ReadOnly,
}

/// Which lists a policy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    /// `to`: for outgoing traffic, by destination.
    pub to: bool,
    /// `rules`: for incoming traffic.
    pub rules: bool,
}

/// The content of a resource: the only trait a kind has to implement.
pub trait Spec: fmt::Debug + Send + Sync + Sized + 'static {
    /// How specs are written.
    type Encoding: Encoding<Self>;
    /// What is reported back.
    type Status: Status;

    /// The kind, as written in YAML and in type URLs.
    const KIND: &'static str;
    /// The plural, as written in custom resource definitions.
    const PLURAL: &'static str;
    /// The plural, as written in URLs.
    const PATH: &'static str = Self::PLURAL;
    /// The abbreviation used in KRIs, and so in Envoy resource names. Empty for kinds without one.
    const SHORT: &'static str;
    /// Whether the kind lives inside a mesh.
    const SCOPE: Scope;
    /// Which way the kind travels.
    const FLOW: Flow;
    /// What becomes of its names on the way from global to a zone.
    const TRANSIT_NAME: TransitName = TransitName::Hashed;
    /// What its display names may look like.
    const NAME: NameRule = NameRule::Subdomain;
    /// Who may use the API for it.
    const ACCESS: Access = Access::Users;
    /// Set for policies.
    const TARGETS: Option<Targets> = None;
    /// How it stands in Kubernetes; `None` for kinds that are no custom resources there.
    const CUSTOM: Option<CustomResource> = Some(CustomResource::NAMESPACED);

    /// The JSON schema of a spec; `true` (anything) for kinds that have none.
    #[must_use]
    fn schema() -> schemars::Schema {
        true.into()
    }

    /// Reports everything wrong with this spec. Paths begin with `spec`, or with the name of the
    /// field where fields stand beside `name`.
    fn validate(&self, _violations: &mut Violations) {}

    /// Decides what of a resource may leave for `peer`.
    #[must_use]
    fn export(&self, _key: &ResourceKey, _peer: Peer) -> Export<Self> {
        Export::AsIs
    }

    /// The name under which a resource leaves for `peer`, where its kind renames it. It is needed
    /// where nothing but the name is left, so it cannot depend on the spec.
    #[must_use]
    fn transit_key(_key: &ResourceKey, _peer: Peer) -> Option<ResourceKey> {
        None
    }

    /// What a peer must understand to be sent it.
    #[must_use]
    fn needs(&self) -> Features {
        Features::default()
    }

    /// Whether whoever sees it is the same as for the content `before`, which it replaces, where
    /// that depends on other resources: what was decided then still holds. Otherwise it is hidden
    /// until it is decided anew.
    #[must_use]
    fn keeps_audience_of(&self, _before: &Self) -> bool {
        false
    }

    /// Whether a resource that a zone wrote goes on to the other zones, for kinds with
    /// [`Flow::Everywhere`].
    #[must_use]
    fn is_producer(&self, _labels: &Labels) -> bool {
        false
    }
}

/// Why a peer's or a user's spec was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RejectedSpec {
    /// The bytes are not a spec of this kind.
    #[error("malformed {kind}")]
    Malformed {
        /// The expected kind.
        kind: &'static str,
        /// What the parser said.
        #[source]
        source: BoxError,
    },
    /// The spec breaks rules of its kind.
    #[error("{violations}")]
    Invalid {
        /// The kind.
        kind: &'static str,
        /// All broken rules.
        violations: Violations,
    },
}
