//! How what an overview shows does, at a glance.

use super::{following::FollowingState, state::Api};
use jiff::Timestamp;
use kinds::{
    dataplane::{self, Dataplane, Presence},
    dataplane_insight::DataplaneInsight,
    labels::Place,
    zone::{self, Zone},
    zone_insight::{self, ZoneInsight},
};
use resource::{Kind, Resource, ResourceKey, label};
use serde::Serialize;
use store::Backend;

/// The part `status` of an overview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Health {
    state: State,
    /// Since when it is connected, or else since when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// Why it is not better, and what else is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// In one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum State {
    /// All is well.
    Online,
    /// It serves some of what it should.
    PartiallyDegraded,
    /// It is connected and serves nothing of what it should.
    NotReady,
    /// It is connected and takes nothing.
    Held,
    /// It is not connected.
    Offline,
    /// Who could say is not connected.
    Unknown,
}

/// Of the resource `row`, if its kind does well or badly.
pub(crate) fn of<B: Backend>(
    api: &Api<B>,
    kind: &Kind,
    row: &Resource,
    insight: Option<&Resource>,
) -> Option<Health> {
    if kind.name == dataplane::KIND.name {
        let dataplane = kinds::read::<Dataplane>(row).ok()?;
        let insight = insight.and_then(|row| kinds::read::<DataplaneInsight>(row).ok());
        let said = of_dataplane(&dataplane, insight.as_deref());
        return Some(away(api, row).map_or_else(|| said.clone(), |zone| unknown(zone, &said)));
    }
    if kind.name == zone::KIND.name {
        let enabled = kinds::read::<Zone>(row).ok()?.is_enabled();
        return Some(match &api.given.global {
            // A zone knows of itself only how it stands with global.
            Some(global) => of_follower(&global.following()),
            None => of_zone(enabled, insight),
        });
    }
    None
}

fn of_dataplane(dataplane: &Dataplane, insight: Option<&DataplaneInsight>) -> Health {
    let since = insight.and_then(DataplaneInsight::since);
    if !insight.is_some_and(DataplaneInsight::is_online) {
        let why = if since.is_some() { "its proxy is not connected" } else { NEVER };
        return Health { state: State::Offline, since, reasons: vec![why.into()] };
    }
    let state = match dataplane.presence(true) {
        Presence::Online => State::Online,
        Presence::PartiallyDegraded => State::PartiallyDegraded,
        Presence::Offline => State::NotReady,
    };
    let unready = dataplane.unready().into_iter().map(|what| format!("{what} is not ready"));
    let problems = insight.into_iter().flat_map(DataplaneInsight::problems).map(str::to_owned);
    // A gateway is somebody else's, and so is what it serves.
    let unready = unready.filter(|_| !dataplane.is_gateway());
    Health { state, since, reasons: unready.chain(problems).collect() }
}

const NEVER: &str = "no proxy ever was connected";

/// The zone of `row`, if it is not connected, so that what is known may be old.
fn away<'a, B: Backend>(api: &Api<B>, row: &'a Resource) -> Option<&'a str> {
    if api.given.place.here != Place::Global {
        return None;
    }
    let zone = row.head.labels.get(label::ZONE)?;
    let (id, _) = api.kind(zone_insight::KIND.name)?;
    let insight = api.reader.get(id, &ResourceKey::global(zone));
    let insight = insight.and_then(|row| kinds::read::<ZoneInsight>(&row).ok());
    (!insight.is_some_and(|insight| insight.is_online())).then_some(zone)
}

fn unknown(zone: &str, said: &Health) -> Health {
    let why = format!("zone {zone} is not connected; it said {:?} last", said.state);
    let reasons = std::iter::once(why).chain(said.reasons.iter().cloned()).collect();
    Health { state: State::Unknown, since: None, reasons }
}

fn of_zone(enabled: bool, row: Option<&Resource>) -> Health {
    let insight = row.and_then(|row| kinds::read::<ZoneInsight>(row).ok());
    let online = insight.as_ref().is_some_and(|insight| insight.is_online());
    let since = insight.and_then(|insight| insight.since());
    let status = row.and_then(|row| kinds::status::<ZoneInsight>(row).ok()).unwrap_or_default();
    let mut reasons = Vec::new();
    let state = match (online, status.held) {
        (true, None) => State::Online,
        (true, Some(why)) => {
            reasons.push(format!("it applies nothing of this global: {why}"));
            State::Held
        }
        (false, _) => {
            reasons.extend(since.is_none().then(|| "it never was connected".to_owned()));
            State::Offline
        }
    };
    if !enabled {
        reasons.push("it is disabled: other zones do not see what it writes".into());
    }
    Health { state, since, reasons }
}

fn of_follower(following: &super::following::Following) -> Health {
    let (state, reason) = match following.state {
        FollowingState::Following => (State::Online, None),
        FollowingState::Held => {
            (State::Held, following.held.as_ref().map(|held| held.reason.clone()))
        }
        FollowingState::Away => (State::Offline, following.last_failure.clone()),
    };
    Health { state, since: following.connected_since, reasons: reason.into_iter().collect() }
}
