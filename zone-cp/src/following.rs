//! How an operator sees the zone's connection with global.

use api::following::{
    Difference, Differs, Follow, Following, FollowingState, Held, NotHeld, Unseen,
};
use futures::future::BoxFuture;
use kds::zone::{self, Handle, State, Step};

/// The global that the zone follows.
#[derive(Debug)]
pub(crate) struct Global(pub(crate) Handle);

impl Follow for Global {
    fn following(&self) -> Following {
        seen(&self.0.state().borrow())
    }

    fn difference(&self) -> BoxFuture<'_, Result<Difference, Unseen>> {
        Box::pin(async {
            let difference = self.0.difference().await;
            difference.map(different).map_err(|error| Unseen(error.to_string()))
        })
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

fn different(seen: zone::Difference) -> Difference {
    let mut difference =
        Difference { global: seen.identity.map(|it| it.to_string()), ..Difference::default() };
    for ((kind, key), step) in seen.steps {
        let of_step = match step {
            Step::Create => &mut difference.create,
            Step::Change => &mut difference.change,
            Step::Delete => &mut difference.delete,
        };
        let (mesh, name) = (key.mesh.map(|mesh| mesh.to_string()), key.name.to_string());
        of_step.push(Differs { r#type: kind.into(), mesh, name });
    }
    difference
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

    #[test]
    fn a_difference_is_shown_by_what_becomes_of_each() {
        let key = |name: &str| {
            let mesh = resource::MeshName::new("shop").unwrap();
            resource::ResourceKey::in_mesh(&mesh, name)
        };
        let seen = zone::Difference {
            identity: Some(Identity { id: "c2".into(), epoch: None }),
            steps: [
                (("Mesh", resource::ResourceKey::global("shop")), Step::Create),
                (("MeshTimeout", key("a")), Step::Change),
                (("MeshTimeout", key("b")), Step::Delete),
            ]
            .into(),
        };
        let differs = |kind: &str, mesh: Option<&str>, name: &str| {
            let mesh = mesh.map(str::to_owned);
            vec![Differs { r#type: kind.into(), mesh, name: name.into() }]
        };
        let expected = Difference {
            global: Some("\"c2\"".into()),
            create: differs("Mesh", None, "shop"),
            change: differs("MeshTimeout", Some("shop"), "a"),
            delete: differs("MeshTimeout", Some("shop"), "b"),
        };
        assert_eq!(different(seen), expected);
    }
}
