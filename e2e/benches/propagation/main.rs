//! How long a change takes from the REST API of global, or of a zone, to an Envoy.
//!
//! Real programs and real Envoys: global, the zones west and east, in each an ingress and a sidecar,
//! on this machine's loopback; no rights are needed. One change after the other: the next begins
//! when the one before has arrived.
//!
//! Time begins before the request is sent, on a connection that is open. It ends when the zone's
//! control plane has read Envoy's ACK and said so in its log (at debug), which is read from a pipe:
//! nobody polls.

mod world;

use anyhow::Result;
use e2e::figures::{percentiles, report};
use serde_json::json;
use std::time::{Duration, Instant};
use world::{Observed, World};

const CHANGES: usize = 500;
const SERVICES: usize = 50;

fn main() -> Result<()> {
    // Set already when several clients are made.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let world = World::start()?;
    for zone in [&world.west, &world.east] {
        zone.settle();
    }
    show("policy-put-to-envoy-ack", permissions(&world)?);
    show("timeout-put-to-envoy-ack", timeouts(&world)?);
    show("new-service-to-other-zone-ack", services(&world)?);
    Ok(())
}

/// A MeshTrafficPermission of cart is put on global, with another caller each time, until east's
/// Envoy has acknowledged the routes of cart's inbound, where permissions of HTTP are.
fn permissions(world: &World) -> Result<Vec<Duration>> {
    let path = "/meshes/default/meshtrafficpermissions/cart";
    let measure = |n| {
        let caller = format!("spiffe://default.west.mesh.local/workload/caller-{n}");
        let policy = json!({
            "type": "MeshTrafficPermission", "mesh": "default", "name": "cart",
            "spec": {
                "targetRef": { "kind": "Dataplane", "labels": { "kuma.io/workload": "cart" } },
                "rules": [{ "default": {
                    "allow": [{ "spiffeID": { "type": "Exact", "value": caller } }],
                } }],
            },
        });
        let start = now();
        world.global.put(path, &policy)?;
        arrives(&world.east, "cart-1", &["Route"], "", start)
    };
    (0..CHANGES).map(measure).collect()
}

/// A MeshTimeout for calls to cart is put on global, with another connection timeout each time,
/// until west's Envoy has acknowledged the cluster of cart. It does so when the cluster is warm:
/// after it has the endpoints and secrets of the cluster again.
fn timeouts(world: &World) -> Result<Vec<Duration>> {
    let path = "/meshes/default/meshtimeouts/to-cart";
    let measure = |n| {
        let policy = json!({
            "type": "MeshTimeout", "mesh": "default", "name": "to-cart",
            "spec": { "to": [{
                "targetRef": { "kind": "MeshService", "labels": { "kuma.io/display-name": "cart" } },
                "default": { "connectionTimeout": format!("{}ms", 1_000 + n) },
            }] },
        });
        let start = now();
        world.global.put(path, &policy)?;
        arrives(&world.west, "web-1", &["Cluster", "Endpoint"], "_cart_", start)
    };
    (0..CHANGES).map(measure).collect()
}

/// The first Dataplane of a new service is put on east's control plane, until west's Envoy has
/// acknowledged both the service's cluster and its endpoints, which are east's ingress. On the way
/// are the service that east makes of it, its way to west by global, and the address that west gives
/// it. The Dataplane has no proxy: nothing between here and west looks at one.
fn services(world: &World) -> Result<Vec<Duration>> {
    let measure = |n: usize| {
        let (service, last) = (format!("service-{n}"), n + 20);
        let dataplane = json!({
            "type": "Dataplane", "mesh": "default", "name": format!("{service}-1"),
            "labels": { "kuma.io/workload": service },
            "networking": {
                "address": format!("127.78.2.{last}"),
                "inbound": [{ "name": "http", "port": 8080, "protocol": "http" }],
            },
        });
        let path = format!("/meshes/default/dataplanes/{service}-1");
        let start = now();
        world.east.control_plane.put(&path, &dataplane)?;
        arrives(&world.west, "web-1", &["Cluster", "Endpoint"], &format!("_{service}_"), start)
    };
    let figures = (0..SERVICES).map(measure).collect();
    world.west.settle();
    figures
}

/// How long it was from `start` until `dataplane` had taken resources of each of `kinds` whose name
/// contains `part`.
fn arrives(
    zone: &Observed,
    dataplane: &str,
    kinds: &[&str],
    part: &str,
    start: Instant,
) -> Result<Duration> {
    let mut left = kinds.to_vec();
    loop {
        let ack = zone.next()?;
        if ack.dataplane.ends_with(dataplane) && ack.resources.contains(part) {
            left.retain(|kind| *kind != ack.kind);
        }
        if left.is_empty() {
            return Ok(ack.at - start);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "real time of other processes is what is measured")]
fn now() -> Instant {
    Instant::now()
}

fn show(name: &str, figures: Vec<Duration>) {
    report("propagation", name, percentiles(figures));
}
