//! How many requests may be under way: fewer where the API server has trouble, none for a while
//! where it is away.

use daemon::Backoff;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

const MOST: usize = 32;
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Pace {
    window: usize,
    under_way: usize,
    pause: Option<Instant>,
    backoff: Backoff,
}

impl Default for Pace {
    fn default() -> Self {
        Self { window: MOST, under_way: 0, pause: None, backoff: backoff() }
    }
}

/// The delays between attempts.
pub(super) const fn backoff() -> Backoff {
    Backoff::new(MIN_PAUSE, MAX_PAUSE)
}

impl Pace {
    pub(super) const fn is_free(&self) -> bool {
        self.pause.is_none() && self.under_way < self.window
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.under_way == 0
    }

    pub(super) const fn started(&mut self) {
        self.under_way += 1;
    }

    /// The API server answered, whatever it said.
    pub(super) fn answered(&mut self) {
        self.under_way -= 1;
        self.window = (self.window * 2).min(MOST);
        self.backoff.made_progress();
    }

    /// It could not do what it was asked.
    pub(super) const fn failed(&mut self) {
        self.under_way -= 1;
        self.window = 1;
    }

    /// It cannot do anything, and says perhaps for how long.
    pub(super) fn is_away(&mut self, wish: Duration) {
        self.failed();
        // Requests that were under way together fail together.
        if self.pause.is_none() {
            let pause = self.backoff.next(fastrand::f64()).max(wish);
            self.pause = Some(Instant::now() + pause);
        }
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Waits for the end of a pause. Cancel safe.
    pub(super) async fn over(&mut self) {
        if let Some(pause) = self.pause {
            sleep_until(pause).await;
            self.pause = None;
        }
    }
}
