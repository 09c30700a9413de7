//! One global that crashes, and zones that write to it.
//!
//! The calls are those of the gRPC health service, whose messages come with a crate: `check` stands
//! for a write that is answered when it is durable.

use crate::{Disk, network};
use anyhow::Context as _;
use daemon::Backoff;
use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::{
    Backend, Embedded, Local,
    conformance::{SAMPLES, clock, key, kinds, put},
    open,
};
use tonic::{Request, Response, Status, transport::Server};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

const PORT: u16 = 5685;
const ZONES: u64 = 3;
const WRITES: usize = 20;
const CRASHES: usize = 3;

/// What happened, in order, with its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace(pub Vec<String>);

/// What all parts of a run write to.
#[derive(Clone, Debug, Default)]
struct Witness {
    trace: Arc<Mutex<Trace>>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
}

impl Witness {
    fn saw(&self, what: impl std::fmt::Display) {
        self.saw_at(turmoil::elapsed(), what);
    }

    fn saw_at(&self, at: Duration, what: impl std::fmt::Display) {
        self.trace.lock().0.push(format!("{at:?} {what}"));
    }
}

/// Runs the history of `seed`. Fails if a write that was acknowledged is gone.
pub fn run(seed: u64) -> anyhow::Result<Trace> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (witness, disk) = (Witness::default(), Disk::default());
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(120))
        .max_message_latency(Duration::from_millis(20))
        .build();
    let (seen, disks) = (witness.clone(), disk.clone());
    sim.host("global", move || global(disks.clone(), seen.clone()));
    for zone in 0..ZONES {
        let random = fastrand::Rng::with_seed(seed.wrapping_mul(ZONES).wrapping_add(zone));
        let seen = witness.clone();
        sim.client(zone_name(zone), async move { Ok(write(zone, random, seen).await?) });
    }

    let mut crashes: Vec<u64> = (0..CRASHES).map(|_| random.u64(20..400)).collect();
    loop {
        let now = sim.elapsed();
        if let Some(at) = crashes.iter().position(|at| now >= Duration::from_millis(*at)) {
            crashes.remove(at);
            witness.saw_at(now, "global crashes");
            crash(&mut sim, &disk, &mut random);
        }
        if sim.step().map_err(|error| anyhow::anyhow!("{error}"))? {
            break;
        }
    }
    drop(sim);

    let (store, _writer) = open(Embedded::open_on(disk.attach())?, kinds(), clock())?;
    let rows = store.reader().snapshot();
    for name in &*witness.acknowledged.lock() {
        rows.rows(SAMPLES).get(&key(name)).with_context(|| format!("{name} is lost"))?;
    }
    Ok(witness.trace.lock().clone())
}

/// Power fails. The cables are pulled first: a dying machine does not say goodbye, and tokio drops
/// the tasks of a runtime in an order that is not ours, so that their goodbyes would differ in each
/// run.
fn crash(sim: &mut turmoil::Sim<'_>, disk: &Disk, random: &mut fastrand::Rng) {
    for zone in 0..ZONES {
        sim.partition("global", zone_name(zone));
    }
    disk.crash(|| random.bool());
    sim.crash("global");
    sim.bounce("global");
    for zone in 0..ZONES {
        sim.repair("global", zone_name(zone));
    }
}

fn zone_name(zone: u64) -> String {
    format!("zone-{zone}")
}

async fn global(disk: Disk, witness: Witness) -> turmoil::Result {
    let (store, writer) = open(Embedded::open_on(disk.attach())?, kinds(), clock())?;
    witness.saw(format_args!("global has {}", store.reader().snapshot().rows(SAMPLES).len()));
    let service = HealthServer::new(Global { store, witness });
    let serving =
        Server::builder().add_service(service).serve_with_incoming(network::listen(PORT).await?);
    tokio::select! {
        biased;
        served = serving => served?,
        // In place: on a thread of its own the writer would be faster or slower in each run.
        wrote = writer.run() => wrote?,
    }
    Ok(())
}

struct Global {
    store: Local,
    witness: Witness,
}

#[tonic::async_trait]
impl Health for Global {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        let committed = self.store.commit(vec![put(&name, "1s")]).await;
        let committed = committed.map_err(|error| Status::unavailable(error.to_string()))?;
        self.witness.saw(format_args!("global wrote {name} at {:?}", committed.revision));
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    type WatchStream = futures::stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not needed here"))
    }
}

/// Writes until everything is acknowledged, whatever happens to global meanwhile.
async fn write(zone: u64, mut random: fastrand::Rng, witness: Witness) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(200));
    let mut done = 0;
    while done < WRITES {
        if let Err(error) = session(zone, &mut done, &mut backoff, &mut random, &witness).await {
            let delay = backoff.next(random.f64());
            witness.saw(format_args!("zone-{zone} tries again in {delay:?}: {error:#}"));
            pause(delay).await;
        }
    }
    Ok(())
}

async fn session(
    zone: u64,
    done: &mut usize,
    backoff: &mut Backoff,
    random: &mut fastrand::Rng,
    witness: &Witness,
) -> anyhow::Result<()> {
    let mut global = HealthClient::new(network::connect("global", PORT).await?);
    while *done < WRITES {
        let service = format!("zone-{zone}-{done}");
        let request = HealthCheckRequest { service: service.clone() };
        global.check(request).await.map_err(|status| anyhow::anyhow!("{:?}", status.code()))?;
        witness.saw(format_args!("zone-{zone} knows that {service} is durable"));
        witness.acknowledged.lock().insert(service);
        backoff.made_progress();
        *done += 1;
        pause(Duration::from_millis(random.u64(0..20))).await;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "simulated time: nobody waits")]
async fn pause(delay: Duration) {
    tokio::time::sleep(delay).await;
}
