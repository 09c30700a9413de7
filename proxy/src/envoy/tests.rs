//! Supervision with processes that are made up, in paused time.

use super::*;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{collections::VecDeque, future::Future, io, sync::Arc, time::Duration};
use tokio::{sync::Notify, time::timeout};

/// What the made-up Envoys do and what was done to them.
#[derive(Clone, Default)]
struct World(Arc<Inner>);

#[derive(Default)]
struct Inner {
    seen: Mutex<Vec<String>>,
    connections: Mutex<VecDeque<u64>>,
    ready: Mutex<bool>,
    missing: Mutex<bool>,
    stubborn: Mutex<bool>,
    die: Notify,
}

impl World {
    fn saw(&self, what: &str) {
        self.0.seen.lock().push(what.into());
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.seen.lock())
    }
}

impl Runner for World {
    type Process = Self;

    fn start(&self, _launch: &Launch) -> io::Result<Self> {
        if *self.0.missing.lock() {
            self.saw("missing");
            return Err(io::ErrorKind::NotFound.into());
        }
        self.saw("start");
        Ok(self.clone())
    }
}

impl Process for World {
    fn id(&self) -> Option<u32> {
        None
    }

    async fn exited(&mut self) -> String {
        self.0.die.notified().await;
        "exit status: 1".into()
    }

    fn signal(&mut self, signal: Signal) {
        self.saw(&format!("{signal:?}"));
        if signal == Signal::Kill || !*self.0.stubborn.lock() {
            self.0.die.notify_one();
        }
    }
}

impl Admin for World {
    async fn is_ready(&self) -> bool {
        *self.0.ready.lock()
    }

    async fn drain(&self) -> Result<(), AdminError> {
        self.saw("drain");
        Ok(())
    }

    async fn connections(&self) -> Result<u64, AdminError> {
        self.saw("count");
        Ok(self.0.connections.lock().pop_front().unwrap_or(9))
    }

    async fn fetch(&self, _what: What, _query: &str) -> Result<Bytes, AdminError> {
        Err(AdminError::Late)
    }
}

struct Running {
    world: World,
    configured: watch::Sender<bool>,
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

const LONG: Duration = Duration::from_secs(60);

impl Running {
    fn of(world: World) -> (Self, impl Future<Output = Result<(), WorkdirError>>) {
        let folder = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(&folder.path().join("w")).unwrap();
        let launch = Launch {
            program: "envoy".into(),
            arguments: Vec::new(),
            folder: workdir.path().into(),
            log: None,
        };
        let envoy = Envoy {
            runner: world.clone(),
            admin: world.clone(),
            launch,
            workdir,
            drain: Duration::from_secs(10),
            starts: Counter::default(),
        };
        let (configured, is_configured) = watch::channel(false);
        let (shows, ready) = watch::channel(false);
        let stop = CancellationToken::new();
        let run = envoy.run(is_configured, shows, stop.clone());
        (Self { world, configured, ready, stop, _folder: folder }, run)
    }

    async fn wait_for(&mut self, ready: bool) {
        let wait = self.ready.wait_for(|now| *now == ready);
        drop(timeout(LONG, wait).await.expect("in time").expect("it runs"));
    }
}

#[tokio::test(start_paused = true)]
async fn envoy_starts_once_configured_and_comes_back_when_it_dies() {
    let (mut running, run) = Running::of(World::default());
    let test = async {
        tokio::task::yield_now().await;
        assert_eq!(running.world.seen(), [""; 0], "there is nothing to start it with yet");
        *running.world.0.ready.lock() = true;
        running.configured.send(true).unwrap();
        running.wait_for(true).await;
        running.world.0.die.notify_one();
        running.wait_for(false).await;
        running.wait_for(true).await;
        assert_eq!(running.world.seen(), ["start", "start"]);
        running.world.0.connections.lock().extend([1, 0, 0]);
        running.stop.cancel();
        running.wait_for(false).await;
    };
    let (run, ()) = timeout(LONG, async { tokio::join!(run, test) }).await.unwrap();
    run.unwrap();
    assert_eq!(running.world.seen(), ["drain", "count", "count", "count", "Terminate"]);
}

#[tokio::test(start_paused = true)]
async fn an_envoy_that_does_not_end_is_killed() {
    let (mut running, run) = Running::of(World::default());
    *running.world.0.ready.lock() = true;
    *running.world.0.stubborn.lock() = true;
    let test = async {
        running.configured.send(true).unwrap();
        running.wait_for(true).await;
        running.world.0.connections.lock().extend([0; 9]);
        running.stop.cancel();
    };
    let (run, ()) = timeout(LONG, async { tokio::join!(run, test) }).await.unwrap();
    run.unwrap();
    assert_eq!(
        running.world.seen(),
        ["start", "drain", "count", "count", "count", "Terminate", "Kill"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_program_that_is_missing_is_tried_again() {
    let (mut running, run) = Running::of(World::default());
    *running.world.0.ready.lock() = true;
    *running.world.0.missing.lock() = true;
    let began = Instant::now();
    let test = async {
        running.configured.send(true).unwrap();
        while running.world.0.seen.lock().len() < 3 {
            tokio::time::advance(Duration::from_millis(100)).await;
            tokio::task::yield_now().await;
            assert!(began.elapsed() < LONG, "it is not tried again");
        }
        *running.world.0.missing.lock() = false;
        running.wait_for(true).await;
        running.stop.cancel();
    };
    let (run, ()) = timeout(LONG, async { tokio::join!(run, test) }).await.unwrap();
    run.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_before_there_was_a_bootstrap_ends_at_once() {
    let (running, run) = Running::of(World::default());
    running.stop.cancel();
    timeout(LONG, run).await.unwrap().unwrap();
    assert_eq!(running.world.seen(), [""; 0]);
}
