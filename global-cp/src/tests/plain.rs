//! Plain zones, and what becomes of the others when one of them is disabled, enabled and deleted.

use super::{Global, PATIENCE, config};
use http::Method;
use hyper_util::rt::TokioIo;
use identity::tls::{Alpn, client_config, connect};
use proto::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
    },
    kuma::mesh::v1alpha1::{
        KumaResource, kds_sync_service_client::KdsSyncServiceClient, kuma_resource::Meta,
    },
};
use serde_json::json;
use std::{collections::BTreeSet, fs};
use store::StoreKind;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status, Streaming,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

const KIND: &str = "MeshService";

type Client = KdsSyncServiceClient<Channel>;

async fn client(global: &Global) -> Client {
    let ca = fs::read_to_string(global.config.data_dir.join("tls/ca.crt")).unwrap();
    let (tls, port) = (client_config(&ca, None, Alpn::Grpc).unwrap(), global.addresses.kds.port());
    let dial = move |_| {
        let tls = tls.clone();
        async move { connect(tls, "localhost", port).await.map(TokioIo::new) }
    };
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(tower::service_fn(dial)).await.unwrap();
    KdsSyncServiceClient::new(channel)
}

fn call<T: Send>(zone: &str) -> (mpsc::Sender<T>, Request<ReceiverStream<T>>) {
    let (sender, outgoing) = mpsc::channel(8);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    request.metadata_mut().insert("client-id", zone.parse().unwrap());
    request.metadata_mut().append("features", MetadataValue::from_static("hash-suffix"));
    (sender, request)
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    timeout(PATIENCE, stream.message()).await.expect("a message").unwrap().expect("a message")
}

/// A zone that has one service as long as this is not dropped.
struct Serving {
    _responses: mpsc::Sender<DeltaDiscoveryResponse>,
    _requests: Streaming<DeltaDiscoveryRequest>,
}

async fn serve(client: &mut Client, zone: &str) -> Result<Serving, Status> {
    let (responses, request) = call(zone);
    let mut requests = client.zone_to_global_sync(request).await?.into_inner();
    let labels = [("kuma.io/origin", "zone"), ("kuma.io/zone", zone)];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let meta = Meta { name: "web".into(), mesh: "default".into(), labels, ..Meta::default() };
    let spec = json!({ "state": "Available", "ports": [{ "port": 80 }] }).to_string().into();
    let spec = Some(prost_types::Any { type_url: String::new(), value: spec });
    let service = KumaResource { meta: Some(meta), spec, status: None };
    let response = DeltaDiscoveryResponse {
        type_url: KIND.into(),
        nonce: "1".into(),
        resources: vec![Resource {
            name: "web.default".into(),
            resource: Some(proto::pack(&service)),
            ..Resource::default()
        }],
        ..DeltaDiscoveryResponse::default()
    };
    responses.send(response).await.unwrap();
    let answer = loop {
        let request = next(&mut requests).await;
        if !request.response_nonce.is_empty() {
            break request;
        }
    };
    assert_eq!(answer.error_detail, None);
    Ok(Serving { _responses: responses, _requests: requests })
}

/// A zone that wants to know of services.
struct Asking {
    zone: &'static str,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    services: BTreeSet<String>,
}

impl Asking {
    async fn begin(client: &mut Client, zone: &'static str) -> Result<Self, Status> {
        let (requests, request) = call(zone);
        let responses = client.global_to_zone_sync(request).await?.into_inner();
        let asking = Self { zone, requests, responses, services: BTreeSet::new() };
        asking.says("").await;
        Ok(asking)
    }

    async fn says(&self, nonce: &str) {
        let node = Node { id: self.zone.into(), ..Node::default() };
        let request = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: KIND.into(),
            response_nonce: nonce.into(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    /// Waits until there are so many services.
    async fn until(&mut self, count: usize) {
        while self.services.len() != count {
            let response = next(&mut self.responses).await;
            self.services.extend(response.resources.into_iter().map(|one| one.name));
            self.services.retain(|name| !response.removed_resources.contains(name));
            self.says(&response.nonce).await;
        }
    }
}

#[tokio::test]
async fn what_a_plain_zone_has_is_seen_by_others_while_it_is_enabled_and_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    settings.store.kind = StoreKind::Memory;
    settings.kds.plain_zones = vec!["east".into(), "west".into()];
    let global = Global::start(settings).await;
    let mut east = client(&global).await;
    let mut client = client(&global).await;
    let refused = Asking::begin(&mut client, "south").await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "only who is named need not show a token");

    let serving = serve(&mut east, "east").await.unwrap();
    let mut west = Asking::begin(&mut client, "west").await.unwrap();
    west.until(1).await;
    let put = |enabled: bool| {
        let zone = json!({ "type": "Zone", "name": "east", "enabled": enabled });
        global.admin(Method::PUT, "/zones/east", Some(zone))
    };
    assert_eq!(put(false).await.0, 200);
    west.until(0).await;
    assert_eq!(put(true).await.0, 200);
    west.until(1).await;

    drop((serving, east));
    west.says("no number").await;
    assert_eq!(global.admin(Method::DELETE, "/zones/east", None).await.0, 200);
    west.until(0).await;
    let refused = serve(&mut client, "east").await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "who was deleted stays out");
    let metrics = global.metrics().await;
    for line in [
        r#"kds_calls_refused_total{reason="unauthenticated"} 1"#,
        r#"kds_calls_refused_total{reason="denied"} 1"#,
        r#"kds_streams_ended_total{reason=""#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }

    // What went over the stream is shown with the zone.
    let stat = || async {
        let overview = global.get("/zones/west/_overview").await;
        let subscription = &overview["zoneInsight"]["subscriptions"][0];
        assert!(!subscription["authTokenProvided"].as_bool().unwrap_or_default());
        subscription["status"]["stat"][KIND].clone()
    };
    let id = global.kinds.id_of("ZoneInsight").unwrap();
    global
        .until("ZoneInsight", |reader| {
            let row = reader.get(id, &resource::ResourceKey::global("west"));
            let insight = row.map(|row| kinds::read::<kinds::zone_insight::ZoneInsight>(&row));
            let all = insight.and_then(Result::ok).map(|insight| insight.0.subscriptions.clone());
            let stats = all.and_then(|all| all.first()?.status.clone()?.stat.get(KIND).copied());
            stats.is_some_and(|stats| stats.responses_acknowledged >= 4)
        })
        .await;
    let stat = stat().await;
    assert_eq!(stat["responsesSent"], stat["responsesAcknowledged"], "a stray answer is none");
    assert_eq!(stat["responsesRejected"].as_u64().unwrap_or_default(), 0);
    drop(west);
    global.stop().await;
}
