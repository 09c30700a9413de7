//! Waiting for the outside world.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};

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
            Err(_) => std::thread::sleep(PAUSE),
        }
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
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// How long `act` took.
#[expect(clippy::disallowed_methods, reason = "real time of other processes is what is measured")]
pub fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = act();
    (value, start.elapsed())
}
