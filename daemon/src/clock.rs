//! Wall-clock time as an argument.

use jiff::Timestamp;
use std::{fmt, sync::Arc, time::Duration};

/// Tells what time it is. Tests and simulations pass one of their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::of(Timestamp::now)
    }

    /// A clock that shows what `now` says.
    pub fn of(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// A clock that starts at `start` and runs with tokio's time, so that a paused test moves it.
    /// Must be called within a runtime.
    #[must_use]
    pub fn since(start: Timestamp) -> Self {
        let began = tokio::time::Instant::now();
        Self::of(move || start.saturating_add(began.elapsed()).unwrap_or(Timestamp::MAX))
    }

    /// Waits until it is `at`. Cancel safe.
    pub async fn sleep_until(&self, at: Timestamp) {
        // In steps, because the clock may be set while the machine counts on.
        const STEP: Duration = Duration::from_secs(3600);
        loop {
            let left = self.now().duration_until(at);
            if !left.is_positive() {
                return;
            }
            let step = left.unsigned_abs().min(STEP);
            tokio::time::sleep_until(tokio::time::Instant::now() + step).await;
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn waits_until_a_time() {
        let (start, began) = (Timestamp::UNIX_EPOCH, Instant::now());
        let clock = Clock::since(start);
        clock.sleep_until(start + Duration::from_secs(86_400)).await;
        assert_eq!(began.elapsed().as_secs(), 86_400);
        clock.sleep_until(start).await;
        assert_eq!(began.elapsed().as_secs(), 86_400);
    }
}
