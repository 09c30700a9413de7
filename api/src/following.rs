//! What a zone says about the global that it follows, and how an operator confirms one.

use super::{Problem, access, asked::Asked, body, limits, state::Api};
use axum::{Json, body::Body, extract::State};
use futures::future::BoxFuture;
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use store::Backend;

const STATE: &str = "Could not look at global";
const DIFFERENCE: &str = "Could not compare with global";
const ADOPT: &str = "Could not adopt global";

/// How a zone stands with its global.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Following {
    /// In one word.
    pub state: FollowingState,
    /// Whether the zone has everything that it needs to work without global.
    pub complete: bool,
    /// Set while it is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_since: Option<Timestamp>,
    /// When something came from global last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heard: Option<Timestamp>,
    /// Why the last connection ended, or could not be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// Set while nothing of global is applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// How a zone stands with its global, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum FollowingState {
    /// It applies what comes.
    Following,
    /// It is not connected, and works with what it knows.
    Away,
    /// It applies nothing, until an operator confirms this global.
    Held,
}

/// Why nothing of global is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// For people.
    pub reason: String,
    /// The global that can be confirmed, if it says which one it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<String>,
}

/// The global that was to be confirmed is not the one that is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this global is not held back")]
pub struct NotHeld;

/// What would become of a zone that takes everything from a global.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// That global, if it says which one it is, as [`Held`] calls it.
    pub global: Option<String>,
    /// Resources that would come.
    pub create: Vec<Differs>,
    /// Resources that would become others.
    pub change: Vec<Differs>,
    /// Resources that would go.
    pub delete: Vec<Differs>,
}

/// A resource that would not stay as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Differs {
    /// Its kind.
    pub r#type: String,
    /// Its mesh, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
    /// Its name in the zone.
    pub name: String,
}

/// What a zone would become cannot be said now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unseen(pub String);

/// A zone's connection with its global.
pub trait Follow: Send + Sync {
    /// What would become of the zone if it took everything from the global at the other end.
    fn difference(&self) -> BoxFuture<'_, Result<Difference, Unseen>>;

    /// How it stands.
    fn following(&self) -> Following;

    /// Takes the global that `Held` calls so as the zone's own, whatever that removes.
    fn adopt(&self, global: &str) -> Result<(), NotHeld>;
}

fn follows<'a, B: Backend>(
    api: &'a Api<B>,
    asked: &Asked,
    title: &str,
) -> Result<&'a dyn Follow, Problem> {
    access::check_admin(&asked.user)?;
    let follow = api.given.global.as_deref();
    follow.ok_or_else(|| Problem::not_found(title, "this control plane follows no global"))
}

/// `GET /_global`
pub(crate) async fn state<B: Backend>(
    State(api): State<Arc<Api<B>>>,
    asked: Asked,
) -> Result<Json<Following>, Problem> {
    Ok(Json(follows(&api, &asked, STATE)?.following()))
}

/// `GET /_global/difference`
pub(crate) async fn difference<B: Backend>(
    State(api): State<Arc<Api<B>>>,
    asked: Asked,
) -> Result<Json<Value>, Problem> {
    let difference = follows(&api, &asked, DIFFERENCE)?.difference().await;
    let Difference { global, create, change, delete } = difference
        .map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, DIFFERENCE, error))?;
    let shown = |all: &[Differs]| {
        let some = all.get(..limits::PAGE_MAX).unwrap_or(all);
        json!({ "total": all.len(), "items": some })
    };
    Ok(Json(json!({
        "global": global,
        "create": shown(&create),
        "change": shown(&change),
        "delete": shown(&delete),
    })))
}

/// `POST /_global/adopt`
pub(crate) async fn adopt<B: Backend>(
    State(api): State<Arc<Api<B>>>,
    asked: Asked,
    body: Body,
) -> Result<Json<Value>, Problem> {
    follows(&api, &asked, ADOPT)?;
    let document = body::document(&asked.headers, body, "adoption").await?;
    let global = document.get("global").and_then(Value::as_str);
    let global = global.ok_or_else(|| {
        Problem::field(ADOPT, "global", "must be the one that GET /_global says is held back")
    })?;
    let adopted = follows(&api, &asked, ADOPT)?.adopt(global);
    adopted.map_err(|error| Problem::conflict(ADOPT, error).with_field("global", error))?;
    tracing::warn!(user = %asked.user, global, "a global was confirmed");
    Ok(Json(json!({})))
}
