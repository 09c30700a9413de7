//! Each part of the line stuck in turn.

use super::{super::truth::Truth, *};
use crate::network::Network;
use fastrand::Rng;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::time::Instant;

/// What is shown of a zone: its state, and the stage that is late.
type Shown = (String, Option<String>);

struct Pair {
    network: Network,
    machines: [Machine; 2],
}

impl Pair {
    /// Global and `east`, which is fresh.
    async fn fresh() -> Self {
        fastrand::seed(1);
        let names = ["global", "east"].map(str::to_owned);
        let truth = Arc::new(Mutex::new(Truth::new(names.to_vec())));
        let network = Network::new(1, Rng::with_seed(1));
        let new =
            |node: usize, name: &str| Machine::new(node, name, truth.clone(), network.clone());
        let mut machines = [new(0, "global"), new(1, "east")];
        for machine in &mut machines {
            machine.start().await.unwrap();
        }
        let pair = Self { network, machines };
        pair.until("Fresh", None, STALE).await;
        sleep_for(BEACON * 3).await;
        pair
    }

    async fn east(&self) -> Shown {
        let [global, _] = &self.machines;
        let all = shown(global).await;
        let east = all.into_iter().find(|(name, ..)| name == "east");
        east.map(|(_, state, late)| (state, late)).unwrap_or_default()
    }

    /// Waits until `east` is shown so, and returns how else it was shown before.
    async fn until(&self, state: &str, late: Option<&str>, limit: Duration) -> Vec<Shown> {
        let (since, wanted) = (Instant::now(), (state.to_owned(), late.map(str::to_owned)));
        let mut before = Vec::new();
        loop {
            let east = self.east().await;
            if east == wanted {
                return before;
            }
            if before.last() != Some(&east) {
                before.push(east);
            }
            assert!(since.elapsed() <= limit, "not {wanted:?}, but {before:?}");
            sleep_for(Duration::from_millis(50)).await;
        }
    }
}

fn fresh() -> Shown {
    ("Fresh".into(), None)
}

fn away() -> Shown {
    ("Away".into(), None)
}

#[tokio::test(start_paused = true)]
async fn each_part_that_is_stuck_is_shown_by_its_stage_until_it_goes_on() {
    let parts = [
        (0, "store", "Global"),
        (1, "store", "Zone"),
        (1, "echo", "Return"),
        (1, "tables", "Tables"),
    ];
    for (node, part, stage) in parts {
        let pair = Pair::fresh().await;
        pair.machines[node].stuck.send_replace(Some(part));
        let before = pair.until("Late", Some(stage), STALE + SOON).await;
        // Global ends a stream on which nothing is answered, and the zone comes back at once.
        assert!(before.iter().all(|shown| *shown == fresh() || *shown == away()), "{before:?}");
        sleep_for(5 * STALE).await;
        let before = pair.until("Late", Some(stage), SOON).await;
        assert!(before.iter().all(|shown| *shown == away()), "{part}: it is so still: {before:?}");
        pair.machines[node].stuck.send_replace(None);
        pair.until("Fresh", None, STALE + SOON).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_swallows_everything_is_seen_in_time() {
    for blocked in [[true, true], [false, true], [true, false]] {
        let pair = Pair::fresh().await;
        pair.network.change(0, |weather| weather.blocked = blocked);
        // Global ends the stream before anything is late, and the zone cannot come back.
        let before = pair.until("Away", None, STALE + SOON).await;
        assert_eq!(before, [fresh()], "{blocked:?}");
        sleep_for(5 * STALE).await;
        assert_eq!(pair.east().await, away(), "{blocked:?}: it is so still");
        pair.network.change(0, |weather| weather.blocked = [false; 2]);
        pair.until("Fresh", None, STALE + SOON).await;
    }
}
