//! What became of a resource on its way to zones, and to the proxies in them:
//! `GET …/{name}/_propagation`.
//!
//! With `wait=30s` the answer comes when nothing is pending any more, or something was refused, or
//! when that time is over. `zones=east,west` asks for these zones alone. With `proxies=true` global
//! asks each zone that has it about its proxies too. With `deleted=true` a zone has it if it does not
//! have the resource any more.

mod questions;

use self::questions::{Ask, Questions};
use super::{
    Problem,
    asked::{Asked, Served},
    limits,
    query::Query,
    read::ONE,
    state::Api,
};
use axum::{
    Json,
    extract::State as Of,
    response::{IntoResponse, Response},
};
use futures::future::BoxFuture;
use http::StatusCode;
use jiff::Timestamp;
use resource::{Head, MeshName, Resource, ResourceKey};
use serde::{Deserialize, Serialize};
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
    /// What became of the resource, or of its end, in each zone, or in those of `only` that there are;
    /// `None` if resources of its kind go nowhere from here.
    fn of(
        &self,
        kind: KindId,
        key: &ResourceKey,
        only: Option<&BTreeSet<String>>,
    ) -> Option<Vec<Zone>>;

    /// Changes whenever an answer about a resource of this kind may be another one.
    fn changes(&self, kind: KindId) -> watch::Receiver<u64>;

    /// Asks a zone that has the resource what became of it in its proxies, and with
    /// [`Patience::Settled`] waits for a while until none lacks it; `None` if [`of`](Self::of) says it.
    fn proxies(
        &self,
        kind: KindId,
        key: &ResourceKey,
        zone: &str,
        patience: Patience,
    ) -> Option<BoxFuture<'static, Proxies>>;
}

/// How long who is asked about proxies may wait for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    Now,
    /// Until nothing is to be waited for, or for some seconds.
    Settled,
}

/// Where a resource is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum State {
    /// It is there as it is now.
    Applied,
    /// It is on its way, or waits for who is not connected.
    Pending,
    /// It was refused as it is now; what was there before still holds.
    Refused,
    /// It is for others.
    NotForThisZone,
    /// Who could say it does not, and will not.
    Unknown,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxies {
    /// Of all of them; `None` if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Since when the zone has what they lack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How many it changed something for.
    pub concerned: usize,
    /// How many of these took all of that.
    pub applied: usize,
    /// Those that took it, and when; not more than a page of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub took: Vec<TakenByProxy>,
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

impl Proxies {
    /// Nothing but a state, and why it is that.
    #[must_use]
    pub fn only(state: State, note: &str) -> Self {
        Self { state: Some(state), note: Some(note.into()), ..Self::default() }
    }
}

/// A proxy that took a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TakenByProxy {
    /// Its Dataplane.
    pub proxy: String,
    /// When its Envoy had answered about all of it; `None` if that is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// What an Envoy refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusedByProxy {
    /// Its Dataplane.
    pub proxy: String,
    /// What it refused, such as `Listener in_http`.
    pub what: String,
    /// What it said.
    pub reason: String,
}

/// What is asked for, besides the resource.
struct Wanted {
    /// These zones.
    only: Option<BTreeSet<String>>,
    /// And an answer that is not before, unless nothing is to be waited for.
    until: Option<Instant>,
    /// And what proxies took.
    proxies: bool,
    /// Who has it still, after it was deleted.
    deleted: bool,
}

impl Wanted {
    fn of(query: &Query) -> Result<Self, Problem> {
        let only = query.get("zones").filter(|zones| *zones != "all").map(names).transpose()?;
        let until = query.get("wait").map(wait).transpose()?.map(|wait| Instant::now() + wait);
        let (proxies, deleted) = (query.is_set("proxies"), query.is_set("deleted"));
        if proxies && deleted {
            let reason = "cannot be asked about what was deleted";
            return Err(Problem::field(TITLE, "proxies", reason));
        }
        Ok(Self { only, until, proxies, deleted })
    }

    const fn patience(&self) -> Patience {
        if self.until.is_some() { Patience::Settled } else { Patience::Now }
    }
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
    let wanted = Wanted::of(&asked.query)?;
    let long = wanted.until.is_some() || wanted.proxies;
    let permit = long.then(|| api.watches.clone().try_acquire_owned()).transpose();
    let _permit = permit.map_err(|_| {
        let detail = format_args!("{} watches are open, which is the limit", limits::WATCHES);
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable", detail)
    })?;
    let (waits, patience) = (wanted.until.is_some(), wanted.patience());
    let by = wanted.until.unwrap_or_else(|| Instant::now() + limits::INSPECTION);
    // Both before the first look, so that no change falls between.
    let mut moved = propagate.changes(served.id);
    let mut watch = api.reader.watch(kinds(api, served.id));
    let ask = |zone: &str| propagate.proxies(served.id, &key, zone, patience);
    let mut known = Known { wanted, zones: Zones::new(), questions: Questions::default() };
    let mut look_at = known.wanted.only.clone();
    loop {
        moved.borrow_and_update();
        let row = api.reader.get(served.id, &key);
        if row.is_none() && !known.wanted.deleted {
            return Err(Asked::nothing_here(ONE, &served.kind, &key));
        }
        let found = propagate.of(served.id, &key, look_at.as_ref()).ok_or_else(|| {
            let name = served.kind.name;
            Problem::not_found(TITLE, format_args!("resources of kind {name} stay where they are"))
        })?;
        known.found(found, row.is_some(), &ask);
        known.check_there()?;
        let what = loop {
            if known.is_over() {
                break None;
            }
            let changed = async {
                tokio::select! {
                    biased;
                    () = api.given.shutdown.cancelled() => None,
                    dirty = watch.dirty(), if waits => dirty.is_ok().then_some(What::Resource),
                    changed = moved.changed(), if waits => changed.is_ok().then_some(What::Zones),
                    Some((zone, proxies)) = known.questions.next() => {
                        Some(What::Proxies(zone, proxies))
                    }
                }
            };
            match timeout_at(by, changed).await.ok().flatten() {
                Some(What::Proxies(zone, proxies)) => known.told(&zone, proxies, &ask),
                what => break what,
            }
        };
        match what {
            // Zones that have it keep it as long as it stays as it is.
            Some(What::Zones) => look_at = Some(known.pending()),
            Some(What::Resource) => {
                (known.zones, known.questions) = Default::default();
                look_at.clone_from(&known.wanted.only);
            }
            Some(What::Proxies(..)) | None => {
                let shown = known.shown(served.kind.name, &key, row.as_deref());
                return Ok(Json(shown).into_response());
            }
        }
    }
}

type Zones = BTreeMap<String, Zone>;

/// What is known so far.
struct Known {
    wanted: Wanted,
    zones: Zones,
    questions: Questions,
}

impl Known {
    /// Zones stand so.
    fn found(&mut self, found: Vec<Zone>, is_there: bool, ask: Ask<'_>) {
        for mut zone in found {
            if self.wanted.deleted && is_there && zone.state != State::NotForThisZone {
                let reason = Some("it is not deleted here".into());
                zone = Zone { reason, ..Zone::new(&zone.zone, State::Pending) };
            }
            if self.wanted.proxies {
                self.questions.about(&mut zone, ask, self.wanted.patience());
            }
            self.zones.insert(zone.zone.clone(), zone);
        }
    }

    /// A zone says this of its proxies.
    fn told(&mut self, zone: &str, proxies: Proxies, ask: Ask<'_>) {
        let Some(zone) = self.zones.get_mut(zone) else { return };
        let patience = self.wanted.patience();
        if proxies.state == Some(State::Pending) && patience == Patience::Settled {
            self.questions.about(zone, ask, patience);
        }
        zone.proxies = Some(proxies);
    }

    fn check_there(&self) -> Result<(), Problem> {
        let only = self.wanted.only.as_ref();
        let missing = only.and_then(|it| it.iter().find(|name| !self.zones.contains_key(*name)));
        let reason = |name: &String| format!("there is no zone {name:?}");
        missing.map_or(Ok(()), |name| Err(Problem::field(TITLE, "zones", reason(name))))
    }

    /// Whether nothing is to be waited for: all of it is decided, or something is lost.
    fn is_settled(&self) -> bool {
        let states: BTreeSet<State> = self.zones.values().map(Zone::whole).collect();
        states.contains(&State::Refused) || !states.contains(&State::Pending)
    }

    /// Whether it is to be told now. Who does not wait hears what all zones say at once.
    fn is_over(&self) -> bool {
        if self.wanted.until.is_some() { self.is_settled() } else { self.questions.are_answered() }
    }

    /// The zones that are looked at once more when zones took something.
    fn pending(&self) -> BTreeSet<String> {
        let pending = self.zones.values().filter(|zone| zone.whole() == State::Pending);
        let names = pending.map(|zone| zone.zone.clone());
        names.filter(|zone| !self.questions.asks(zone)).collect()
    }

    fn shown(&self, kind: &str, key: &ResourceKey, row: Option<&Resource>) -> Value {
        let count = |state| self.zones.values().filter(|zone| zone.whole() == state).count();
        let mut summary = json!({
            "applied": count(State::Applied),
            "pending": count(State::Pending),
            "refused": count(State::Refused),
            "notForThisZone": count(State::NotForThisZone),
        });
        if let Some(summary) = summary.as_object_mut().filter(|_| self.wanted.proxies) {
            summary.insert("unknown".into(), count(State::Unknown).into());
        }
        let mut shown = json!({
            "type": kind,
            "name": &*key.name,
            "settled": self.is_settled(),
            "summary": summary,
            "zones": self.zones.values().collect::<Vec<_>>(),
        });
        let Some(fields) = shown.as_object_mut() else { return shown };
        if let Some(mesh) = &key.mesh {
            fields.insert("mesh".into(), MeshName::as_str(mesh).into());
        }
        if let Some(Head { version, times, .. }) = row.map(|row| &*row.head) {
            fields.insert("version".into(), version.to_string().into());
            fields.insert("changed".into(), times.modified.to_string().into());
        }
        if self.wanted.deleted {
            fields.insert("deleted".into(), row.is_none().into());
        }
        shown
    }
}

/// What changed, so that an answer may be another one.
enum What {
    /// The resource, or which zones there are.
    Resource,
    /// What zones took.
    Zones,
    /// What a zone says of its proxies.
    Proxies(String, Proxies),
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
