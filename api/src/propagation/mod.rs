//! What became of a resource on its way to zones, and to the proxies in them:
//! `GET …/{name}/_propagation`.
//!
//! With `wait=30s` the answer comes when nothing is pending any more, or something was refused, or
//! when that time is over. `zones=east,west` asks for these zones alone.

use super::{
    Problem,
    asked::{Asked, Served},
    limits,
    read::ONE,
    state::Api,
};
use axum::{
    Json,
    extract::State as Of,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use jiff::Timestamp;
use resource::{MeshName, Resource, ResourceKey};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use store::{
    Backend,
    view::{KindId, KindSet},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

const TITLE: &str = "Could not look at the propagation of a resource";

/// Knows what became of resources.
pub trait Propagate: Send + Sync {
    /// What became of the resource in each zone, or in those of `only` that there are; `None` if
    /// resources of its kind go nowhere from here.
    fn of(
        &self,
        kind: KindId,
        key: &ResourceKey,
        only: Option<&BTreeSet<String>>,
    ) -> Option<Vec<Zone>>;

    /// Changes whenever an answer about a resource of this kind may be another one.
    fn changes(&self, kind: KindId) -> watch::Receiver<u64>;
}

/// Where a resource is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum State {
    /// It is there as it is now.
    Applied,
    /// It is on its way, or waits for who is not connected.
    Pending,
    /// It was refused as it is now; what was there before still holds.
    Refused,
    /// It is for others.
    NotForThisZone,
}

/// What became of a resource in a zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Zone {
    /// Which zone.
    pub zone: String,
    /// Where it is.
    pub state: State,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Not later than this; when exactly is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Timestamp>,
    /// Who refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why it is not applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What became of it in the proxies of the zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<Proxies>,
}

impl Zone {
    /// Nothing but a state.
    #[must_use]
    pub fn new(zone: &str, state: State) -> Self {
        let (zone, since, before, by, reason, proxies) =
            (zone.into(), None, None, None, None, None);
        Self { zone, state, since, before, by, reason, proxies }
    }

    /// With what its proxies did.
    fn whole(&self) -> State {
        match (self.state, self.proxies.as_ref().and_then(|proxies| proxies.state)) {
            (State::Applied, Some(state)) => state,
            (state, _) => state,
        }
    }
}

/// What became of a resource in the proxies of a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxies {
    /// Of all of them; `None` if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// How many it changed something for.
    pub concerned: usize,
    /// How many of these took all of that.
    pub applied: usize,
    /// Those that have not answered yet; not more than a page of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,
    /// What was refused; not more than a page of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedByProxy>,
    /// What is not known, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What an Envoy refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedByProxy {
    /// Its Dataplane.
    pub proxy: String,
    /// What it refused, such as `Listener in_http`.
    pub what: String,
    /// What it said.
    pub reason: String,
}

/// `GET …/{name}/_propagation`
pub(crate) async fn of<B: Backend + 'static>(
    Of(served): Of<Served<B>>,
    asked: Asked,
) -> Result<Response, Problem> {
    let key = asked.key(&served)?;
    if !asked.user.reads(&served.kind, &key) {
        return Err(asked.user.denied(&served.kind));
    }
    let api = &served.api;
    let Some(propagate) = &api.given.propagation else {
        return Err(Problem::not_found(TITLE, "this control plane does not know it"));
    };
    let only = asked.query.get("zones").filter(|zones| *zones != "all").map(names).transpose()?;
    let until = asked.query.get("wait").map(wait).transpose()?.map(|wait| Instant::now() + wait);
    let _permit = until.map(|_| api.watches.clone().try_acquire_owned()).transpose();
    let _permit = _permit.map_err(|_| {
        let detail = format_args!("{} watches are open, which is the limit", limits::WATCHES);
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable", detail)
    })?;
    // Both before the first look, so that no change falls between.
    let mut moved = propagate.changes(served.id);
    let mut watch = api.reader.watch(kinds(api, served.id));
    let (mut zones, mut look_at) = (BTreeMap::new(), only.clone());
    loop {
        moved.borrow_and_update();
        let row = api.reader.get(served.id, &key);
        let row = row.ok_or_else(|| Asked::nothing_here(ONE, &served.kind, &key))?;
        let found = propagate.of(served.id, &key, look_at.as_ref()).ok_or_else(|| {
            let name = served.kind.name;
            Problem::not_found(TITLE, format_args!("resources of kind {name} stay where they are"))
        })?;
        zones.extend(found.into_iter().map(|zone| (zone.zone.clone(), zone)));
        check_there(&zones, only.as_ref())?;
        let settled = is_settled(zones.values());
        let changed = async {
            tokio::select! {
                biased;
                () = api.given.shutdown.cancelled() => None,
                dirty = watch.dirty() => dirty.is_ok().then_some(What::Resource),
                changed = moved.changed() => changed.is_ok().then_some(What::Zones),
            }
        };
        let what = match until.filter(|_| !settled) {
            Some(until) => timeout_at(until, changed).await.ok().flatten(),
            None => None,
        };
        match what {
            // Zones that have it keep it as long as it stays as it is.
            Some(What::Zones) => look_at = Some(pending(&zones)),
            Some(What::Resource) => {
                zones.clear();
                look_at.clone_from(&only);
            }
            None => {
                let shown = shown(served.kind.name, &row, &zones, settled);
                return Ok(Json(shown).into_response());
            }
        }
    }
}

/// What changed, so that an answer may be another one.
enum What {
    /// The resource, or which zones there are.
    Resource,
    /// What zones took.
    Zones,
}

type Zones = BTreeMap<String, Zone>;

fn pending(zones: &Zones) -> BTreeSet<String> {
    let pending = zones.values().filter(|zone| zone.whole() == State::Pending);
    pending.map(|zone| zone.zone.clone()).collect()
}

/// What an answer depends on, besides what is asked of [`Propagate`].
fn kinds<B: Backend>(api: &Api<B>, of: KindId) -> KindSet {
    let zones = api.kind(kinds::zone::KIND.name).map(|(id, _)| id);
    [of].into_iter().chain(zones).collect()
}

fn names(text: &str) -> Result<BTreeSet<String>, Problem> {
    let names: BTreeSet<String> = text
        .split(',')
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    if names.is_empty() {
        return Err(Problem::field(TITLE, "zones", "must be names of zones, or all"));
    }
    Ok(names)
}

fn wait(text: &str) -> Result<Duration, Problem> {
    let parsed = daemon::duration::parse(text);
    let wait = parsed.map_err(|error| Problem::field(TITLE, "wait", error))?;
    Ok(wait.min(limits::WAIT))
}

fn check_there(zones: &Zones, only: Option<&BTreeSet<String>>) -> Result<(), Problem> {
    let missing = only.and_then(|only| only.iter().find(|name| !zones.contains_key(*name)));
    let reason = |name: &String| format!("there is no zone {name:?}");
    missing.map_or(Ok(()), |name| Err(Problem::field(TITLE, "zones", reason(name))))
}

/// Whether nothing is to be waited for: all of it is decided, or something is lost.
fn is_settled<'a>(zones: impl Iterator<Item = &'a Zone>) -> bool {
    let states: BTreeSet<State> = zones.map(Zone::whole).collect();
    states.contains(&State::Refused) || !states.contains(&State::Pending)
}

fn shown(kind: &str, row: &Resource, zones: &Zones, settled: bool) -> Value {
    let count = |state| zones.values().filter(|zone| zone.whole() == state).count();
    let key = &row.head.key;
    let mut shown = json!({
        "type": kind,
        "name": &*key.name,
        "version": row.head.version.to_string(),
        "changed": row.head.times.modified,
        "settled": settled,
        "summary": {
            "applied": count(State::Applied),
            "pending": count(State::Pending),
            "refused": count(State::Refused),
            "notForThisZone": count(State::NotForThisZone),
        },
        "zones": zones.values().collect::<Vec<_>>(),
    });
    if let (Some(mesh), Some(fields)) = (&key.mesh, shown.as_object_mut()) {
        fields.insert("mesh".into(), MeshName::as_str(mesh).into());
    }
    shown
}
