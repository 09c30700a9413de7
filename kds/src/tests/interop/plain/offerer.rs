//! The role that offers.

use super::{Resources, wrapped};
use prost::Message;
use proto::{
    envoy::{
        config::core::v3::{ControlPlane, Node},
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
    },
    kuma::mesh::v1alpha1::KumaResource,
};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::{mpsc, watch};
use tonic::Streaming;

/// The role that offers.
pub(crate) struct Offerer {
    pub(crate) zone: String,
    pub(crate) identifier: String,
    pub(crate) resources: watch::Receiver<Resources>,
    /// NACKs that came, by kind.
    pub(crate) nacks: watch::Sender<Vec<(String, String)>>,
    /// The kinds that were asked for.
    pub(crate) asked: watch::Sender<BTreeSet<String>>,
    /// Who asked, as it says in its first requests.
    pub(crate) node: watch::Sender<Node>,
}

#[derive(Default)]
struct Returned {
    versions: BTreeMap<String, String>,
    /// A request waits for an answer.
    parked: bool,
}

impl Offerer {
    /// Offers until the stream ends.
    pub(crate) async fn run(
        mut self,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        responses: mpsc::Sender<DeltaDiscoveryResponse>,
    ) -> Result<(), tonic::Status> {
        let mut returned = BTreeMap::<String, Returned>::new();
        let mut nonce = 0;
        loop {
            let asked = tokio::select! {
                biased;
                request = requests.message() => match request? {
                    None => return Ok(()),
                    Some(request) => Some(self.asked(&request, &mut returned)),
                },
                changed = self.resources.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    None
                }
            };
            let all = self.resources.borrow_and_update().clone();
            for (kind, returned) in &mut returned {
                let first = asked.as_ref().is_some_and(|(of, first)| of == kind && *first);
                if !returned.parked {
                    continue;
                }
                let Some(response) = self.difference(kind, &all, returned, first) else { continue };
                nonce += 1;
                let response = DeltaDiscoveryResponse { nonce: nonce.to_string(), ..response };
                if responses.send(response).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    fn asked(
        &self,
        request: &DeltaDiscoveryRequest,
        returned: &mut BTreeMap<String, Returned>,
    ) -> (String, bool) {
        let node = request.node.as_ref().expect("a plain peer crashes without a node");
        assert_eq!(node.id, self.zone, "snapshots are found by it");
        let kind = request.type_url.clone();
        self.asked.send_if_modified(|asked| asked.insert(kind.clone()));
        let first = request.response_nonce.is_empty();
        if let Some(error) = &request.error_detail {
            let nack = (kind.clone(), error.message.clone());
            self.nacks.send_modify(|nacks| nacks.push(nack));
        }
        if !first && !returned.contains_key(&kind) {
            return (kind, false);
        }
        let of = returned.entry(kind.clone()).or_insert_with(|| {
            let metadata = node.metadata.as_ref().expect("metadata in each first request");
            assert!(metadata.fields.contains_key("features"), "{metadata:?}");
            let versions = request.initial_resource_versions.clone();
            self.node.send_replace(node.clone());
            Returned { versions, parked: false }
        });
        of.parked = true;
        (kind, first)
    }

    fn difference(
        &self,
        kind: &str,
        all: &Resources,
        returned: &mut Returned,
        first: bool,
    ) -> Option<DeltaDiscoveryResponse> {
        let now: BTreeMap<String, (String, &KumaResource)> = all
            .get(kind)
            .into_iter()
            .flatten()
            .map(|(name, resource)| (name.clone(), (version(resource), resource)))
            .collect();
        let changed =
            now.iter().filter(|(name, (version, _))| returned.versions.get(*name) != Some(version));
        let resources: Vec<Resource> =
            changed.map(|(_, (version, resource))| wrapped(version, resource)).collect();
        let removed_resources: Vec<String> =
            returned.versions.keys().filter(|name| !now.contains_key(*name)).cloned().collect();
        if resources.is_empty() && removed_resources.is_empty() && !first {
            return None;
        }
        returned.versions = now.into_iter().map(|(name, (version, _))| (name, version)).collect();
        returned.parked = false;
        Some(DeltaDiscoveryResponse {
            type_url: kind.into(),
            resources,
            removed_resources,
            control_plane: Some(ControlPlane { identifier: self.identifier.clone() }),
            ..DeltaDiscoveryResponse::default()
        })
    }
}

/// Says nothing but whether it is the same.
fn version(resource: &KumaResource) -> String {
    let bytes = resource.encode_to_vec();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}{:016x}{hash:016x}{hash:016x}", bytes.len())
}
