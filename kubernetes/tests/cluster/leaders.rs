//! Two control planes of one zone.

use crate::world::{self, Asked};
use anyhow::{Context as _, Result, ensure};
use apiserver::{ApiServer, Options};
use daemon::Clock;
use kubernetes::lease::{Config, Lease, Lost};
use std::time::Duration;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

/// Faster than anybody sets it, for a test.
fn config() -> Config {
    Config {
        duration: Duration::from_secs(4),
        renew_deadline: Duration::from_secs(3),
        retry_period: Duration::from_millis(500),
        ..Config::default()
    }
}

pub(crate) fn of_two_one_works() -> Result<()> {
    world::run(Options::default(), async |server: ApiServer| {
        let client = world::client(&server, &Asked::default()).await?;
        world::namespace(&client, "kuma-system", false).await?;
        let lease = |identity: &str| {
            let (namespace, identity) = ("kuma-system".into(), identity.into());
            Lease::new(client.clone(), namespace, identity, config(), Clock::system())
        };
        let mut first = timeout(world::PATIENCE, lease("first").acquire(|_| {})).await?;
        let mut others = JoinSet::new();
        others.spawn(lease("second").acquire(|_| {}));
        let held = timeout(Duration::from_secs(6), first.lost()).await;
        ensure!(held.is_err(), "it was lost: {held:?}");
        ensure!(others.try_join_next().is_none(), "both work");
        first.release().await?;
        let mut second =
            timeout(world::PATIENCE, others.join_next()).await?.context("it left")??;
        // A server that answers nobody.
        let paused = server.pause()?;
        let began = Instant::now();
        let lost = timeout(world::PATIENCE, second.lost()).await?;
        ensure!(matches!(lost, Lost::Late { .. }), "{lost}");
        ensure!(began.elapsed() < Duration::from_secs(4), "it worked on for {:?}", began.elapsed());
        drop(paused);
        let third = timeout(world::PATIENCE, lease("third").acquire(|_| {})).await?;
        Ok(third.release().await?)
    })
}
