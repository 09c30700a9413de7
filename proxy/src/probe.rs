//! Asks the application behind an inbound whether it is there.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, time::Duration};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::info;

/// How the application behind an inbound is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Where it listens.
    pub address: SocketAddr,
    /// How often.
    pub interval: Duration,
    /// How long it has for an answer.
    pub timeout: Duration,
    /// How many answers count.
    pub thresholds: Thresholds,
}

/// How many equal answers in a row change what is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Before a dead application is believed to live.
    pub healthy: u32,
    /// Before a living one is believed dead.
    pub unhealthy: u32,
}

/// What is believed about an application. It is dead before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Health {
    alive: bool,
    contrary: u32,
}

impl Health {
    const fn new() -> Self {
        Self { alive: false, contrary: 0 }
    }

    const fn answered(self, alive: bool, thresholds: Thresholds) -> Self {
        if alive == self.alive {
            return Self { contrary: 0, ..self };
        }
        let needed = if alive { thresholds.healthy } else { thresholds.unhealthy };
        let contrary = self.contrary.saturating_add(1);
        if contrary >= needed { Self { alive, contrary: 0 } } else { Self { contrary, ..self } }
    }
}

/// By the name of an inbound: whether the application behind it lives.
pub(crate) type Believed = BTreeMap<String, bool>;

/// Opens connections to applications.
pub(crate) trait Connect: Send + Sync {
    /// Whether `address` accepts a connection.
    fn connects(&self, address: SocketAddr) -> impl Future<Output = bool> + Send;
}

/// The machine's network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network;

impl Connect for Network {
    async fn connects(&self, address: SocketAddr) -> bool {
        TcpStream::connect(address).await.is_ok()
    }
}

/// Asks forever and tells `alive` when the answer changed.
pub(crate) async fn run(
    name: &str,
    probe: &Probe,
    network: &impl Connect,
    alive: impl Fn(bool),
) -> std::convert::Infallible {
    let mut health = Health::new();
    let mut ticks = interval(probe.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = timeout(probe.timeout, network.connects(probe.address)).await;
        let next = health.answered(answer.unwrap_or(false), probe.thresholds);
        if next.alive != health.alive {
            info!(inbound = name, address = %probe.address, alive = next.alive, "application probed");
            alive(next.alive);
        }
        health = next;
    }
}

/// Asks behind all inbounds, forever, and keeps what is believed in `believed`.
pub(crate) async fn all(probes: BTreeMap<String, Probe>, believed: watch::Sender<Believed>) {
    let each = probes.iter().map(|(name, probe)| {
        let alive = |alive| {
            believed.send_modify(|believed| {
                believed.insert(name.clone(), alive);
            });
        };
        run(name, probe, &Network, alive)
    });
    futures::future::join_all(each).await;
    // There may be none.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use tokio::time::Instant;

    #[test]
    fn one_answer_is_not_enough_where_more_are_asked_for() {
        let thresholds = Thresholds { healthy: 2, unhealthy: 3 };
        let answers = [true, false, true, true, false, false, true, false, false, false];
        let mut health = Health::new();
        let believed = answers.map(|alive| {
            health = health.answered(alive, thresholds);
            health.alive
        });
        let expected = [false, false, false, true, true, true, true, true, true, false];
        assert_eq!(believed, expected);
    }

    struct Silent;

    impl Connect for Silent {
        async fn connects(&self, _address: SocketAddr) -> bool {
            // Answers for a while, then not any more: neither yes nor no.
            if Instant::now().elapsed().is_zero()
                && STARTED.with(|s| s.elapsed()) < Duration::from_secs(10)
            {
                return true;
            }
            std::future::pending().await
        }
    }

    thread_local! {
        static STARTED: Instant = Instant::now();
    }

    #[tokio::test(start_paused = true)]
    async fn an_application_that_does_not_answer_in_time_is_dead() {
        STARTED.with(|_| ());
        let probe = Probe {
            address: "127.0.0.1:1".parse().unwrap(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            thresholds: Thresholds { healthy: 1, unhealthy: 1 },
        };
        let seen = Mutex::new(Vec::new());
        let told = |alive| seen.lock().push((STARTED.with(|s| s.elapsed()).as_secs(), alive));
        let endless = run("http", &probe, &Silent, told);
        assert!(timeout(Duration::from_secs(60), endless).await.is_err());
        assert_eq!(*seen.lock(), [(0, true), (12, false)]);
    }
}
