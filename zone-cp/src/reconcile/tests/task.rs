//! The task, on a store.

use super::*;
use crate::{
    identities::Issuer,
    reconcile::{Meshes, NotServed, ProxyKey},
};
use daemon::{Clock, Ready};
use kinds::{beacon, config, mesh, zone_insight};
use resource::ZoneName;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use store::{
    Backend, Expected, Item, Local, Memory, open,
    view::{Edit, Revision},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xds::Type;

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Program {
    pub(super) store: Local,
    pub(super) meshes: Meshes,
    pub(super) certified: Arc<Certified>,
    ready: Ready,
    pub(super) tasks: JoinSet<()>,
}

impl Program {
    pub(super) fn start() -> Self {
        let clock = Clock::since(start());
        let (store, writer) = open(Memory::new(1), kinds(), clock.clone()).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async { writer.run().await.unwrap() });
        let certified = Arc::new(Certified::default());
        *certified.trust.lock() = trust(&["west"]);
        let config = kinds().id_of(config::KIND.name).unwrap();
        let zone = ZoneName::new("west").unwrap();
        let meshes = Meshes::new(zone, certified.clone(), clock.clone(), store.reader(), config);
        let (ready, shutdown) = (Ready::default(), CancellationToken::new());
        let (task, guard, on) = (meshes.clone(), ready.guard("xds"), store.clone());
        tasks.spawn(async move {
            let (_issuer, renewed) = Issuer::new(clock);
            task.run(&on, &kinds(), renewed, guard, shutdown).await.unwrap();
        });
        Self { store, meshes, certified, ready, tasks }
    }

    pub(super) async fn put(&self, row: &Row) -> Revision {
        let kind = kinds().id_of(row.kind.name).unwrap();
        let edit = Edit::Put(Arc::new(row.resource()));
        let item = Item { kind, expected: Expected::Anything, edit };
        self.store.commit(vec![item]).await.unwrap().revision
    }

    pub(super) async fn reached(&self, revision: Revision) {
        tokio::time::timeout(PATIENCE, self.meshes.wait_for(revision)).await.unwrap();
    }

    pub(super) fn connect(&self, name: &str) -> Result<Stream, NotServed> {
        let key = ProxyKey { mesh: shop(), name: name.into() };
        let (source, changes) = self.meshes.connect(&key, BINDS)?;
        Ok(Stream { source, changes })
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_reaches_the_proxies_that_it_concerns() {
    let program = Program::start();
    program.certified.issued.lock().insert("cart-1".into(), issued("cart-1", 1));
    program.put(&row(mesh::KIND, "shop", json!({}))).await;
    let revision = program.put(&sidecar("cart", 1, json!([http(8080)]))).await;
    program.reached(revision).await;
    assert_eq!(program.connect("cart-1").err(), Some(NotServed::Incomplete));
    assert_eq!(program.ready.missing(), ["xds"]);
    program.meshes.open();
    tokio::time::timeout(PATIENCE, program.ready.wait()).await.unwrap();

    // Of a kind that is nothing to the tables.
    let revision = program.put(&row(zone_insight::KIND, "west", json!({}))).await;
    program.reached(revision).await;
    let mut stream = program.connect("cart-1").unwrap();
    stream.marks();
    program.put(&remote("east", "pay")).await;
    tokio::time::timeout(PATIENCE, stream.changes.changed()).await.unwrap().unwrap();
    let name = "kri_msvc_shop_east__pay_http".to_owned();
    let expected = [Type::Cluster, Type::Endpoint, Type::Route].map(|kind| (kind, name.clone()));
    assert_eq!(stream.marks(), expected.into());

    program.put(&sidecar("other", 2, json!([http(8080)]))).await;
    let early = tokio::time::timeout(PATIENCE, stream.changes.changed()).await;
    assert!(early.is_err(), "a change that concerns nobody wakes nobody");
    drop(program.tasks);
}

#[tokio::test(start_paused = true)]
async fn permissions_of_tcp_are_in_the_store_before_they_hold() {
    let program = Program::start();
    program.certified.issued.lock().insert("cart-1".into(), issued("cart-1", 1));
    program.put(&row(mesh::KIND, "shop", json!({}))).await;
    let revision = program.put(&sidecar("cart", 1, json!([tcp(9000)]))).await;
    program.meshes.open();
    program.reached(revision).await;
    let mut stream = program.connect("cart-1").unwrap();
    assert_eq!(stream.names(Type::Extension), [""; 0]);
    while stream.names(Type::Extension).is_empty() {
        stream.marks();
        tokio::time::timeout(PATIENCE, stream.changes.changed()).await.unwrap().unwrap();
    }
    let kind = kinds().id_of(config::KIND.name).unwrap();
    let (_, rows) = program.store.reader().rows(kind);
    let names: Vec<&str> = rows.iter().map(|row| &*row.head.key.name).collect();
    assert!(matches!(names[..], [name] if name.starts_with("tcp-permissions-")), "{names:?}");
    drop(program.tasks);
}

#[tokio::test(start_paused = true)]
async fn a_beacon_goes_to_one_proxy_after_what_was_written_before_it() {
    let program = Program::start();
    program.put(&row(mesh::KIND, "shop", json!({}))).await;
    for name in ["cart-1", "pay-2"] {
        program.certified.issued.lock().insert(name.into(), issued(name, 1));
    }
    program.put(&sidecar("pay", 2, json!([http(8080)]))).await;
    let revision = program.put(&sidecar("cart", 1, json!([http(8080)]))).await;
    program.meshes.open();
    program.reached(revision).await;
    let shine = |number: u64| row(beacon::KIND, beacon::NAME, json!({ "number": number }));
    program.reached(program.put(&shine(1)).await).await;
    let mut elder = program.connect("pay-2").unwrap();
    let mut younger = program.connect("cart-1").unwrap();
    elder.marks();
    younger.marks();

    let revision = program.put(&remote("east", "book")).await;
    program.reached(revision).await;
    program.reached(program.put(&shine(2)).await).await;
    assert_eq!((elder.changes.take_beacon(), younger.changes.take_beacon()), (Some(2), None));
    assert!(!elder.marks().is_empty(), "the service came before it");
    drop(elder);
    program.reached(program.put(&shine(3)).await).await;
    assert_eq!(younger.changes.take_beacon(), Some(3));
    drop(program.tasks);
}
