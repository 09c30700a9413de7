use super::*;
use dns::Found;
use jiff::Timestamp;
use kinds::mesh_service::{Address, Status, Vip};
use resource::{Audience, Labels, Times};
use std::time::Duration;
use store::view::{Edit, Loaded, Writer, view};
use tokio::time::timeout;

/// Longer than anything takes in paused time.
const PATIENCE: Duration = Duration::from_secs(60);

fn mesh(name: &str) -> MeshName {
    MeshName::new(name).unwrap()
}

/// A service that was created at `created`.
fn service(mesh_name: &str, name: &str, created: i64, vips: &[&str], hosts: &[&str]) -> Edit {
    let status = Status {
        vips: vips.iter().map(|ip| Vip { ip: (*ip).into() }).collect(),
        addresses: hosts
            .iter()
            .map(|host| Address { hostname: (*host).into(), ..Address::default() })
            .collect(),
        ..Status::default()
    };
    let status = serde_json::to_vec(&status).unwrap().into();
    let key = ResourceKey::in_mesh(&mesh(mesh_name), name);
    let row = Resource::new(key, Labels::default(), "{}".into(), status, Audience::default());
    let created = Timestamp::from_second(created).unwrap();
    Edit::Put(Arc::new(row.written(Times { created, modified: created })))
}

fn delete(mesh_name: &str, name: &str) -> Edit {
    Edit::Delete(ResourceKey::in_mesh(&mesh(mesh_name), name))
}

/// A running [`Names`] over a view of services.
struct World {
    names: Arc<Names>,
    records: Arc<Records>,
    writer: Writer,
}

impl World {
    fn new() -> (Self, Reader) {
        let (writer, reader) = view([Loaded::default()], 64);
        (Self { names: Arc::default(), records: Arc::default(), writer }, reader)
    }

    fn put(&self, edits: impl IntoIterator<Item = Edit>) {
        self.writer.apply(edits.into_iter().map(|edit| (KindId::FIRST, edit)));
    }

    async fn run(&self, reader: &Reader, test: impl Future<Output = ()>) {
        let dns = Dns { mesh: mesh("default"), records: self.records.clone() };
        let shutdown = CancellationToken::new();
        let running = self.names.run(reader, KindId::FIRST, Some(dns), shutdown.clone());
        let test = async {
            test.await;
            shutdown.cancel();
        };
        timeout(10 * PATIENCE, async { tokio::join!(running, test) }).await.unwrap();
    }
}

async fn next(subscription: &mut Subscription) -> String {
    said(timeout(PATIENCE, subscription.next()).await.unwrap())
}

fn said(delta: Delta) -> String {
    let session::Records { complete, upserts, removals, .. } = delta.message(1);
    let mut said = if complete { vec!["all".to_owned()] } else { Vec::new() };
    said.extend(upserts.iter().map(|r| format!("{}={}", r.name, r.addresses.join("+"))));
    said.extend(removals.iter().map(|name| format!("-{name}")));
    said.join(" ")
}

async fn nothing(subscription: &mut Subscription) {
    assert!(timeout(PATIENCE, subscription.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_proxy_is_told_everything_and_then_what_changed() {
    let (world, reader) = World::new();
    let mut proxy = world.names.subscribe(&mesh("default"));
    nothing(&mut proxy).await;
    world.put([
        service("default", "a", 1, &["240.0.0.1", "240.0.0.9"], &["a.mesh.local", "A2.mesh.local"]),
        service("default", "b", 1, &["240.0.0.2"], &["b.mesh.local"]),
        service("other", "a", 1, &["240.0.0.3"], &["a.mesh.local"]),
    ]);
    world
        .run(&reader, async {
            assert_eq!(
                next(&mut proxy).await,
                "all a.mesh.local=240.0.0.1 a2.mesh.local=240.0.0.1 b.mesh.local=240.0.0.2"
            );
            nothing(&mut proxy).await;
            world.put([delete("default", "b")]);
            world.put([service("default", "a", 1, &["240.0.0.4"], &["a.mesh.local"])]);
            world.put([service("default", "c", 1, &["fd00::1"], &["c.mesh.local"])]);
            world.put([service("other", "a", 1, &["240.0.0.5"], &["a.mesh.local"])]);
            assert_eq!(
                next(&mut proxy).await,
                "a.mesh.local=240.0.0.4 c.mesh.local=fd00::1 -a2.mesh.local -b.mesh.local"
            );
            nothing(&mut proxy).await;

            let mut late = world.names.subscribe(&mesh("other"));
            assert_eq!(next(&mut late).await, "all a.mesh.local=240.0.0.5");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_mesh_without_names_is_complete_and_empty() {
    let (world, reader) = World::new();
    let mut early = world.names.subscribe(&mesh("default"));
    world
        .run(&reader, async {
            assert_eq!(next(&mut early).await, "all");
            let mut late = world.names.subscribe(&mesh("new"));
            assert_eq!(next(&mut late).await, "all");
            world.put([service("new", "a", 1, &["240.0.0.1"], &["a.mesh.local"])]);
            assert_eq!(next(&mut late).await, "a.mesh.local=240.0.0.1");
            nothing(&mut early).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_service_without_an_address_or_a_readable_status_has_no_names() {
    let (world, reader) = World::new();
    let key = ResourceKey::in_mesh(&mesh("default"), "odd");
    let (labels, status) = (Labels::default(), r#"{"vips":7}"#.into());
    let odd = Resource::new(key, labels, "{}".into(), status, Audience::default());
    world.put([
        service("default", "a", 1, &[], &["a.mesh.local"]),
        service("default", "b", 1, &["nonsense"], &["b.mesh.local"]),
        service("default", "c", 1, &["240.0.0.1"], &["", "c.mesh.local"]),
        Edit::Put(Arc::new(odd)),
    ]);
    let mut proxy = world.names.subscribe(&mesh("default"));
    world
        .run(&reader, async {
            assert_eq!(next(&mut proxy).await, "all c.mesh.local=240.0.0.1");
            world.put([service("default", "a", 1, &["240.0.0.2"], &["a.mesh.local"])]);
            assert_eq!(next(&mut proxy).await, "a.mesh.local=240.0.0.2");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_name_stays_with_its_first_owner_until_that_goes() {
    let (world, reader) = World::new();
    let mut proxy = world.names.subscribe(&mesh("default"));
    world.put([service("default", "z-first", 1, &["240.0.0.1"], &["x.mesh.local"])]);
    world
        .run(&reader, async {
            assert_eq!(next(&mut proxy).await, "all x.mesh.local=240.0.0.1");
            world.put([service("default", "a-second", 2, &["240.0.0.2"], &["x.mesh.local"])]);
            nothing(&mut proxy).await;
            world.put([service("default", "z-first", 1, &["240.0.0.3"], &["x.mesh.local"])]);
            assert_eq!(next(&mut proxy).await, "x.mesh.local=240.0.0.3");
            world.put([delete("default", "z-first")]);
            assert_eq!(next(&mut proxy).await, "x.mesh.local=240.0.0.2");
            world.put([delete("default", "a-second")]);
            assert_eq!(next(&mut proxy).await, "-x.mesh.local");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_zones_dns_answers_for_its_mesh_alone() {
    let (world, reader) = World::new();
    let mut proxy = world.names.subscribe(&mesh("default"));
    world.put([
        service("default", "a", 1, &["240.0.0.1"], &["a.mesh.local"]),
        service("other", "b", 1, &["240.0.0.2"], &["b.mesh.local"]),
    ]);
    assert_eq!(world.records.find("b.mesh.local"), Found::Unknown);
    world
        .run(&reader, async {
            let address: IpAddr = "240.0.0.1".parse().unwrap();
            next(&mut proxy).await;
            assert_eq!(world.records.find("a.mesh.local"), Found::Addresses([address].into()));
            assert_eq!(world.records.find("b.mesh.local"), Found::Absent);
            world.put([delete("default", "a")]);
            next(&mut proxy).await;
            assert_eq!(world.records.find("a.mesh.local"), Found::Absent);
        })
        .await;
}

#[test]
fn who_missed_more_than_the_log_holds_is_told_everything() {
    let mut table = Table::default();
    let key = ResourceKey::in_mesh(&mesh("default"), "a");
    let claim = |address: [u8; 4]| Claim {
        since: Timestamp::UNIX_EPOCH,
        names: ["a.mesh.local".into()].into(),
        address: address.into(),
    };
    table.claim(&key, Some(claim([240, 0, 0, 1])));
    let seen = table.revision();
    for i in 0..=255 {
        for j in 0..5 {
            table.claim(&key, Some(claim([240, 1, i, j])));
        }
    }
    assert_eq!(said(table.since(Some(seen))), "all a.mesh.local=240.1.255.4");
    assert_eq!(said(table.since(Some(table.revision() - 1))), "a.mesh.local=240.1.255.4");
    assert_eq!(said(table.since(Some(table.revision()))), "");
}
