//! Wall-clock time as an argument.

use jiff::Timestamp;
use std::{fmt, sync::Arc};

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
