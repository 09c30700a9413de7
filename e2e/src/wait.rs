//! Waiting for the outside world.

use anyhow::{Context, Result, bail};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How often to look.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `look` returns something; its last error is part of the failure.
#[expect(
    clippy::disallowed_methods,
    reason = "other processes have no clock that a test could pause"
)]
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > limit => {
                return Err(error).with_context(|| format!("{what} within {limit:?}"));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// A time that must not pass.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    start: Instant,
    limit: Duration,
}

impl Limit {
    /// `limit` from now on.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "other processes have no clock that a test could pause"
    )]
    pub fn after(limit: Duration) -> Self {
        Self { start: Instant::now(), limit }
    }

    /// Fails once the time is over.
    pub fn check(&self, what: &str) -> Result<()> {
        let Self { start, limit } = self;
        if start.elapsed() > *limit { bail!("{what}: not over within {limit:?}") } else { Ok(()) }
    }
}

/// Looks again and again for the whole of `time`; it must never fail.
#[expect(
    clippy::disallowed_methods,
    reason = "other processes have no clock that a test could pause"
)]
pub fn throughout(what: &str, time: Duration, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        look().with_context(|| format!("{what}, after {:?}", start.elapsed()))?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Looks again and again, in a thread of its own, for something that must never fail.
#[derive(Debug)]
pub struct Watch {
    what: String,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Watch {
    /// Begins to look.
    #[expect(
        clippy::disallowed_methods,
        reason = "other processes have no clock that a test could pause"
    )]
    pub fn start(what: &str, mut look: impl FnMut() -> Result<()> + Send + 'static) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut looks = 0;
            loop {
                // The last look is one after it was asked to end.
                let last = stopped.load(Ordering::Relaxed);
                look()?;
                looks += 1;
                if last {
                    return Ok(looks);
                }
                thread::sleep(PAUSE);
            }
        });
        Self { what: what.to_owned(), stop, thread }
    }

    /// Looks once more, and says how often it looked; fails if it failed once.
    pub fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let Ok(looks) = self.thread.join() else { bail!("{}: the watch panicked", self.what) };
        looks.context(self.what)
    }
}

/// How long `act` took.
#[expect(clippy::disallowed_methods, reason = "real time of other processes is what is measured")]
pub fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = act();
    (value, start.elapsed())
}
