//! Each stage of a zone stuck in turn, as its parts tell it.

use super::*;
use api::{
    author::Author,
    freshness::{Stage, Zone},
};
use kds::limit::{BEACON, STALE};
use kinds::{
    beacon, beacon_echo,
    labels::{Env, Place},
};
use resource::{AnySpec, MeshName, Peer, ZoneName};
use std::time::Duration;
use store::{
    Backend as _, Expected, Kinds, Local, Memory,
    view::{Feed, KindSet},
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

struct East {
    beacons: Beacons,
    author: Author,
    store: Local,
    echoes: Feed,
    tasks: JoinSet<()>,
}

fn web() -> ResourceKey {
    ResourceKey::in_mesh(&MeshName::new("shop").unwrap(), "web")
}

impl East {
    async fn start() -> Self {
        let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Global };
        let clock = daemon::Clock::system();
        let (store, writer) = store::open(Memory::new(1), kinds.clone(), clock).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async { writer.run().await.unwrap() });
        let place = Place::Zone { name: ZoneName::new("east").unwrap(), env: Env::Universal };
        let (author, beacons) = (Author { kinds: kinds.into(), place }, Beacons::default());
        let kinds = KindSet::from_iter([author.id(beacon_echo::KIND)]);
        let mut echoes = Feed::of(&store.reader(), kinds);
        assert!(echoes.next().await.unwrap().is_empty());
        let east = Self { beacons, author, store, echoes, tasks };
        // One of an earlier life: nobody knows when it came.
        east.shine(1).await;
        east
    }

    fn run(&mut self) {
        let (beacons, author) = (self.beacons.clone(), self.author.clone());
        let echo = run(beacons, author, self.store.clone(), CancellationToken::new());
        self.tasks.spawn(async { echo.await.unwrap() });
    }

    async fn shine(&self, number: u64) {
        let spec: AnySpec = Arc::new(beacon::Beacon { number });
        let key = ResourceKey::global(beacon::NAME);
        let item = self.author.write(beacon::KIND, key, &spec, Expected::Anything).unwrap();
        self.store.commit(vec![item]).await.unwrap();
    }

    /// The next echo; none if it does not come soon.
    async fn echo(&mut self) -> Option<BeaconEcho> {
        let updates = timeout(BEACON / 2, self.echoes.next()).await.ok()?.unwrap();
        let [update] = &updates[..] else { panic!("{updates:?}") };
        Some(BeaconEcho::clone(&kinds::read(update.now.as_ref().unwrap()).unwrap()))
    }

    fn stages(&self) -> Vec<(Stage, Duration)> {
        let (zone, beacons) = (ZoneName::new("east").unwrap(), self.beacons.clone());
        Own { zone, beacons, global: None }.stages()
    }

    fn late(&self) -> Option<Stage> {
        Zone::of("east", &self.stages(), STALE).late
    }
}

fn echo(stored: u64, reconciled: u64, answered: Option<u64>) -> Option<BeaconEcho> {
    let proxy = answered.map(|answered| Proxy { name: "shop/web".into(), answered });
    Some(BeaconEcho { stored, reconciled, proxy })
}

#[tokio::test(start_paused = true)]
async fn one_write_tells_that_a_beacon_came_through_and_what_came_before_is_not_told() {
    let mut east = East::start().await;
    east.run();
    assert_eq!(east.echo().await, None);
    assert!(east.stages().is_empty());
    east.shine(2).await;
    east.beacons.reconciled(2, Some(web()));
    east.beacons.answered(&web(), 2);
    assert_eq!(east.echo().await, echo(2, 2, Some(2)));
    assert_eq!(east.echo().await, None);
    assert_eq!(east.late(), None);
}

#[tokio::test(start_paused = true)]
async fn the_stage_that_is_stuck_is_told_and_shown() {
    let mut east = East::start().await;
    east.run();
    let mut number = 1;
    for stuck in [None, Some(Stage::Proxy), Some(Stage::Tables), Some(Stage::Zone)] {
        for _ in 0..5 {
            number += 1;
            if stuck != Some(Stage::Zone) {
                east.shine(number).await;
            }
            if !matches!(stuck, Some(Stage::Zone | Stage::Tables)) {
                east.beacons.reconciled(number, Some(web()));
            }
            if stuck.is_none() {
                east.beacons.answered(&web(), number);
            }
            timeout(BEACON, std::future::pending::<()>()).await.unwrap_err();
        }
        // Where an earlier stage is not passed the later ones are not either.
        assert_eq!(east.late(), stuck);
    }
    let last = {
        let kind = east.author.id(beacon_echo::KIND);
        let key = ResourceKey::global(beacon_echo::NAME);
        kinds::read::<BeaconEcho>(&east.store.reader().get(kind, &key).unwrap()).unwrap()
    };
    assert_eq!(Some(BeaconEcho::clone(&last)), echo(16, 11, Some(6)));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_owes_its_answer_until_it_or_the_next_one_answers_or_it_is_gone() {
    let beacons = Beacons::default();
    let other = ResourceKey::in_mesh(&MeshName::new("shop").unwrap(), "other");
    beacons.reconciled(1, Some(web()));
    beacons.answered(&other, 1);
    let answered = |beacons: &Beacons| {
        let progress = beacons.progress.borrow();
        progress.proxy.as_ref().map(|asked| asked.answered.map(|passed| passed.number))
    };
    assert_eq!(answered(&beacons), Some(None), "nobody asked that one");
    beacons.answered(&web(), 1);
    beacons.reconciled(2, Some(web()));
    assert_eq!(answered(&beacons), Some(Some(1)), "what it said before still counts");
    beacons.reconciled(3, None);
    assert_eq!(answered(&beacons), Some(Some(1)), "it is not connected, and has not gone");
    beacons.reconciled(4, Some(other.clone()));
    assert_eq!(answered(&beacons), Some(Some(1)), "that another is asked is no answer");
    beacons.gone(&web());
    beacons.answered(&web(), 4);
    assert_eq!(answered(&beacons), Some(Some(1)), "it is not the one that is asked");
    beacons.answered(&other, 4);
    assert_eq!(answered(&beacons), Some(Some(4)));
    beacons.gone(&other);
    assert_eq!(answered(&beacons), None);
    beacons.reconciled(5, Some(web()));
    assert_eq!(answered(&beacons), Some(None), "it has its time");
}
