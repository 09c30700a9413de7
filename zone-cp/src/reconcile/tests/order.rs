//! What an Envoy is sent, in which order: the tables and a stream together.

use super::*;
use crate::reconcile::Traits;
use proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use serde_json::json;
use xds::{
    Type::{self, *},
    ads::{Event, Session},
    names,
};

const HTTP: &str = "self_inbound_dp_http";
const TCP: &str = "self_inbound_dp_tcp";
const IDENTITY: &str = "kri_mid_shop___identity_";

type Sent = (Type, Vec<String>);

fn sent(kind: Type, names: &[&str]) -> Sent {
    (kind, names.iter().map(|name| (*name).to_owned()).collect())
}

/// An Envoy that takes what it is sent, and asks for what its listeners name.
struct Envoy {
    session: Session,
    stream: Stream,
}

impl Envoy {
    fn started(stream: Stream) -> Self {
        let mut envoy = Self { session: Session::default(), stream };
        envoy.asks(Runtime, &[names::RUNTIME]);
        envoy.asks(Cluster, &[]);
        envoy.asks(Listener, &[]);
        envoy
    }

    fn asks(&mut self, kind: Type, names: &[&str]) {
        self.requests(DeltaDiscoveryRequest {
            type_url: kind.url().into(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        });
    }

    fn requests(&mut self, request: DeltaDiscoveryRequest) {
        self.session.request(request, &*self.stream.source).unwrap();
    }

    /// Everything that it is sent now.
    fn settle(&mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        loop {
            self.session.mark(self.stream.changes.take());
            let Some((_, event)) = self.session.next(&*self.stream.source, &self.stream.changes)
            else {
                return all;
            };
            let Event::Sent { kind, update } = event else { panic!("{event:?}") };
            let upserts = update.upserts.iter().map(|item| item.name.to_string());
            let removals = update.removals.iter().map(|name| format!("-{name}"));
            let names: Vec<String> = upserts.chain(removals).collect();
            self.requests(DeltaDiscoveryRequest {
                type_url: kind.url().into(),
                response_nonce: update.nonce.0.to_string(),
                ..DeltaDiscoveryRequest::default()
            });
            if kind == Listener {
                self.asks_for_details(&names);
            }
            all.push((kind, names));
        }
    }

    fn asks_for_details(&mut self, listeners: &[String]) {
        for listener in listeners {
            match &**listener {
                HTTP => self.asks(Route, &[HTTP]),
                TCP => {
                    self.asks(Secret, &[TCP]);
                    self.asks(Extension, &[TCP]);
                }
                _ => continue,
            }
            self.asks(Secret, &[IDENTITY, names::TRUST_BUNDLE]);
        }
    }
}

#[test]
fn who_comes_before_its_certificate_gets_nothing_at_once_and_then_all_in_order() {
    let cart = sidecar("cart", 1, json!([http(8080), tcp(9000)]));
    let mut zone = Zone::of(&[cart.clone(), permission("all", &["spiffe://shop/web"])]);
    let stream = zone.connect_as("cart-1", Traits::default()).unwrap();
    let mut envoy = Envoy::started(stream);
    let nothing = [sent(Cluster, &[]), sent(Listener, &[]), sent(Runtime, &[names::RUNTIME])];
    assert_eq!(envoy.settle(), nothing, "an empty answer is one: Envoy waits for no other");

    zone.certified.issued.lock().insert("cart-1".into(), issued("cart-1", 1));
    zone.meshes.reidentify(&cart.key());
    zone.settle();
    let all = [
        sent(Cluster, &[HTTP, TCP]),
        sent(Listener, &[HTTP, TCP]),
        sent(Secret, &[IDENTITY, TCP, names::TRUST_BUNDLE]),
        sent(Extension, &[TCP]),
        sent(Route, &[HTTP]),
    ];
    assert_eq!(envoy.settle(), all);

    // Another certificate of the same identity is one secret.
    zone.certified.issued.lock().insert("cart-1".into(), issued("cart-1", 2));
    zone.meshes.reidentify(&cart.key());
    zone.settle();
    assert_eq!(envoy.settle(), [sent(Secret, &[IDENTITY])]);
}
