//! Messages that were captured between running control planes: what they say, and their bytes.
//!
//! `testdata/kds.jsonl` has one message a line: its bytes as another implementation writes them, in
//! the order of field numbers and map keys, and its content.

use crate::{
    descriptors,
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
    kuma::mesh::v1alpha1::{self as kuma, KumaResource},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost::{Message, Name};
use prost_reflect::DynamicMessage;
use prost_types::Any;
use serde_json::{Value, json};

fn captures() -> Vec<Value> {
    let text = include_str!("../testdata/kds.jsonl");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bytes(capture: &Value) -> Vec<u8> {
    STANDARD.decode(capture["bytes"].as_str().unwrap()).unwrap()
}

/// A message as JSON, by its descriptor.
fn json_of(name: &str, bytes: &[u8]) -> Value {
    let descriptor = descriptors().get_message_by_name(name).unwrap();
    serde_json::to_value(DynamicMessage::decode(descriptor, bytes).unwrap()).unwrap()
}

fn any(any: &Any) -> Value {
    match any.type_url.rsplit_once('/') {
        None => json!({ "type": "", "text": String::from_utf8(any.value.clone()).unwrap() }),
        Some((_, name)) => json!({ "type": any.type_url, "json": json_of(name, &any.value) }),
    }
}

fn resource(resource: &Resource) -> Value {
    let wrapped = resource.resource.clone().unwrap();
    let inner = KumaResource::decode(&*wrapped.value).unwrap();
    assert_eq!(inner.encode_to_vec(), wrapped.value, "{}", resource.name);
    let meta = inner.meta.clone().unwrap();
    json!({
        "name": resource.name,
        "version": resource.version,
        "wrapper": wrapped.type_url,
        "meta": { "name": meta.name, "mesh": meta.mesh, "labels": meta.labels },
        "spec": inner.spec.as_ref().map(any),
        "status": inner.status.as_ref().map(any),
    })
}

fn response(response: &DeltaDiscoveryResponse) -> Value {
    json!({
        "typeUrl": response.type_url,
        "nonce": response.nonce,
        "identifier": response.control_plane.clone().unwrap().identifier,
        "resources": response.resources.iter().map(resource).collect::<Vec<_>>(),
        "removed": response.removed_resources,
    })
}

fn request(request: &DeltaDiscoveryRequest) -> Value {
    let node = request.node.clone().unwrap();
    let metadata = node.metadata;
    json!({
        "id": node.id,
        "metadata": metadata.map(|it| json_of("google.protobuf.Struct", &it.encode_to_vec())),
        "typeUrl": request.type_url,
        "subscribe": request.resource_names_subscribe,
        "versions": request.initial_resource_versions,
        "nonce": request.response_nonce,
        "error": request.error_detail.as_ref().map(|error| &error.message),
    })
}

/// Decodes a message as the generated type and writes it again.
fn round_trip<M: Message + Name + Default>(bytes: &[u8]) -> (M, Vec<u8>) {
    let message = M::decode(bytes).unwrap();
    let again = message.encode_to_vec();
    (message, again)
}

fn plain<M: Message + Name + Default>(bytes: &[u8]) -> (Value, Vec<u8>) {
    let (_, again) = round_trip::<M>(bytes);
    (json_of(&M::full_name(), &again), again)
}

#[test]
fn captured_messages_are_read_and_written_as_they_were() {
    let captures = captures();
    assert_eq!(captures.len(), 83);
    for (line, capture) in captures.iter().enumerate() {
        let bytes = bytes(capture);
        let name = capture["type"].as_str().unwrap();
        let (_, short) = name.rsplit_once('.').unwrap();
        let (value, again) = match short {
            "DeltaDiscoveryRequest" => {
                let (message, again) = round_trip(&bytes);
                (request(&message), again)
            }
            "DeltaDiscoveryResponse" => {
                let (message, again) = round_trip(&bytes);
                (response(&message), again)
            }
            "ZoneHealthCheckRequest" => plain::<kuma::ZoneHealthCheckRequest>(&bytes),
            "ZoneHealthCheckResponse" => plain::<kuma::ZoneHealthCheckResponse>(&bytes),
            "XDSConfigRequest" => plain::<kuma::XdsConfigRequest>(&bytes),
            "XDSConfigResponse" => plain::<kuma::XdsConfigResponse>(&bytes),
            "StatsRequest" => plain::<kuma::StatsRequest>(&bytes),
            "StatsResponse" => plain::<kuma::StatsResponse>(&bytes),
            "ClustersRequest" => plain::<kuma::ClustersRequest>(&bytes),
            "ClustersResponse" => plain::<kuma::ClustersResponse>(&bytes),
            other => panic!("line {}: what is a {other}?", line + 1),
        };
        assert_eq!(value, capture["value"], "line {}", line + 1);
        assert_eq!(again, bytes, "line {}", line + 1);
    }
}
