//! Zones that are asked about their proxies, for one request.

use super::{Patience, Proxies, State, Zone};
use crate::limits;
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use std::collections::{BTreeSet, VecDeque};
use tokio::time::{Instant, sleep_until};

const ASKED: &str = "the zone was asked and has not answered yet";
const UNTOLD: &str = "nobody says what the proxies took";

/// Asks a zone; `None` if there is nobody to be asked.
pub(super) type Ask<'a> = &'a (dyn Fn(&str) -> Option<BoxFuture<'static, Proxies>> + Send + Sync);

/// What is asked, so many zones at once as are allowed.
#[derive(Default)]
pub(super) struct Questions {
    /// Whom was asked, or is to be.
    zones: BTreeSet<String>,
    queue: VecDeque<BoxFuture<'static, (String, Proxies)>>,
    open: FuturesUnordered<BoxFuture<'static, (String, Proxies)>>,
}

impl Questions {
    /// Asks about `zone` if it has the resource, and says so in it.
    pub(super) fn about(&mut self, zone: &mut Zone, ask: Ask<'_>, patience: Patience) {
        if zone.state != State::Applied {
            return;
        }
        let Some(asked) = ask(&zone.zone) else {
            zone.proxies = Some(known(zone.proxies.take().unwrap_or_default()));
            return;
        };
        zone.proxies = Some(Proxies::only(State::Pending, ASKED));
        let name = zone.zone.clone();
        self.zones.insert(name.clone());
        self.queue.push_back(Box::pin(async move {
            let soonest = Instant::now() + limits::ASKED_AGAIN;
            let proxies = asked.await;
            // It is asked again at once, and answers at once if there is no way to it.
            if proxies.state == Some(State::Pending) && patience == Patience::Settled {
                sleep_until(soonest).await;
            }
            (name, known(proxies))
        }));
    }

    /// Whether a zone is asked, and not looked at.
    pub(super) fn asks(&self, zone: &str) -> bool {
        self.zones.contains(zone)
    }

    /// Whether all have answered.
    pub(super) fn are_answered(&self) -> bool {
        self.queue.is_empty() && self.open.is_empty()
    }

    /// The next answer; `None` if there is no question.
    pub(super) async fn next(&mut self) -> Option<(String, Proxies)> {
        while self.open.len() < limits::ZONES_ASKED
            && let Some(question) = self.queue.pop_front()
        {
            self.open.push(question);
        }
        self.open.next().await
    }
}

/// What nobody says is unknown, and not to be waited for.
fn known(proxies: Proxies) -> Proxies {
    let note = || Some(UNTOLD.to_owned());
    Proxies {
        state: proxies.state.or(Some(State::Unknown)),
        note: proxies.note.or_else(|| proxies.state.is_none().then(note).flatten()),
        ..proxies
    }
}
