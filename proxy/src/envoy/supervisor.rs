//! One Envoy's life as a value: what to do next, and when to look again.
//!
//! ```text
//! Waiting ─configured─► Starting ─polled─► Serving ─stop─► Draining ─idle or late─► Ending ─► Stopped
//!                          ▲  └──exited──► Resting ◄─exited──┘
//!                          └────due───────────┘
//! ```

use daemon::Backoff;
use std::time::Duration;
use tokio::time::Instant;

/// How often a starting Envoy is asked whether it is ready.
const POLL: Duration = Duration::from_millis(50);
/// How often a draining Envoy is asked how many connections it has.
const COUNT: Duration = Duration::from_millis(200);
/// No drain is shorter: those who call it hear only now that it goes.
const SETTLE: Duration = Duration::from_millis(500);
/// What Envoy has to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// An Envoy that served this long did not fail at its start.
const STEADY: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The bootstrap is there.
    Configured,
    /// The process could not be started, or is gone.
    Exited,
    /// Whether it has its configuration.
    Polled {
        /// It serves.
        ready: bool,
    },
    /// How many connections it has; `None` if it did not say.
    Counted(Option<u64>),
    /// It is to end.
    Stop,
    /// The deadline is over.
    Due,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start the process; answer `Exited` if that fails.
    Start,
    /// Ask whether it is ready; answer `Polled`.
    Poll,
    /// Tell it to drain, gracefully.
    Drain,
    /// Ask for its connections; answer `Counted`.
    Count,
    /// Ask it to end.
    Terminate,
    /// End it.
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Starting { poll: Instant },
    Serving { since: Instant },
    Resting { until: Instant },
    Draining { since: Instant, count: Instant },
    Ending { kill: Instant },
    Stopped,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Supervisor {
    phase: Phase,
    backoff: Backoff,
    drain: Duration,
}

impl Supervisor {
    /// An Envoy that was not started yet, and has `drain` to lose its connections.
    pub(crate) const fn new(drain: Duration) -> Self {
        let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        Self { phase: Phase::Waiting, backoff, drain }
    }

    /// Whether it serves. Not while it drains: then nobody shall come.
    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Serving { .. })
    }

    /// Whether it ended and is not to be started again.
    pub(crate) const fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }

    /// When `Due` is to happen.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting | Phase::Serving { .. } | Phase::Stopped => None,
            Phase::Starting { poll } => Some(poll),
            Phase::Resting { until } => Some(until),
            Phase::Draining { count, .. } => Some(count),
            Phase::Ending { kill } => Some(kill),
        }
    }

    /// What follows from `event`. `random` is uniform in `0.0..1.0`.
    pub(crate) fn step(&mut self, event: &Event, now: Instant, random: f64) -> Option<Action> {
        match event {
            Event::Configured => self.configured(now),
            Event::Exited => self.exited(now, random),
            Event::Polled { ready } => self.polled(*ready, now),
            Event::Counted(connections) => self.counted(*connections, now),
            Event::Stop => self.stop(now),
            Event::Due => self.due(now),
        }
    }

    fn configured(&mut self, now: Instant) -> Option<Action> {
        (self.phase == Phase::Waiting).then(|| self.start(now))
    }

    fn start(&mut self, now: Instant) -> Action {
        self.phase = Phase::Starting { poll: now + POLL };
        Action::Start
    }

    fn exited(&mut self, now: Instant, random: f64) -> Option<Action> {
        self.phase = match self.phase {
            Phase::Draining { .. } | Phase::Ending { .. } | Phase::Stopped => Phase::Stopped,
            Phase::Waiting
            | Phase::Starting { .. }
            | Phase::Serving { .. }
            | Phase::Resting { .. } => {
                if matches!(self.phase, Phase::Serving { since } if now >= since + STEADY) {
                    self.backoff.made_progress();
                }
                Phase::Resting { until: now + self.backoff.next(random) }
            }
        };
        None
    }

    fn polled(&mut self, ready: bool, now: Instant) -> Option<Action> {
        if let Phase::Starting { .. } = self.phase {
            self.phase = if ready {
                Phase::Serving { since: now }
            } else {
                Phase::Starting { poll: now + POLL }
            };
        }
        None
    }

    fn counted(&mut self, connections: Option<u64>, now: Instant) -> Option<Action> {
        let Phase::Draining { since, .. } = self.phase else { return None };
        let settled = now >= since + SETTLE;
        if now >= since + self.drain || settled && connections == Some(0) {
            return Some(self.end(now));
        }
        self.phase = Phase::Draining { since, count: now + COUNT };
        None
    }

    fn end(&mut self, now: Instant) -> Action {
        self.phase = Phase::Ending { kill: now + GRACE };
        Action::Terminate
    }

    fn stop(&mut self, now: Instant) -> Option<Action> {
        match self.phase {
            Phase::Waiting | Phase::Resting { .. } | Phase::Stopped => {
                self.phase = Phase::Stopped;
                None
            }
            // Nobody was told to come here.
            Phase::Starting { .. } => Some(self.end(now)),
            Phase::Serving { .. } => {
                self.phase = Phase::Draining { since: now, count: now + COUNT };
                Some(Action::Drain)
            }
            Phase::Draining { .. } | Phase::Ending { .. } => None,
        }
    }

    fn due(&mut self, now: Instant) -> Option<Action> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        match self.phase {
            Phase::Waiting | Phase::Serving { .. } | Phase::Stopped => None,
            // Again only after the answer, or an Envoy that does not answer would be asked in a heap.
            Phase::Starting { .. } => {
                self.phase = Phase::Starting { poll: now + POLL };
                Some(Action::Poll)
            }
            Phase::Resting { .. } => Some(self.start(now)),
            Phase::Draining { since, .. } => {
                self.phase = Phase::Draining { since, count: now + COUNT };
                Some(Action::Count)
            }
            Phase::Ending { .. } => {
                self.phase = Phase::Ending { kill: now + GRACE };
                Some(Action::Kill)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(10);

    struct Run {
        supervisor: Supervisor,
        now: Instant,
    }

    impl Run {
        fn new() -> Self {
            Self { supervisor: Supervisor::new(DRAIN), now: Instant::now() }
        }

        fn step(&mut self, event: Event) -> Option<Action> {
            self.supervisor.step(&event, self.now, 1.0)
        }

        /// Lets the time of the deadline come.
        fn due(&mut self) -> (Duration, Option<Action>) {
            let deadline = self.supervisor.deadline().unwrap();
            let waited = deadline - self.now;
            self.now = deadline;
            (waited, self.step(Event::Due))
        }

        fn serving() -> Self {
            let mut run = Self::new();
            assert_eq!(run.step(Event::Configured), Some(Action::Start));
            assert_eq!(run.due(), (POLL, Some(Action::Poll)));
            assert_eq!(run.step(Event::Polled { ready: false }), None);
            assert!(!run.supervisor.is_ready());
            assert_eq!(run.due(), (POLL, Some(Action::Poll)));
            assert_eq!(run.step(Event::Polled { ready: true }), None);
            assert!(run.supervisor.is_ready());
            assert_eq!(run.supervisor.deadline(), None, "a serving Envoy is not polled");
            run
        }
    }

    #[test]
    fn an_envoy_that_keeps_dying_is_started_ever_more_seldom() {
        let mut run = Run::serving();
        let mut rest = || {
            run.step(Event::Exited);
            assert!(!run.supervisor.is_ready());
            let (waited, action) = run.due();
            assert_eq!(action, Some(Action::Start));
            waited.as_millis()
        };
        assert_eq!([rest(), rest(), rest()], [200, 400, 800]);
        run.due();
        run.step(Event::Polled { ready: true });
        run.now += STEADY;
        run.step(Event::Exited);
        assert_eq!(run.due(), (Duration::from_millis(200), Some(Action::Start)));
    }

    #[test]
    fn a_drain_ends_when_the_connections_are_gone() {
        let mut run = Run::serving();
        assert_eq!(run.step(Event::Stop), Some(Action::Drain));
        assert!(!run.supervisor.is_ready());
        assert_eq!(run.due(), (COUNT, Some(Action::Count)));
        assert_eq!(run.step(Event::Counted(Some(0))), None, "callers hear of it only now");
        assert_eq!(run.due(), (COUNT, Some(Action::Count)));
        assert_eq!(run.step(Event::Counted(Some(3))), None);
        assert_eq!(run.due(), (COUNT, Some(Action::Count)));
        assert_eq!(run.step(Event::Counted(Some(0))), Some(Action::Terminate));
        run.step(Event::Exited);
        assert!(run.supervisor.is_stopped());
    }

    #[test]
    fn a_drain_that_takes_too_long_is_ended_and_then_killed() {
        let mut run = Run::serving();
        let began = run.now;
        run.step(Event::Stop);
        let action = loop {
            assert_eq!(run.due().1, Some(Action::Count));
            if let Some(action) = run.step(Event::Counted(None)) {
                break action;
            }
        };
        assert_eq!((action, run.now - began), (Action::Terminate, DRAIN));
        assert_eq!(run.due(), (GRACE, Some(Action::Kill)));
        assert!(!run.supervisor.is_stopped(), "the process is still there");
        run.step(Event::Exited);
        assert!(run.supervisor.is_stopped());
    }

    #[test]
    fn who_does_not_serve_has_nothing_to_drain() {
        let mut run = Run::new();
        assert_eq!(run.step(Event::Stop), None);
        assert!(run.supervisor.is_stopped());
        let mut run = Run::new();
        run.step(Event::Configured);
        assert_eq!(run.step(Event::Stop), Some(Action::Terminate));
        let mut run = Run::new();
        run.step(Event::Configured);
        run.step(Event::Exited);
        assert_eq!(run.step(Event::Stop), None);
        assert!(run.supervisor.is_stopped(), "it rests");
    }

    #[test]
    fn nothing_starts_it_again_once_it_is_to_end() {
        let mut run = Run::serving();
        run.step(Event::Stop);
        run.step(Event::Exited);
        assert_eq!(run.step(Event::Configured), None);
        assert!(run.supervisor.is_stopped());
        assert_eq!(run.supervisor.deadline(), None);
    }
}
