//! How an operator sees the zone's connection with global.

use api::following::{Follow, Following, FollowingState, Held, NotHeld};
use kds::zone::{Handle, State};

/// The global that the zone follows.
#[derive(Debug)]
pub(crate) struct Global(pub(crate) Handle);

impl Follow for Global {
    fn following(&self) -> Following {
        seen(&self.0.state().borrow())
    }

    fn adopt(&self, global: &str) -> Result<(), NotHeld> {
        let held = self.0.state().borrow().held.clone();
        let seen = held.as_ref().and_then(|held| held.identity()).ok_or(NotHeld)?;
        if seen.to_string() != global {
            return Err(NotHeld);
        }
        self.0.adopt(seen).map_err(|_| NotHeld)
    }
}

fn seen(state: &State) -> Following {
    let held = state.held.as_ref().map(|held| Held {
        reason: held.to_string(),
        global: held.identity().map(ToString::to_string),
    });
    Following {
        state: match (&held, state.connected_since) {
            (Some(_), _) => FollowingState::Held,
            (None, Some(_)) => FollowingState::Following,
            (None, None) => FollowingState::Away,
        },
        complete: state.complete_once,
        connected_since: state.connected_since,
        last_heard: state.last_heard,
        last_failure: state.last_failure.clone(),
        held,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kds::memory::{Held as HeldBack, Identity};

    #[test]
    fn a_zone_is_held_whether_it_is_connected_or_not() {
        let now: jiff::Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let identity = Identity { id: "c2".into(), epoch: Some(10) };
        let held = HeldBack::RemovesAll { kind: "Mesh", identity };
        let state = |connected_since, held| State { connected_since, held, ..State::default() };
        let shown = |state: &State| seen(state).state;
        assert_eq!(shown(&state(None, None)), FollowingState::Away);
        assert_eq!(shown(&state(Some(now), None)), FollowingState::Following);
        assert_eq!(shown(&state(None, Some(held.clone()))), FollowingState::Held);
        let expected = Following {
            state: FollowingState::Held,
            complete: false,
            connected_since: Some(now),
            last_heard: None,
            last_failure: None,
            held: Some(Held {
                reason: "global has none of the Mesh resources of this zone: all would be removed"
                    .into(),
                global: Some("\"c2\", store a".into()),
            }),
        };
        assert_eq!(seen(&state(Some(now), Some(held))), expected);
    }
}
