//! Says whether a process can do its work, and what is missing.

use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

type Missing = BTreeMap<&'static str, usize>;
type Problems = BTreeMap<&'static str, Vec<String>>;

/// Is ready when every part has dropped its guard.
#[derive(Clone, Debug)]
pub struct Ready {
    missing: watch::Sender<Missing>,
    problems: Arc<Mutex<Problems>>,
    shutdown: CancellationToken,
}

/// Held by a part that is not ready yet.
#[derive(Debug)]
#[must_use = "a dropped guard means that the part is ready"]
pub struct Guard {
    part: &'static str,
    missing: watch::Sender<Missing>,
}

impl Ready {
    /// Readiness of a process, which ends when `shutdown` is cancelled.
    #[must_use]
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { missing: watch::Sender::new(Missing::new()), problems: Arc::default(), shutdown }
    }

    /// The process is not ready until the guard is dropped. A part that is not ready any more takes
    /// another one.
    pub fn guard(&self, part: &'static str) -> Guard {
        self.missing.send_modify(|missing| *missing.entry(part).or_default() += 1);
        Guard { part, missing: self.missing.clone() }
    }

    /// The parts that are not ready, in the order of their names; `shutdown` while stopping.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing: Vec<_> = self.missing.borrow().keys().copied().collect();
        if self.shutdown.is_cancelled() {
            missing.push("shutdown");
        }
        missing
    }

    /// Shows what is wrong with `part`, for its operator, whether it is ready or not.
    pub fn show(&self, part: &'static str, problems: Vec<String>) {
        let mut shown = self.problems.lock();
        if problems.is_empty() {
            shown.remove(part);
        } else {
            shown.insert(part, problems);
        }
    }

    /// What is wrong, each with its part before it.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let shown = self.problems.lock();
        let each = shown.iter().flat_map(|(part, all)| all.iter().map(move |it| (part, it)));
        each.map(|(part, problem)| format!("{part}: {problem}")).collect()
    }

    /// Waits until `part` is not missing.
    pub async fn wait_for(&self, part: &str) {
        // Cannot fail: we hold a sender.
        let there = |missing: &Missing| !missing.contains_key(part);
        drop(self.missing.subscribe().wait_for(there).await);
    }

    /// Waits until no part is missing.
    pub async fn wait(&self) {
        // Cannot fail: we hold a sender.
        drop(self.missing.subscribe().wait_for(Missing::is_empty).await);
    }
}

impl Default for Ready {
    fn default() -> Self {
        Self::new(CancellationToken::new())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.missing.send_modify(|missing| {
            if let Some(guards) = missing.get_mut(self.part) {
                *guards -= 1;
                if *guards == 0 {
                    missing.remove(self.part);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lists_who_is_missing() {
        let shutdown = CancellationToken::new();
        let ready = Ready::new(shutdown.clone());
        let (kds, store, again) = (ready.guard("kds"), ready.guard("store"), ready.guard("kds"));
        assert_eq!(ready.missing(), ["kds", "store"]);
        let mut part = tokio_test::task::spawn(ready.wait_for("kds"));
        drop(kds);
        assert_eq!(ready.missing(), ["kds", "store"]);
        assert!(part.poll().is_pending());
        drop(again);
        assert!(part.poll().is_ready());
        assert_eq!(ready.missing(), ["store"]);

        let mut wait = tokio_test::task::spawn(ready.wait());
        assert!(wait.poll().is_pending());
        drop(store);
        assert!(wait.is_woken());
        assert!(wait.poll().is_ready());

        let lost = ready.guard("envoy");
        assert_eq!(ready.missing(), ["envoy"]);
        drop(lost);
        assert_eq!(ready.missing(), [""; 0]);
        shutdown.cancel();
        assert_eq!(ready.missing(), ["shutdown"]);
    }
}
