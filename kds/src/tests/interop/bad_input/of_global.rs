//! A plain global that means ill, at our zone.

use super::super::{
    plain::{PlainGlobal, Resources, name_of, resource},
    world::{MESH, TIMEOUT, Zone, hashed, timeout_of},
};
use super::response;
use crate::{limit, tests::log::Log};
use prost::Message as _;
use prost_types::Duration as Interval;
use proto::{
    envoy::service::discovery::v3::DeltaDiscoveryResponse,
    kuma::{mesh::v1alpha1::KumaResource, system::v1alpha1::Config},
};
use std::time::Duration;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};

const OF_GLOBAL: (&str, &str) = ("kuma.io/origin", "global");

fn web(idle: &str) -> KumaResource {
    let labels = [("kuma.io/display-name", "web"), OF_GLOBAL];
    let spec = timeout_of(idle).to_string();
    resource(&hashed("web", None), "default", &labels, ("", spec.as_bytes()))
}

fn state() -> Resources {
    let id = Config { config: "c1".into() }.encode_to_vec();
    let id = resource("kuma-cluster-id", "", &[OF_GLOBAL], ("kuma.system.v1alpha1.Config", &id));
    let mesh = resource("default", "", &[OF_GLOBAL], ("kuma.mesh.v1alpha1.Mesh", b""));
    let all = [("Config", id), ("Mesh", mesh), ("MeshTimeout", web("1s"))];
    let one = |(kind, one): (&str, KumaResource)| (kind.into(), [(name_of(&one), one)].into());
    all.into_iter().map(one).collect()
}

/// A zone that has everything of such a global.
pub(super) struct Following {
    _tasks: JoinSet<()>,
    pub(super) global: PlainGlobal,
    zone: Zone,
}

impl Following {
    pub(super) async fn begin() -> Self {
        let mut tasks = JoinSet::new();
        let global = PlainGlobal::new(state(), |_, _| Ok(()));
        let (connect, incoming) = mpsc::channel(8);
        tasks.spawn(global.clone().serve(incoming));
        let zone = Zone::start(&mut tasks, "east", &connect);
        zone.until_complete().await;
        Self { _tasks: tasks, global, zone }
    }

    /// Global says all these, until the connection ends; how many it could say, and why it ended.
    async fn says(
        &self,
        all: impl IntoIterator<Item = DeltaDiscoveryResponse>,
    ) -> (usize, Option<String>) {
        let global = self.global.says.borrow().clone().unwrap();
        let mut said = 0;
        for response in all {
            if global.send(response).await.is_err() {
                break;
            }
            said += 1;
        }
        let state = self.zone.until(|state| state.connected_since.is_none()).await;
        (said, state.last_failure)
    }

    /// The zone lost nothing, comes back, and follows global as before.
    pub(super) async fn goes_on(&self) {
        let name = hashed("web", None);
        assert_eq!(self.zone.plane.names(MESH), ["default"]);
        assert_eq!(self.zone.plane.all(TIMEOUT), [(name.clone(), timeout_of("1s"))].into());
        self.zone.until_complete().await;
        self.global.offers.send_modify(|all| {
            all.get_mut("MeshTimeout").unwrap().insert(format!("{name}.default"), web("2s"));
        });
        self.zone.plane.until(TIMEOUT, |all| all[&name] == timeout_of("2s")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_zone_leaves_a_global_that_says_nothing_without_end_and_comes_back() {
    let following = Following::begin().await;
    let log = Log::listen();
    let nothing = |number: u32| response("MeshTimeout", &format!("x{number}"), Vec::new());
    let (said, why) = following.says((0..1_000_000).map(nothing)).await;
    assert!(said < 2000, "{said}");
    let why = why.unwrap_or_default();
    // It says more at once than it has kinds, without waiting for an answer.
    assert!(why.contains("too many messages without waiting for an answer"), "{why}");
    log.warned("zone=east", &["too many messages without waiting for an answer"]);
    following.goes_on().await;
}

#[tokio::test(start_paused = true)]
async fn a_zone_refuses_kinds_that_it_did_not_ask_for_and_goes_on() {
    let following = Following::begin().await;
    let log = Log::listen();
    let global = following.global.says.borrow().clone().unwrap();
    for kind in ["Dataplane", "Invention"] {
        global.send(response(kind, "x", Vec::new())).await.unwrap();
        let nack = (kind.to_owned(), format!("kind {kind:?} was not asked for"));
        super::until(&following.global.nacks, |nacks| nacks.contains(&nack)).await;
    }
    let warned = "kind \\\"Dataplane\\\" was not asked for";
    log.warned("zone=east", &[warned]);
    following.goes_on().await;
    assert_eq!(following.zone.handle.state().borrow().last_failure, None, "on the same connection");

    following.global.end_streams();
    following.zone.until(|state| state.connected_since.is_none()).await;
    following.zone.until_complete().await;
    let global = following.global.says.borrow().clone().unwrap();
    global.send(response("Workload", "x", Vec::new())).await.unwrap();
    let nack = ("Workload".to_owned(), r#"kind "Workload" was not asked for"#.to_owned());
    super::until(&following.global.nacks, |nacks| nacks.contains(&nack)).await;
    log.warned("zone=east", &[warned, "connection with global ended", "global is a plain one"]);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_cannot_be_answered_ends_the_connection_of_the_zone() {
    let following = Following::begin().await;
    let log = Log::listen();
    for (nonce, expected) in
        [("", "nonce: must not be empty"), (&*"x".repeat(9999), "may have 512")]
    {
        let (_, why) = following.says([response("MeshTimeout", nonce, Vec::new())]).await;
        let why = why.unwrap_or_default();
        assert!(why.contains(expected) && why.len() < 2 * limit::REASON, "{why}");
        log.warned("zone=east", &[expected]);
        following.zone.until_complete().await;
        log.clear();
    }
    following.goes_on().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_more_than_once_a_second_whether_it_is_there() {
    let following = Following::begin().await;
    let checks = || {
        let calls = following.global.calls.borrow();
        calls.iter().filter(|(call, _)| *call == "HealthCheck").count()
    };
    // Each of these comes with the answer to the check before.
    for (seconds, nanos, most) in [(0, 1, 101), (i64::MAX, 0, 1), (-1, -1, 1)] {
        following.global.interval.send_replace(Interval { seconds, nanos });
        following.global.end_streams();
        following.zone.until(|state| state.connected_since.is_none()).await;
        following.zone.until_complete().await;
        let (begun, before) = (Instant::now(), checks());
        timeout(Duration::from_secs(100), std::future::pending::<()>()).await.unwrap_err();
        let asked = checks() - before;
        assert!(asked <= most, "{seconds} s: {asked} in {:?}", begun.elapsed());
    }
    following.goes_on().await;
}
