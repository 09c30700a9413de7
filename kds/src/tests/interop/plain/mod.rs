//! Control planes as plain as can be: written from the description of the protocol alone. They share
//! nothing with what they test but the generated messages.
//!
//! [`Asker`] and [`Offerer`] are the two roles; a plain zone asks on one stream and offers on the
//! other, a plain global the other way round.

mod global;
mod offerer;
mod zone;

pub(crate) use self::{
    global::PlainGlobal,
    offerer::Offerer,
    zone::{PlainZone, with_headers},
};

use prost::Message;
use prost_types::{Any, ListValue, Struct, Value, value::Kind};
use proto::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
    },
    google::rpc::Status,
    kuma::mesh::v1alpha1::{KumaResource, kuma_resource::Meta},
};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::{mpsc, watch};
use tonic::Streaming;

/// The kinds that a plain zone asks for.
pub(crate) const ZONE_ASKS: [&str; 29] = [
    "Config",
    "GlobalSecret",
    "HostnameGenerator",
    "Mesh",
    "MeshAccessLog",
    "MeshCircuitBreaker",
    "MeshExternalService",
    "MeshFaultInjection",
    "MeshHTTPRoute",
    "MeshHealthCheck",
    "MeshIdentity",
    "MeshLoadBalancingStrategy",
    "MeshMetric",
    "MeshMultiZoneService",
    "MeshOpenTelemetryBackend",
    "MeshPassthrough",
    "MeshProxyPatch",
    "MeshRateLimit",
    "MeshRetry",
    "MeshService",
    "MeshTCPRoute",
    "MeshTLS",
    "MeshTimeout",
    "MeshTrace",
    "MeshTrafficPermission",
    "MeshTrust",
    "MeshZoneAddress",
    "Secret",
    "ServiceInsight",
];

/// The kinds that a plain global asks for.
pub(crate) const GLOBAL_ASKS: [&str; 26] = [
    "Dataplane",
    "DataplaneInsight",
    "HostnameGenerator",
    "MeshAccessLog",
    "MeshCircuitBreaker",
    "MeshExternalService",
    "MeshFaultInjection",
    "MeshHTTPRoute",
    "MeshHealthCheck",
    "MeshIdentity",
    "MeshLoadBalancingStrategy",
    "MeshMetric",
    "MeshOpenTelemetryBackend",
    "MeshPassthrough",
    "MeshProxyPatch",
    "MeshRateLimit",
    "MeshRetry",
    "MeshService",
    "MeshTCPRoute",
    "MeshTLS",
    "MeshTimeout",
    "MeshTrace",
    "MeshTrafficPermission",
    "MeshTrust",
    "MeshZoneAddress",
    "Workload",
];

/// Resources by kind and by `<name>.<mesh>`.
pub(crate) type Resources = BTreeMap<String, BTreeMap<String, KumaResource>>;

/// A resource; `spec` is JSON, or the bytes of the message that `spec_type` names.
pub(crate) fn resource(
    name: &str,
    mesh: &str,
    labels: &[(&str, &str)],
    (spec_type, spec): (&str, &[u8]),
) -> KumaResource {
    let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let meta = Meta { name: name.into(), mesh: mesh.into(), version: String::new(), labels };
    let type_url = match spec_type {
        "" => String::new(),
        name => format!("type.googleapis.com/{name}"),
    };
    KumaResource {
        meta: Some(meta),
        spec: Some(Any { type_url, value: spec.into() }),
        status: None,
    }
}

/// The name of a resource on a stream.
pub(crate) fn name_of(resource: &KumaResource) -> String {
    let meta = resource.meta.as_ref().unwrap();
    format!("{}.{}", meta.name, meta.mesh)
}

/// The node of a first request.
pub(crate) fn first_node(zone: &str) -> Node {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.into())) };
    let features = ["zone-token", "hash-suffix", "hg-mz-selector", "producer-policy-flow"];
    let features = ListValue { values: features.into_iter().map(text).collect() };
    let cp = [("version".into(), text("unknown"))].into();
    let cp = Value { kind: Some(Kind::StructValue(Struct { fields: cp })) };
    let version = Struct { fields: [("kumaCp".into(), cp)].into() };
    let fields = [
        ("config".into(), text(r#"{"store":{"type":"memory"}}"#)),
        ("control-plane-id".into(), text("host-1234")),
        ("features".into(), Value { kind: Some(Kind::ListValue(features)) }),
        ("version".into(), Value { kind: Some(Kind::StructValue(version)) }),
    ];
    let metadata = Some(Struct { fields: fields.into() });
    Node { id: zone.into(), metadata, ..Node::default() }
}

pub(crate) fn node(zone: &str) -> Node {
    Node { id: zone.into(), ..Node::default() }
}

pub(crate) fn first_request(zone: &str, kind: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(first_node(zone)),
        type_url: kind.into(),
        resource_names_subscribe: vec!["*".into()],
        ..DeltaDiscoveryRequest::default()
    }
}

/// An ACK, or a NACK that says why.
pub(crate) fn answer(
    zone: &str,
    kind: &str,
    nonce: &str,
    why: Option<&str>,
) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(node(zone)),
        type_url: kind.into(),
        resource_names_subscribe: why.iter().map(|_| "*".into()).collect(),
        response_nonce: nonce.into(),
        error_detail: why.map(|why| Status { message: why.into(), ..Status::default() }),
        ..DeltaDiscoveryRequest::default()
    }
}

/// A resource as it stands in a response.
pub(crate) fn wrapped(version: &str, resource: &KumaResource) -> Resource {
    Resource {
        name: name_of(resource),
        version: version.into(),
        resource: Some(Any {
            type_url: "type.googleapis.com/kuma.mesh.v1alpha1.KumaResource".into(),
            value: resource.encode_to_vec(),
        }),
        ..Resource::default()
    }
}

/// Reads a resource of a response; panics where a plain peer would end the stream.
fn unwrapped(resource: &Resource) -> KumaResource {
    let any = resource.resource.as_ref().expect("a resource");
    assert_eq!(any.type_url, "type.googleapis.com/kuma.mesh.v1alpha1.KumaResource");
    let read = KumaResource::decode(&*any.value).expect("a KumaResource");
    assert!(read.meta.is_some() && read.spec.is_some(), "{read:?}");
    assert_eq!(resource.name, name_of(&read));
    read
}

/// Whether a plain peer takes a resource, or what it says.
pub(crate) type Judge = fn(&str, &KumaResource) -> Result<(), String>;

/// The role that asks.
pub(crate) struct Asker {
    pub(crate) zone: String,
    pub(crate) kinds: Vec<&'static str>,
    pub(crate) held: watch::Sender<Resources>,
    pub(crate) judge: Judge,
}

impl Asker {
    /// Asks until the stream ends.
    pub(crate) async fn run(
        self,
        requests: mpsc::Sender<DeltaDiscoveryRequest>,
        mut responses: Streaming<DeltaDiscoveryResponse>,
    ) -> Result<(), tonic::Status> {
        let mut first: BTreeSet<&str> = self.kinds.iter().copied().collect();
        while let Some(response) = responses.message().await? {
            let kind = response.type_url.clone();
            assert!(self.kinds.contains(&&*kind), "{kind} was not asked for");
            assert!(!response.nonce.is_empty());
            assert_eq!(response.system_version_info, "", "what only our own understand");
            let complete = first.remove(&*kind);
            let why = self.apply(&response, complete);
            let answer = answer(&self.zone, &kind, &response.nonce, why.as_deref());
            if requests.send(answer).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, response: &DeltaDiscoveryResponse, complete: bool) -> Option<String> {
        let mut refused = Vec::new();
        self.held.send_modify(|held| {
            let held = held.entry(response.type_url.clone()).or_default();
            let mut named = BTreeSet::new();
            for resource in &response.resources {
                let read = unwrapped(resource);
                named.insert(resource.name.clone());
                match (self.judge)(&response.type_url, &read) {
                    Ok(()) => drop(held.insert(resource.name.clone(), read)),
                    Err(why) => refused.push(why),
                }
            }
            held.retain(|name, _| {
                let removed = response.removed_resources.contains(name);
                named.contains(name) || !(complete || removed)
            });
        });
        (!refused.is_empty()).then(|| refused.join("\n"))
    }
}
