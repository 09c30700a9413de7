//! One history: who is there, what is due, and when it is quiet.

use super::{
    faults::{self, Fault},
    fresh,
    machine::Machine,
    operations, oracle, statuses,
    truth::Truth,
};
use crate::network::{Network, Numbers, Weather, sleep_for};
use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use kinds::mesh;
use parking_lot::Mutex;
use resource::ResourceKey;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

/// The names of zones. One begins like another: what is hashed has no separators.
const ZONES: [&str; 5] = ["east", "e", "west", "north", "south"];
/// When everything must be as it shall be after the last fault.
const BOUND: Duration = Duration::from_secs(120);
/// As long as it is quiet nothing may change any more for so long.
const STILL: Duration = Duration::from_secs(3);
/// More than can be on its way by the windows of HTTP/2.
const MOST: usize = 4 * 1024 * 1024;

/// A federation.
pub(crate) struct World {
    pub(crate) random: Rng,
    pub(crate) truth: Arc<Mutex<Truth>>,
    pub(crate) network: Network,
    pub(crate) machines: Vec<Machine>,
    pub(crate) disabled: BTreeSet<usize>,
    pub(crate) deleted: BTreeSet<usize>,
    due: BTreeMap<(Duration, u64), Due>,
    planned: u64,
    pub(crate) operations: BTreeMap<&'static str, usize>,
    pub(crate) faults: BTreeMap<&'static str, usize>,
    longest: Duration,
}

/// What happens later by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Due {
    /// The weather of a zone is good again.
    Clear(usize),
    /// A machine crashes.
    Crash(usize),
    /// A machine starts.
    Start(usize),
    /// A zone may be seen by others again.
    Enable(usize),
    /// A zone that was deleted is made anew.
    Create(usize),
}

impl Due {
    const fn crashes(self) -> Option<usize> {
        match self {
            Self::Crash(node) => Some(node),
            Self::Clear(_) | Self::Start(_) | Self::Enable(_) | Self::Create(_) => None,
        }
    }
}

/// What one history was like.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Control planes of zones.
    pub zones: usize,
    /// Operations of users, by sort.
    pub operations: BTreeMap<&'static str, usize>,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, usize>,
    /// How long it took there.
    pub lasted: Duration,
    /// The longest time until all was well again.
    pub longest: Duration,
    /// Frames, those lost, those that overtook another, the most bytes on their way.
    pub frames: [u64; 4],
    /// Everything that happened.
    pub trace: Vec<String>,
    /// What was not as it must be; empty if all was well.
    pub wrong: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |tally: &BTreeMap<&str, usize>| {
            tally
                .iter()
                .map(|(name, times)| format!("{times} {name}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let all = |tally: &BTreeMap<&str, usize>| tally.values().sum::<usize>();
        write!(
            f,
            "{} zones; {} operations ({}); {} faults of {} kinds ({}); {:.0} s, all well after \
             {:.1} s; frames, lost, overtaken, most bytes: {:?}; trace {:016x}",
            self.zones,
            all(&self.operations),
            list(&self.operations),
            all(&self.faults),
            self.faults.len(),
            list(&self.faults),
            self.lasted.as_secs_f64(),
            self.longest.as_secs_f64(),
            self.frames,
            self.fingerprint(),
        )
    }
}

impl Summary {
    /// Tells traces apart.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let bytes = self.trace.iter().flat_map(|line| line.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

/// The history of `seed`.
pub(crate) async fn history(seed: u64) -> Summary {
    let mut world = World::new(seed);
    if let Err(error) = world.live().await {
        world.truth.lock().wrong(format_args!("{error:#}"));
    }
    let Numbers { frames, lost, overtaken, most } = world.network.numbers();
    let mut truth = world.truth.lock();
    Summary {
        zones: world.machines.len() - 1,
        operations: world.operations.clone(),
        faults: world.faults.clone(),
        lasted: truth.now(),
        longest: world.longest,
        frames: [frames, lost, overtaken, most as u64],
        trace: std::mem::take(&mut truth.trace),
        wrong: std::mem::take(&mut truth.wrong),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let zones = random.usize(2..=ZONES.len());
        let names = ["global"].iter().chain(&ZONES).take(zones + 1);
        let names: Vec<String> = names.map(|&name| name.into()).collect();
        let truth = Arc::new(Mutex::new(Truth::new(names.clone())));
        let network = Network::new(zones, random.fork());
        let machine = |(node, name): (usize, &String)| {
            Machine::new(node, name, truth.clone(), network.clone())
        };
        let mut machines: Vec<Machine> = names.iter().enumerate().map(machine).collect();
        machines.iter_mut().skip(1).for_each(|zone| zone.install(&mut random));
        let (disabled, deleted, due, operations, faults) = Default::default();
        let (planned, longest) = (0, Duration::ZERO);
        Self {
            random,
            truth,
            network,
            machines,
            disabled,
            deleted,
            due,
            planned,
            operations,
            faults,
            longest,
        }
    }

    async fn live(&mut self) -> Result<()> {
        for node in 0..self.machines.len() {
            self.start(node).await?;
        }
        let mut plan = Fault::ALL.to_vec();
        self.random.shuffle(&mut plan);
        let mut plan = plan.into_iter().cycle();
        let steps = self.random.usize(200..=240);
        for step in 1..=steps {
            let pause = self.random.u64(0..=400);
            self.pass(Duration::from_millis(pause)).await?;
            operations::any(self).await;
            if step % 8 == 0
                && let Some(fault) = plan.next()
            {
                faults::begin(self, fault).await?;
            }
            if step % (steps / 3) == 0 {
                self.quiet().await?;
            }
            ensure!(self.truth.lock().wrong.is_empty(), "stopped at the first that was wrong");
        }
        self.quiet().await?;
        operations::rivals(self).await;
        Ok(())
    }

    /// Whether others may see what the zone called `name` wrote.
    pub(crate) fn shows(&self, name: &str) -> bool {
        let node = self.machines.iter().position(|machine| machine.name == name);
        node.is_some_and(|node| !self.disabled.contains(&node))
    }

    /// Something will happen after a while.
    pub(crate) fn later(&mut self, after: Duration, due: Due) {
        self.planned += 1;
        let at = self.truth.lock().now() + after;
        self.due.insert((at, self.planned), due);
    }

    /// Lets time pass, and happen what is due then.
    pub(crate) async fn pass(&mut self, time: Duration) -> Result<()> {
        let until = self.now() + time;
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= until) {
            let ((at, _), due) = first.remove_entry();
            sleep_for(at.saturating_sub(self.now())).await;
            self.happen(due).await?;
        }
        sleep_for(until.saturating_sub(self.now())).await;
        Ok(())
    }

    fn now(&self) -> Duration {
        self.truth.lock().now()
    }

    /// Whether the control plane `node` knows a mesh.
    pub(crate) fn has_mesh(&self, node: usize, mesh: &str) -> bool {
        let machine = self.machines.get(node);
        let known = machine.and_then(|machine| {
            let key = ResourceKey::global(mesh);
            machine.author().get(&machine.reader()?, mesh::KIND, &key)
        });
        known.is_some()
    }

    /// Nobody knows whether others may see a zone: an operator tries again.
    pub(crate) fn unsure(&mut self, zone: usize) {
        self.truth.lock().excused.insert(zone);
        self.disabled.insert(zone);
        self.later(Duration::from_millis(500), Due::Enable(zone));
    }

    async fn happen(&mut self, due: Due) -> Result<()> {
        match due {
            Due::Clear(zone) => {
                self.truth.lock().note(format_args!("the weather of {zone} is good"));
                self.network.change(zone - 1, |weather| *weather = Weather::default());
                Ok(())
            }
            Due::Crash(node) => {
                self.crash(node);
                Ok(())
            }
            Due::Start(node) => self.start(node).await,
            Due::Enable(zone) => operations::enable(self, zone, true).await,
            Due::Create(zone) => operations::create(self, zone).await,
        }
    }

    pub(crate) fn crash(&mut self, node: usize) {
        let Self { machines, random, .. } = self;
        if let Some(machine) = machines.get_mut(node).filter(|machine| machine.life.is_some()) {
            machine.crash(random);
        }
    }

    pub(crate) async fn start(&mut self, node: usize) -> Result<()> {
        let Some(machine) = self.machines.get_mut(node).filter(|it| it.life.is_none()) else {
            return Ok(());
        };
        machine.start().await.with_context(|| format!("{} cannot start", machine.name))?;
        let reader = machine.reader();
        let mut truth = self.truth.lock();
        let lost = oracle::lost(machine, &truth);
        for what in lost {
            truth.wrong(format_args!("lost: {what}"));
        }
        // What was not answered is known now.
        for ((_, (kind, key)), known) in
            truth.known.iter_mut().filter(|((of, _), known)| *of == node && !known.maybe.is_empty())
        {
            let row = machine.kinds.id_of(kind).zip(reader.as_ref());
            let row = row.and_then(|(id, reader)| reader.get(id, key));
            let row = row.filter(|row| machine.place().is_origin_of(&row.head.labels));
            known.now = row.and_then(|row| oracle::written(&row));
            known.maybe.clear();
        }
        Ok(())
    }

    /// All faults end, and everything must become as it shall be.
    async fn quiet(&mut self) -> Result<()> {
        self.truth.lock().note("all faults end");
        let due = std::mem::take(&mut self.due);
        for node in due.values().filter_map(|due| due.crashes()) {
            self.crash(node);
        }
        for zone in 0..self.machines.len() - 1 {
            self.network.change(zone, |weather| *weather = Weather::default());
        }
        for node in 0..self.machines.len() {
            self.start(node).await?;
        }
        for due in due.into_values().filter(|due| due.crashes().is_none()) {
            self.happen(due).await?;
        }
        let began = self.now();
        let mut step = Duration::from_millis(50);
        loop {
            sleep_for(step).await;
            let differences = oracle::differences(self);
            let took = self.now() - began;
            if differences.is_empty() {
                self.longest = self.longest.max(took);
                break;
            }
            if took > BOUND {
                let mut truth = self.truth.lock();
                for difference in differences {
                    truth.wrong(format_args!("after {} s: {difference}", BOUND.as_secs()));
                }
                anyhow::bail!("not well {} s after the last fault", BOUND.as_secs());
            }
            step = (step * 2).min(Duration::from_secs(2));
        }
        let took = self.now() - began;
        self.truth.lock().note(format_args!("all is well after {:.2} s", took.as_secs_f64()));
        sleep_for(STILL).await;
        for difference in oracle::differences(self) {
            self.truth.lock().wrong(format_args!("not well any more: {difference}"));
        }
        for difference in statuses::differences(self).await {
            self.truth.lock().wrong(difference);
        }
        let stale = fresh::quiet(self).await;
        // Not before: who had not heard that something was gone looked well, and heard it since.
        self.truth.lock().excused.clear();
        for what in stale {
            self.truth.lock().wrong(what);
        }
        let most = self.network.numbers().most;
        ensure!(most < MOST, "{most} bytes were on their way");
        Ok(())
    }
}
