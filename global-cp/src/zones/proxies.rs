//! What became of resources in zones, and in their proxies if somebody asks.

use super::Propagation;
use api::propagation::{Patience, Propagate, Proxies, State, Zone};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use kds::admin::{Question, Registry, Unanswered, When};
use resource::{ResourceKey, ZoneName};
use std::{collections::BTreeSet, sync::Arc};
use store::view::KindId;
use tokio::sync::watch;

/// The longest answer of a zone that is read, in bytes.
const ANSWER: usize = 256 * 1024;
const TOO_LONG: &str = "the zone says more than is read";
const NO_SENSE: &str = "what the zone says makes no sense";
const NOT_SHOWN: &str = "the zone is not shown it any more";

/// Knows what zones have, and asks them about their proxies.
#[derive(Debug)]
pub(crate) struct WithProxies {
    pub(crate) propagation: Arc<Propagation>,
    pub(crate) zones: Registry,
}

impl Propagate for WithProxies {
    fn of(
        &self,
        kind: KindId,
        key: &ResourceKey,
        only: Option<&BTreeSet<String>>,
    ) -> Option<Vec<Zone>> {
        self.propagation.of(kind, key, only)
    }

    fn changes(&self, kind: KindId) -> watch::Receiver<u64> {
        self.propagation.changes(kind)
    }

    fn proxies(
        &self,
        kind: KindId,
        key: &ResourceKey,
        zone: &str,
        patience: Patience,
    ) -> Option<BoxFuture<'static, Proxies>> {
        let zone = ZoneName::new(zone).ok()?;
        let Some((kind, key)) = self.propagation.key_in(kind, key, &zone) else {
            return Some(async { Proxies::only(State::Pending, NOT_SHOWN) }.boxed());
        };
        let when = match patience {
            Patience::Now => When::Now,
            Patience::Settled => When::Settled,
        };
        let (zones, question) = (self.zones.clone(), Question::propagation(kind, &key, when));
        Some(async move { said(zones.ask(&zone, &question).await) }.boxed())
    }
}

/// What a zone said, or why it did not.
fn said(answer: Result<Bytes, Unanswered>) -> Proxies {
    match answer {
        Ok(answer) if answer.len() > ANSWER => Proxies::only(State::Unknown, TOO_LONG),
        Ok(answer) => {
            let said = serde_json::from_slice(&answer).ok();
            let said = said.filter(|said: &Proxies| said.state.is_some());
            said.unwrap_or_else(|| Proxies::only(State::Unknown, NO_SENSE))
        }
        // These answer another time.
        Err(
            error @ (Unanswered::NotConnected(_) | Unanswered::Busy(_) | Unanswered::TimedOut(_)),
        ) => Proxies::only(State::Pending, &error.to_string()),
        Err(error @ (Unanswered::Failed(_) | Unanswered::NotUnderstood(_))) => {
            Proxies::only(State::Unknown, &error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_zone_says_is_shown_as_it_says_it_and_what_it_cannot_say_is_unknown() {
        let zone = || ZoneName::new("east").unwrap();
        let text = r#"{"state":"Refused","concerned":3,"applied":1,"pending":["b"],"more":1,
            "since":"2026-11-24T12:00:00Z",
            "refused":[{"proxy":"a","what":"Listener x","reason":"in use"}]}"#;
        let told = said(Ok(Bytes::from_static(text.as_bytes())));
        assert_eq!((told.state, told.concerned, told.applied), (Some(State::Refused), 3, 1));
        assert_eq!(
            (&told.pending[..], &*told.refused[0].reason),
            (&["b".to_owned()][..], "in use")
        );
        assert!(told.since.is_some());

        let long = Bytes::from(vec![b' '; ANSWER + 1]);
        assert_eq!(said(Ok(long)), Proxies::only(State::Unknown, TOO_LONG));
        for bad in ["", "[]", "{", r#"{"state":"Gone"}"#, r#"{"applied":-1}"#] {
            let told = said(Ok(Bytes::from_static(bad.as_bytes())));
            assert_eq!(told, Proxies::only(State::Unknown, NO_SENSE), "{bad:?}");
        }
        let failed = Unanswered::Failed("the zone does not have it".into());
        for (error, state) in [
            (Unanswered::NotConnected(zone()), State::Pending),
            (Unanswered::Busy(zone()), State::Pending),
            (Unanswered::TimedOut(zone()), State::Pending),
            (Unanswered::NotUnderstood(zone()), State::Unknown),
            (failed, State::Unknown),
        ] {
            let expected = Proxies::only(state, &error.to_string());
            assert_eq!(said(Err(error)), expected);
        }
    }
}
