//! What a beacon says of an Envoy that answers, hangs, comes back, and goes.

use super::{
    streams::{ask, ours},
    world::*,
};
use crate::beacons::Own;
use api::freshness::{Stage, Zone};
use kds::limit::{BEACON, STALE};
use kinds::beacon;
use proto::{
    atoll::proxy::v1::{Leaving, from_proxy},
    envoy::service::discovery::v3::DeltaDiscoveryRequest,
};
use resource::ResourceKey;
use serde_json::json;
use tokio::time::timeout;
use tonic::Code;
use xds::Type;

struct West {
    world: World,
    number: u64,
}

impl West {
    /// So many beacons come; this Envoy takes all it is sent.
    async fn beats(&mut self, times: u64, mut envoy: Option<&mut Envoy>) {
        for _ in 0..times {
            self.number += 1;
            let spec = json!({ "number": self.number });
            let (kind, row) = row(beacon::KIND, ResourceKey::global(beacon::NAME), spec);
            self.world.put(kind, row).await;
            self.world.dataplanes.desk.meshes.beacons().stored(self.number);
            timeout(BEACON, take(envoy.as_deref_mut())).await.unwrap_err();
        }
    }

    async fn envoy(&self) -> Envoy {
        let first = ask(Some(ours("shop.web-1")), Type::Listener);
        self.world.envoy(&token(&claims()), first).await.unwrap()
    }

    fn stages(&self) -> Vec<Stage> {
        self.shown().stages.iter().map(|age| age.stage).collect()
    }

    fn late(&self) -> Option<Stage> {
        self.shown().late
    }

    fn shown(&self) -> Zone {
        let beacons = self.world.dataplanes.desk.meshes.beacons().clone();
        let own = Own { zone: "west".parse().unwrap(), beacons, global: None };
        Zone::of("west", &own.stages(), STALE)
    }
}

async fn take(envoy: Option<&mut Envoy>) {
    let Some(envoy) = envoy else { return std::future::pending().await };
    while let Ok(Some(response)) = envoy.stream.message().await {
        let taken = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        envoy.to_zone.send(taken).await.unwrap();
    }
    std::future::pending().await
}

/// The zone and a proxy whose Envoy answered.
async fn west() -> (West, Session, Envoy) {
    let mut west = West { world: World::new().await, number: 0 };
    let session = west.world.session(&token(&claims()), hello(&web("web-1"))).await.unwrap();
    west.beats(1, None).await;
    assert_eq!(west.stages(), [Stage::Zone, Stage::Tables]);
    let mut envoy = west.envoy().await;
    west.beats(3, Some(&mut envoy)).await;
    assert_eq!((west.stages().pop(), west.late()), (Some(Stage::Proxy), None));
    (west, session, envoy)
}

#[tokio::test(start_paused = true)]
async fn an_envoy_that_hangs_stays_late_when_it_is_given_up_until_it_answers() {
    let (mut west, _session, mut envoy) = west().await;
    west.beats(3, None).await;
    assert_eq!(west.late(), Some(Stage::Proxy));
    let ended = loop {
        if let Err(ended) = envoy.next().await {
            break ended;
        }
    };
    assert_eq!(ended.code(), Code::DeadlineExceeded, "its stream is given up");
    west.beats(30, None).await;
    assert_eq!(west.late(), Some(Stage::Proxy), "and it hangs still");
    let mut envoy = west.envoy().await;
    west.beats(1, Some(&mut envoy)).await;
    assert_eq!((west.stages().pop(), west.late()), (Some(Stage::Proxy), None));
}

#[tokio::test(start_paused = true)]
async fn an_envoy_that_vanishes_is_late_and_one_whose_proxy_leaves_is_not() {
    let (mut west, session, envoy) = west().await;
    drop(envoy);
    west.beats(3, None).await;
    assert_eq!(west.late(), Some(Stage::Proxy), "its proxy is there and has none");
    let mut envoy = west.envoy().await;
    west.beats(1, Some(&mut envoy)).await;
    assert_eq!(west.late(), None);
    session.say(from_proxy::Message::Leaving(Leaving {})).await;
    // It drains, and is asked.
    west.beats(3, Some(&mut envoy)).await;
    drop((session, envoy));
    west.beats(4, None).await;
    assert_eq!((west.stages(), west.late()), (vec![Stage::Zone, Stage::Tables], None));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_vanishes_as_a_whole_owes_nothing_once_it_is_withdrawn() {
    let (mut west, session, envoy) = west().await;
    drop((session, envoy));
    west.beats(4, None).await;
    assert_eq!(west.world.dataplanes(), [""; 0]);
    assert_eq!((west.stages(), west.late()), (vec![Stage::Zone, Stage::Tables], None));
}
