//! What the messages of the protocol mean.
//!
//! Between two of ours a response says in `system_version_info` how to take it and where its
//! receiver then is, and a first request may say where its sender was, in
//! `initial_resource_versions` under a key that is no name. A plain peer sees neither.

#[cfg(test)]
mod tests;

use crate::{
    form::{hex, parse_hex},
    limit::{self, cut},
    refusal::{Refusal, Refusals},
};
use delta::{Answer, Cursor, Extent, Nonce, Response, Start, Versions};
use prost_types::{ListValue, Struct, Value, value::Kind as Of};
use proto::{
    envoy::{
        config::core::v3::{ControlPlane, Node},
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    },
    kuma::system::v1alpha1::KumaCpVersion,
};
use resource::{Feature, Features, Flow, ZoneName};
use std::collections::BTreeMap;

/// How the other end of a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// As Kuma does.
    Plain,
    /// As we do, with these features.
    Ours(Features),
}

impl Dialect {
    /// Whether `feature` was announced.
    #[must_use]
    pub const fn has(self, feature: Feature) -> bool {
        match self {
            Self::Plain => false,
            Self::Ours(features) => features.has(feature),
        }
    }

    /// Whether a peer that speaks so knows kinds that travel by `flow`.
    #[must_use]
    pub const fn knows(self, flow: Flow) -> bool {
        match flow.only_with() {
            None => true,
            Some(feature) => self.has(feature),
        }
    }

    const fn says_extents(self) -> bool {
        self.has(Feature::Split) || self.has(Feature::Resume)
    }
}

/// What breaks the protocol, so that nothing more can be said on the stream.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Broken {
    /// A request without `node`.
    #[error("node: must be present in every request")]
    NoNode,
    /// A request in the name of another.
    #[error("node.id: is {found:?}, must be {expected:?}")]
    Node {
        /// What it says.
        found: String,
        /// The zone of the stream.
        expected: ZoneName,
    },
    /// A subscription by name.
    #[error("resource_names_subscribe: only \"*\" can be asked for")]
    Names,
    /// A place that cannot be read.
    #[error("initial_resource_versions[{key:?}]: {value:?} is no version")]
    Start {
        /// The entry.
        key: String,
        /// What it says.
        value: String,
    },
    /// A response that cannot be answered.
    #[error("nonce: must not be empty")]
    NoNonce,
    /// A response of which nobody knows how to take it.
    #[error("system_version_info: {0:?} says not how to take the response")]
    Extent(String),
    /// A state that comes in parts was interrupted.
    #[error("system_version_info: a change in the middle of a state that comes in parts")]
    Parts,
    /// More messages than anybody may send unanswered.
    #[error("too many messages without waiting for an answer")]
    Flood,
    /// Messages that say nothing, again and again.
    #[error("{} messages in a row changed nothing", limit::IDLE)]
    Idle,
    /// More than anybody needs to say.
    #[error("{field}: has {found} {what}, and may have {most}")]
    TooMuch {
        /// Where.
        field: &'static str,
        /// So many.
        found: usize,
        /// Of these.
        what: &'static str,
        /// And not more than this.
        most: usize,
    },
}

impl Broken {
    /// Refuses a name that is longer than any.
    pub(crate) const fn check_name(field: &'static str, name: &str) -> Result<(), Self> {
        if name.len() <= limit::NAME {
            return Ok(());
        }
        Err(Self::TooMuch { field, found: name.len(), what: "bytes", most: limit::NAME })
    }
}

/// What a control plane says about itself in the first requests of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Introduction {
    /// What it understands, of the features that the protocol knows.
    pub features: Features,
    /// Which program it is.
    pub version: KumaCpVersion,
    /// Its configuration as JSON, without secrets; global sends none.
    pub config: String,
    /// Which of its processes it is.
    pub instance: String,
}

const NODE_FEATURES: [(Feature, &str); 3] = [
    (Feature::HashSuffix, "hash-suffix"),
    (Feature::HostnameGeneratorMultiZone, "hg-mz-selector"),
    (Feature::ProducerPolicyFlow, "producer-policy-flow"),
];
// Announced by all, of no consequence.
const ZONE_TOKEN: &str = "zone-token";

/// The features that every control plane of ours announces to every peer.
#[must_use]
pub fn own_features() -> Features {
    NODE_FEATURES.iter().fold(Features::default(), |all, (feature, _)| all.with(*feature))
}

impl Introduction {
    /// The node of a first request on a stream of `zone`, whichever end sends it.
    #[must_use]
    pub fn node(&self, zone: &ZoneName) -> Node {
        let named = NODE_FEATURES.iter().filter(|(feature, _)| self.features.has(*feature));
        let features = named.map(|(_, name)| *name).chain([ZONE_TOKEN]).map(text).collect();
        let KumaCpVersion { version, git_tag, git_commit, build_date, .. } = &self.version;
        let version = [
            ("version", version),
            ("gitTag", git_tag),
            ("gitCommit", git_commit),
            ("buildDate", build_date),
        ];
        let version = version.into_iter().filter(|(_, value)| !value.is_empty());
        let version = structure(version.map(|(key, value)| (key, text(value))));
        let metadata = [
            ("version", structure([("kumaCp", version)])),
            ("config", text(&self.config)),
            ("control-plane-id", text(&self.instance)),
            ("features", Value { kind: Some(Of::ListValue(ListValue { values: features })) }),
        ];
        let metadata = metadata.into_iter().map(|(key, value)| (key.into(), value)).collect();
        let metadata = Some(Struct { fields: metadata });
        Node { id: zone.to_string(), metadata, ..Node::default() }
    }

    /// Reads what a node says; what is not there, of another type or too long is left empty.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let get = |key: &str| node.metadata.as_ref().and_then(|all| all.fields.get(key));
        let within = |most: usize, value: Option<&Value>| match value
            .and_then(|value| value.kind.as_ref())
        {
            Some(Of::StringValue(text)) if text.len() <= most => text.clone(),
            _ => String::new(),
        };
        let string = |value: Option<&Value>| within(limit::NAME, value);
        let fields = |value: Option<&Value>| match value.and_then(|value| value.kind.clone()) {
            Some(Of::StructValue(fields)) => fields.fields,
            _ => BTreeMap::new(),
        };
        let build = fields(fields(get("version")).get("kumaCp"));
        let build = |key: &str| string(build.get(key));
        let announced = match get("features").and_then(|value| value.kind.as_ref()) {
            Some(Of::ListValue(list)) => list.values.iter().map(|v| string(Some(v))).collect(),
            _ => Vec::new(),
        };
        let known = NODE_FEATURES.iter().filter(|(_, name)| announced.iter().any(|a| a == name));
        Self {
            features: known.fold(Features::default(), |all, (feature, _)| all.with(*feature)),
            version: KumaCpVersion {
                version: build("version"),
                git_tag: build("gitTag"),
                git_commit: build("gitCommit"),
                build_date: build("buildDate"),
                ..KumaCpVersion::default()
            },
            config: within(limit::CONFIG, get("config")),
            instance: string(get("control-plane-id")),
        }
    }
}

fn text(value: impl AsRef<str>) -> Value {
    Value { kind: Some(Of::StringValue(value.as_ref().into())) }
}

fn structure<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let fields = fields.into_iter().map(|(key, value)| (key.into(), value)).collect();
    Value { kind: Some(Of::StructValue(Struct { fields })) }
}

/// What a request says.
#[derive(Debug)]
pub enum Said {
    /// It asks for a kind.
    First(Start),
    /// It answers a response.
    Answered(Nonce, Answer, Refusals),
}

/// The first request of a stream for `kind`.
#[must_use]
pub fn first_request(node: Node, kind: &str, start: &Start) -> DeltaDiscoveryRequest {
    let versions = |held: &Versions| -> BTreeMap<String, String> {
        held.iter().map(|(name, version)| (name.to_string(), hex(*version))).collect()
    };
    let initial_resource_versions = match start {
        Start::Fresh => BTreeMap::new(),
        Start::Versions(held) => versions(held),
        Start::Resume { cursor, refused } => {
            let mut all = versions(refused);
            all.insert(CURSOR.into(), print_cursor(*cursor));
            all
        }
    };
    DeltaDiscoveryRequest {
        node: Some(node),
        type_url: kind.into(),
        resource_names_subscribe: vec![ALL.into()],
        initial_resource_versions,
        ..DeltaDiscoveryRequest::default()
    }
}

/// The answer to the response `nonce`: an ACK if nothing was refused.
#[must_use]
pub fn answer(
    zone: &ZoneName,
    kind: &str,
    nonce: &str,
    refused: &[Refusal],
) -> DeltaDiscoveryRequest {
    let nack = !refused.is_empty();
    DeltaDiscoveryRequest {
        node: Some(Node { id: zone.to_string(), ..Node::default() }),
        type_url: kind.into(),
        resource_names_subscribe: if nack { vec![ALL.into()] } else { Vec::new() },
        response_nonce: nonce.into(),
        error_detail: nack.then(|| Refusals::of(refused).to_status()),
        ..DeltaDiscoveryRequest::default()
    }
}

/// Reads a request of a stream of `zone`.
pub fn read_request(
    request: &DeltaDiscoveryRequest,
    zone: &ZoneName,
    dialect: Dialect,
) -> Result<Said, Broken> {
    let node = request.node.as_ref().ok_or(Broken::NoNode)?;
    if node.id != zone.as_str() {
        let found = cut(&node.id, limit::NAME).into();
        return Err(Broken::Node { found, expected: zone.clone() });
    }
    if !request.response_nonce.is_empty() {
        // A nonce that is none of ours answers nothing.
        let nonce = Nonce(request.response_nonce.parse().unwrap_or_default());
        let Some(status) = &request.error_detail else {
            return Ok(Said::Answered(nonce, Answer::Ack, Refusals::default()));
        };
        let refusals = Refusals::from_status(status);
        let answer = refusals.names().map_or(Answer::RefusedSome, Answer::Refused);
        return Ok(Said::Answered(nonce, answer, refusals));
    }
    if request.resource_names_subscribe.iter().any(|name| name != ALL) {
        return Err(Broken::Names);
    }
    let mut versions = Versions::new();
    let mut cursor = None;
    for (key, value) in &request.initial_resource_versions {
        let broken = || Broken::Start { key: key.clone(), value: cut(value, limit::NAME).into() };
        if key == CURSOR && dialect.has(Feature::Resume) {
            cursor = Some(parse_cursor(value).ok_or_else(broken)?);
        } else if let Some(version) = parse_hex(value) {
            versions.insert(key.as_str().into(), version);
        } else {
            // Held, but not as we have it: a version that no resource has.
            versions.insert(key.as_str().into(), delta::Version([0; 16]));
        }
    }
    Ok(Said::First(match cursor {
        Some(cursor) => Start::Resume { cursor, refused: versions },
        None if request.initial_resource_versions.is_empty() => Start::Fresh,
        None => Start::Versions(versions),
    }))
}

const ALL: &str = "*";
// Every name in transit has a dot, so this is none.
const CURSOR: &str = "atoll-cursor";

/// A response without its resources.
#[must_use]
pub fn head(
    kind: &str,
    identifier: &str,
    dialect: Dialect,
    response: &Response,
) -> DeltaDiscoveryResponse {
    let extent = dialect.says_extents().then(|| print_extent(response.extent, response.cursor));
    DeltaDiscoveryResponse {
        system_version_info: extent.unwrap_or_default(),
        removed_resources: response.removals.iter().map(|name| name.to_string()).collect(),
        ..empty(kind, identifier, response.nonce)
    }
}

/// A response that says nothing.
#[must_use]
pub fn empty(kind: &str, identifier: &str, Nonce(nonce): Nonce) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.into(),
        nonce: nonce.to_string(),
        control_plane: Some(ControlPlane { identifier: identifier.into() }),
        ..DeltaDiscoveryResponse::default()
    }
}

/// How to take a response, and where its receiver then is.
pub fn extent(
    response: &DeltaDiscoveryResponse,
    dialect: Dialect,
    first: bool,
) -> Result<(Extent, Option<Cursor>), Broken> {
    if dialect.says_extents() {
        let said = &response.system_version_info;
        return parse_extent(said).ok_or_else(|| Broken::Extent(cut(said, limit::NAME).into()));
    }
    Ok((if first { Extent::Complete } else { Extent::Delta }, None))
}

const EXTENTS: [(Extent, &str); 3] =
    [(Extent::Delta, "delta"), (Extent::Part, "part"), (Extent::Complete, "complete")];

fn print_extent(extent: Extent, cursor: Option<Cursor>) -> String {
    let word = EXTENTS.iter().find(|(known, _)| *known == extent).map_or("", |(_, word)| word);
    cursor.map_or_else(|| word.into(), |cursor| format!("{word} {}", print_cursor(cursor)))
}

fn parse_extent(text: &str) -> Option<(Extent, Option<Cursor>)> {
    let (word, cursor) = match text.split_once(' ') {
        Some((word, cursor)) => (word, Some(parse_cursor(cursor)?)),
        None => (text, None),
    };
    let (extent, _) = EXTENTS.iter().find(|(_, known)| *known == word)?;
    Some((*extent, cursor))
}

/// A place as text.
#[must_use]
pub fn print_cursor(Cursor { epoch, revision }: Cursor) -> String {
    format!("{epoch:x}/{revision}")
}

/// Reads what [`print_cursor`] wrote.
#[must_use]
pub fn parse_cursor(text: &str) -> Option<Cursor> {
    let (epoch, revision) = text.split_once('/')?;
    let epoch = u64::from_str_radix(epoch, 16).ok()?;
    Some(Cursor { epoch, revision: revision.parse().ok()? })
}
