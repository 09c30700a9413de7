//! What is said again and again is said now and then, with how often it was not.

use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hash, RandomState},
    time::Duration,
};
use tokio::time::Instant;

/// The same is said so often.
const PAUSE: Duration = Duration::from_secs(30);
/// So many are told apart; those that come when there are as many count as the same.
const KNOWN: usize = 256;

/// Decides what is said.
#[derive(Debug, Default)]
pub struct Repeats {
    hasher: RandomState,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    said: BTreeMap<u64, Said>,
    others: Option<Said>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    at: Instant,
    unsaid: u64,
}

impl Said {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.at) >= PAUSE
    }
}

impl Repeats {
    /// If `what` is to be said now: how often it was not, since it was said before.
    #[must_use]
    pub fn say(&self, what: impl Hash) -> Option<u64> {
        let (key, now) = (self.hasher.hash_one(what), Instant::now());
        let known = &mut *self.known.lock();
        if !known.said.contains_key(&key) && known.said.len() >= KNOWN {
            // What nobody counted is forgotten.
            known.said.retain(|_, said| !said.is_over(now));
        }
        let is_full = known.said.len() >= KNOWN;
        let said = match known.said.get_mut(&key) {
            Some(said) => said,
            None if is_full => match &mut known.others {
                Some(said) => said,
                others => {
                    *others = Some(Said { at: now, unsaid: 0 });
                    return Some(0);
                }
            },
            None => {
                known.said.insert(key, Said { at: now, unsaid: 0 });
                return Some(0);
            }
        };
        if !said.is_over(now) {
            said.unsaid += 1;
            return None;
        }
        let unsaid = said.unsaid;
        *said = Said { at: now, unsaid: 0 };
        Some(unsaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn the_same_is_said_once_and_then_every_half_minute_with_its_count() {
        let repeats = Repeats::default();
        let mut said = Vec::new();
        // Six calls, every ten seconds.
        for _ in 0..7 {
            let calls = (0..6).filter_map(|_| repeats.say(("west", "no token")));
            said.push(calls.collect::<Vec<_>>());
            advance(Duration::from_secs(10)).await;
        }
        let none = Vec::new;
        assert_eq!(said, [vec![0], none(), none(), vec![17], none(), none(), vec![17]]);
    }

    #[tokio::test(start_paused = true)]
    async fn another_zone_and_another_reason_are_said_at_once() {
        let repeats = Repeats::default();
        let all = [("west", "no token"), ("east", "no token"), ("west", "deleted")];
        assert_eq!(all.map(|what| repeats.say(what)), [Some(0); 3]);
        assert_eq!(all.map(|what| repeats.say(what)), [None; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_invents_names_fills_neither_the_memory_nor_the_log() {
        let repeats = Repeats::default();
        let flood = |range: std::ops::Range<usize>| range.filter_map(|it| repeats.say(it)).count();
        assert_eq!(flood(0..10_000), KNOWN + 1);
        assert_eq!(repeats.known.lock().said.len(), KNOWN);
        advance(PAUSE).await;
        assert_eq!(repeats.say("west"), Some(0), "what is over makes room");
        assert_eq!(flood(20_000..30_000), KNOWN);
        assert_eq!(repeats.known.lock().said.len(), KNOWN);
    }
}
