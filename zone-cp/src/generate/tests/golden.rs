//! Compares what is generated with files that people read. `make bless` writes them anew.

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, SerializeOptions};
use proto::envoy::{
    config::{
        cluster::v3::Cluster, core::v3::TypedExtensionConfig, endpoint::v3::ClusterLoadAssignment,
        listener::v3::Listener, route::v3::RouteConfiguration,
    },
    extensions::transport_sockets::tls::v3::Secret,
    service::runtime::v3::Runtime,
};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// What a proxy gets, by type.
#[derive(Default)]
pub(super) struct Resources {
    pub(super) listeners: Vec<Listener>,
    pub(super) routes: Vec<RouteConfiguration>,
    pub(super) clusters: Vec<Cluster>,
    pub(super) endpoints: Vec<ClusterLoadAssignment>,
    pub(super) secrets: Vec<Secret>,
    pub(super) extensions: Vec<TypedExtensionConfig>,
    pub(super) runtime: Vec<Runtime>,
}

/// Compares with `testdata/<name>.yaml`.
pub(super) fn check(name: &str, resources: &Resources) {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "src/generate/testdata", &format!("{name}.yaml")]
            .iter()
            .collect();
    let made = yaml(resources);
    if bless() {
        std::fs::write(&path, &made).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(made == golden, "{} is not what is generated:\n{made}", path.display());
}

#[expect(clippy::disallowed_methods, reason = "a test, and `make` says so by a variable")]
fn bless() -> bool {
    std::env::var("BLESS").is_ok()
}

fn yaml(resources: &Resources) -> String {
    let Resources { listeners, routes, clusters, endpoints, secrets, extensions, runtime } =
        resources;
    let all = [
        ("listeners", json(listeners)),
        ("routes", json(routes)),
        ("clusters", json(clusters)),
        ("endpoints", json(endpoints)),
        ("secrets", json(secrets)),
        ("extensions", json(extensions)),
        ("runtime", json(runtime)),
    ];
    let all: Map<String, Value> = all
        .into_iter()
        .filter(|(_, values)| values.as_array().is_some_and(|values| !values.is_empty()))
        .map(|(name, values)| (name.to_owned(), values))
        .collect();
    serde_saphyr::to_string(&all).unwrap()
}

fn json<M: Message + Name>(messages: &[M]) -> Value {
    messages.iter().map(one).collect()
}

fn one<M: Message + Name>(message: &M) -> Value {
    let descriptor = proto::descriptors().get_message_by_name(&M::full_name()).unwrap();
    let message = DynamicMessage::decode(descriptor, &*message.encode_to_vec()).unwrap();
    let options = SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}
