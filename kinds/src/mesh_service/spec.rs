use crate::{Condition, IntOrString, LabelSelector, dataplane};
use proto::kuma::mesh::v1alpha1::dataplane::networking::Inbound;
use resource::{Labels, cel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use xds::Protocol;

/// A service: the proxies that serve it and the ports it is called on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshService {
    /// Whether a proxy of it can serve; kept by its zone.
    #[serde(default)]
    pub state: State,
    /// Which proxies serve it.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub selector: Selector,
    /// The ports it is called on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Who its proxies are; kept by its zone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<Identity>,
}

/// Whether a proxy of a service can serve.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum State {
    /// At least one can.
    Available,
    /// None can.
    #[default]
    Unavailable,
}

/// Which proxies serve a service. One that says nothing selects none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    (
        "",
        "!(has(self.dataplaneRef) && has(self.dataplaneLabels))",
        "dataplaneRef and dataplaneLabels exclude each other",
    ),
])))]
pub struct Selector {
    /// One proxy by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplane_ref: Option<DataplaneRef>,
    /// Proxies by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplane_labels: Option<LabelSelector>,
}

impl Selector {
    /// Selects the proxies that have the label `key` with `value`.
    #[must_use]
    pub fn label(key: &str, value: &str) -> Self {
        let match_labels = [(key.to_owned(), value.to_owned())].into();
        let dataplane_labels = Some(LabelSelector { match_labels });
        Self { dataplane_ref: None, dataplane_labels }
    }

    /// Whether it selects the proxy called `name` with `labels`.
    #[must_use]
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        match (&self.dataplane_ref, &self.dataplane_labels) {
            (Some(proxy), _) => proxy.name == name,
            (None, Some(selector)) => selector.matches(labels),
            (None, None) => false,
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataplaneRef {
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// A port that a service is called on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The number that callers use.
    pub port: u32,
    /// The inbound of a proxy that serves it, by number or name; the same number if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<IntOrString>,
    /// What is spoken on it.
    #[serde(default = "tcp")]
    pub app_protocol: String,
}

fn tcp() -> String {
    "tcp".into()
}

impl Port {
    /// Its name in KRIs and policies: its name wherever it has one, else its number.
    #[must_use]
    pub fn section(&self) -> Cow<'_, str> {
        match self.name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => name.into(),
            None => self.port.to_string().into(),
        }
    }

    /// What is spoken on it; bytes if that is not known here.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.app_protocol.parse().unwrap_or_default()
    }

    /// Whether `inbound` serves it.
    #[must_use]
    pub fn is_served_by(&self, inbound: &Inbound) -> bool {
        match &self.target_port {
            Some(IntOrString::Int(port)) => u32::try_from(*port) == Ok(inbound.port),
            Some(IntOrString::String(name)) => *name == dataplane::section(inbound),
            None => self.port == inbound.port,
        }
    }
}

/// Who a proxy of the service is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Identity {
    /// What `value` is.
    #[serde(rename = "type")]
    pub kind: IdentityType,
    /// The identity.
    pub value: String,
}

/// The sorts of identities.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum IdentityType {
    /// A SPIFFE ID.
    #[serde(rename = "SpiffeID")]
    SpiffeId,
}

/// What a control plane knows about a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Its host names in this zone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// Its virtual addresses in this zone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<Vip>,
    /// Whether its proxies speak mTLS; told by its own zone.
    #[serde(default)]
    pub tls: Tls,
    /// How the generators of this zone named it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostname_generators: Vec<GeneratorConditions>,
    /// How many proxies it has; told by its own zone.
    #[serde(default)]
    pub dataplane_proxies: DataplaneProxies,
}

/// A host name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Who made it: [`GENERATED`], or the DNS of a Kubernetes cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// The generator, if one made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname_generator_ref: Option<GeneratorRef>,
}

/// The origin of host names that a generator made.
pub const GENERATED: &str = "HostnameGenerator";

/// Names a generator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GeneratorRef {
    /// Its name in this control plane.
    pub core_name: String,
}

/// A virtual address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Vip {
    /// The address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ip: String,
}

/// Whether proxies speak mTLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tls {
    /// Nothing is known without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TlsStatus>,
}

/// Whether proxies speak mTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsStatus {
    /// They do.
    Ready,
    /// Not all do.
    NotReady,
}

/// How many proxies there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataplaneProxies {
    /// Connected to their control plane.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub connected: u32,
    /// Able to serve.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub healthy: u32,
    /// Known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub total: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What became of a generator's attempt to name a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GeneratorConditions {
    /// The generator.
    pub hostname_generator_ref: GeneratorRef,
    /// What became of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
