//! Many zones.

use crate::world::World;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use e2e::PATIENCE;
use load::{Event, Offers, Seen, Target, Zone, dataplane};
use resource::ZoneName;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, timeout},
};

/// Events that nobody has looked at yet.
const UNREAD: usize = 1 << 16;
/// Changes of a zone that wait for global.
const CHANGES: usize = 4096;
/// How long a zone waits before it dials again; real ones wait longer and longer.
const AGAIN: Duration = Duration::from_millis(100);
/// So many zones prepare and send their first Dataplanes at once.
const OFFERING: usize = 32;

/// Zones that are connected, and connect again whenever global was away.
pub(crate) struct Crowd {
    zones: Vec<Arc<Zone>>,
    events: mpsc::Receiver<Seen>,
    changes: Vec<mpsc::Sender<(Instant, Bytes)>>,
    running: JoinSet<()>,
    begun: Instant,
}

impl Crowd {
    /// So many zones, whose names begin with `prefix` and which offer so many Dataplanes each.
    pub(crate) fn connect(
        world: &World,
        prefix: &str,
        count: usize,
        dataplanes: usize,
    ) -> Result<Self> {
        let names = (0..count).map(|number| format!("{prefix}-{number}")).collect();
        let (sender, events) = mpsc::channel(UNREAD);
        let tokens = world.tokens(names)?.into_iter().enumerate();
        let zone = |(number, (name, token)): (usize, (String, String))| {
            Ok(Arc::new(Zone::new(number, ZoneName::new(&name)?, token, sender.clone())))
        };
        let zones: Vec<Arc<Zone>> = tokens.map(zone).collect::<Result<_>>()?;
        let (target, turns) = (world.target()?, Arc::new(Semaphore::new(OFFERING)));
        let (mut running, mut changes) = (JoinSet::new(), Vec::new());
        let _inside = world.runtime.enter();
        let begun = Instant::now();
        for zone in &zones {
            let (sender, receiver) = mpsc::channel(CHANGES);
            changes.push(sender);
            let turns = (dataplanes > 0).then(|| Arc::clone(&turns));
            running.spawn(live(Arc::clone(zone), target.clone(), dataplanes, receiver, turns));
        }
        Ok(Self { zones, events, changes, running, begun })
    }

    /// When they began to connect.
    pub(crate) const fn begun(&self) -> Instant {
        self.begun
    }

    /// They want everything again at their next connection.
    pub(crate) fn forget(&self) {
        self.zones.iter().for_each(|zone| zone.forget());
    }

    /// Zone `number` has a Dataplane that changed.
    pub(crate) fn change(&self, number: usize, dataplane: Bytes) -> Result<()> {
        let sender = self.changes.get(number).context("a zone")?;
        sender.try_send((Instant::now(), dataplane)).context("global is too slow")
    }

    pub(crate) fn name(&self, number: usize) -> Result<&ZoneName> {
        Ok(self.zones.get(number).context("a zone")?.name())
    }

    pub(crate) async fn next(&mut self) -> Result<Seen> {
        let next = timeout(PATIENCE, self.events.recv()).await;
        next.context("nothing happens to any zone")?.context("the zones are gone")
    }

    /// What happened and was not looked at.
    pub(crate) fn drain(&mut self) {
        while self.events.try_recv().is_ok() {}
    }

    /// When the last zone had all there is of every kind: so many resources at least.
    pub(crate) async fn complete(&mut self, resources: usize) -> Result<Instant> {
        let kinds = kinds::all().filter(|kind| kind.flow.requested_by_zones()).count();
        let mut whole: BTreeMap<usize, (BTreeSet<String>, usize)> = BTreeMap::new();
        let mut done = 0;
        loop {
            let Seen { at, zone, event } = self.next().await?;
            let Event::Took { kind, resources: came, complete, .. } = event else { continue };
            let (of, held) = whole.entry(zone).or_default();
            *held += came;
            if complete {
                of.insert(kind);
            }
            if of.len() == kinds {
                if *held < resources {
                    bail!("zone {zone} has {held} resources and not {resources}");
                }
                done += 1;
                // Further responses are changes.
                of.clear();
                if done == self.zones.len() {
                    return Ok(at);
                }
            }
        }
    }

    /// When the last zone had a change of one resource of `kind`.
    pub(crate) async fn all_take(&mut self, kind: &str) -> Result<Instant> {
        let mut left: BTreeSet<usize> = (0..self.zones.len()).collect();
        loop {
            let seen = self.next().await?;
            if matches!(&seen.event, Event::Took { kind: of, resources: 1, .. } if of == kind) {
                left.remove(&seen.zone);
            }
            if left.is_empty() {
                return Ok(seen.at);
            }
        }
    }

    /// When global had all their first Dataplanes.
    pub(crate) async fn all_sent(&mut self) -> Result<Instant> {
        let mut left: BTreeSet<usize> = (0..self.zones.len()).collect();
        loop {
            let seen = self.next().await?;
            if matches!(seen.event, Event::Sent { .. }) {
                left.remove(&seen.zone);
            }
            if left.is_empty() {
                return Ok(seen.at);
            }
        }
    }

    /// Disconnects all.
    pub(crate) async fn leave(mut self) {
        self.running.shutdown().await;
    }
}

/// Connects again and again. The first Dataplanes are offered once, by turns.
async fn live(
    zone: Arc<Zone>,
    target: Target,
    dataplanes: usize,
    mut changes: mpsc::Receiver<(Instant, Bytes)>,
    turns: Option<Arc<Semaphore>>,
) {
    loop {
        let turn = match &turns {
            Some(turns) => turns.acquire().await.ok(),
            None => None,
        };
        let first: Result<Vec<Bytes>> =
            (0..dataplanes).map(|number| dataplane(zone.name(), number, 0)).collect();
        let offers = Offers { first: first.unwrap_or_default(), changes: &mut changes, turn };
        if zone.connect(&target, offers).await.is_err() {
            timeout(AGAIN, std::future::pending::<()>()).await.ok();
        }
    }
}
