//! How fresh zones are: `GET /_freshness`.
//!
//! A beacon travels the line now and then. How old the newest one is that came to a stage says how
//! old may be what is there, and the first stage at which that is too old is where the line is stuck.

use super::{Problem, asked::Asked, state::Api};
use axum::{Json, extract::State as Of};
use http::StatusCode;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use store::Backend;

/// Knows how fresh zones are.
pub trait Freshness: Send + Sync {
    /// Those that this control plane knows, in the order of their names.
    fn zones(&self) -> Vec<Zone>;
}

/// A stage of the line, in the order in which a change passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Stage {
    /// It is in the store of global.
    Global,
    /// It is on the stream to the zone.
    Stream,
    /// The zone has it in its store.
    Zone,
    /// The zone has told global so, on the way that its own changes take.
    Return,
    /// It is in the tables from which proxies get what concerns them.
    Tables,
    /// An Envoy answered.
    Proxy,
}

impl Stage {
    /// As in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Stream => "stream",
            Self::Zone => "zone",
            Self::Return => "return",
            Self::Tables => "tables",
            Self::Proxy => "proxy",
        }
    }

    /// What is wrong if nothing passes it.
    const fn problem(self) -> &'static str {
        match self {
            Self::Global => "global writes no beacons: its store is stuck",
            Self::Stream => "global sends nothing on the stream to the zone",
            Self::Zone => "the zone does not take what is sent to it",
            Self::Return => "nothing of the zone comes to global",
            Self::Tables => "the zone makes nothing of what it stores",
            Self::Proxy => "the proxy that is asked does not answer",
        }
    }
}

/// How fresh a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// All that was written longer ago than the bound is everywhere.
    Fresh,
    /// Something may not be.
    Late,
    /// It is not connected.
    Away,
    /// It does not say: it is no zone of ours, or no beacon came yet.
    Unknown,
}

/// How old the newest beacon is that came to a stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Age {
    /// Which stage.
    pub stage: Stage,
    /// How old.
    #[serde(rename = "ageSeconds", serialize_with = "seconds")]
    pub age: Duration,
}

/// How fresh a zone is, and where the line to it is stuck if it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Zone {
    /// Which zone.
    pub zone: String,
    /// In one word.
    pub state: State,
    /// How old the newest beacon is that came all the way.
    #[serde(
        rename = "ageSeconds",
        serialize_with = "maybe",
        skip_serializing_if = "Option::is_none"
    )]
    pub age: Option<Duration>,
    /// The first stage at which it is too old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late: Option<Stage>,
    /// Why it is not fresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The proxy that is asked, as `mesh/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// All stages that this control plane knows of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Age>,
}

impl Zone {
    /// A zone of which nothing can be said.
    #[must_use]
    pub fn unknown(zone: &str, reason: &str) -> Self {
        let (age, late, proxy, stages) = (None, None, None, Vec::new());
        let (zone, reason) = (zone.into(), Some(reason.into()));
        Self { zone, state: State::Unknown, age, late, reason, proxy, stages }
    }

    /// A zone with these ages, in the order of the line, of which none should be above `bound`.
    #[must_use]
    pub fn of(zone: &str, stages: &[(Stage, Duration)], bound: Duration) -> Self {
        let late = stages.iter().find(|(_, age)| *age > bound).map(|(stage, _)| *stage);
        Self {
            zone: zone.into(),
            state: if late.is_some() { State::Late } else { State::Fresh },
            age: stages.iter().map(|(_, age)| *age).max(),
            late,
            reason: late.map(|stage| stage.problem().into()),
            proxy: None,
            stages: stages.iter().map(|(stage, age)| Age { stage: *stage, age: *age }).collect(),
        }
    }

    /// The same while it is not connected: its age grows, and that is no news.
    #[must_use]
    pub fn away(self, reason: &str) -> Self {
        Self { state: State::Away, late: None, reason: Some(reason.into()), ..self }
    }
}

fn seconds<S: Serializer>(age: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // To the millisecond: the rest is noise.
    let millis = u32::try_from(age.as_millis()).unwrap_or(u32::MAX);
    serializer.serialize_f64(f64::from(millis) / 1000.0)
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn maybe<S: Serializer>(age: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match age {
        Some(age) => seconds(age, serializer),
        None => serializer.serialize_none(),
    }
}

/// `GET /_freshness`
pub(crate) async fn of<B: Backend>(
    Of(api): Of<Arc<Api<B>>>,
    _asked: Asked,
) -> Result<Json<Value>, Problem> {
    let Some(freshness) = &api.given.freshness else {
        let title = "Could not look at the freshness of zones";
        let detail = "this control plane does not know it";
        return Err(Problem::new(StatusCode::NOT_FOUND, title, detail));
    };
    let items = freshness.zones();
    Ok(Json(json!({ "total": items.len(), "items": items })))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(20);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_stage_that_is_too_old_is_where_the_line_is_stuck() {
        let stages = |ages: [u64; 3]| {
            let stages = [Stage::Global, Stage::Zone, Stage::Proxy].into_iter();
            stages.zip(ages.map(seconds)).collect::<Vec<_>>()
        };
        let fresh = Zone::of("east", &stages([1, 20, 2]), BOUND);
        assert_eq!((fresh.state, fresh.late, fresh.age), (State::Fresh, None, Some(seconds(20))));
        let late = Zone::of("east", &stages([1, 21, 30]), BOUND);
        assert_eq!((late.state, late.late), (State::Late, Some(Stage::Zone)));
        assert_eq!(late.reason.as_deref(), Some("the zone does not take what is sent to it"));
        let away = late.away("gone");
        assert_eq!((away.state, away.late, away.age), (State::Away, None, Some(seconds(30))));
    }

    #[test]
    fn ages_are_shown_in_seconds() {
        let stages = [(Stage::Tables, Duration::from_micros(1_234_567))];
        let shown = serde_json::to_value(Zone::of("east", &stages, BOUND)).unwrap();
        let expected = json!({
            "zone": "east", "state": "Fresh", "ageSeconds": 1.234,
            "stages": [{ "stage": "Tables", "ageSeconds": 1.234 }],
        });
        assert_eq!(shown, expected);
        let unknown = serde_json::to_value(Zone::unknown("w", "no")).unwrap();
        assert_eq!(unknown, json!({ "zone": "w", "state": "Unknown", "reason": "no" }));
    }
}
