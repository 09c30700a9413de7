//! What the Envoys of proxies say: their configuration, their statistics, their clusters.
//!
//! For administrators alone: it shows what a proxy is told about others.

use super::{
    Problem, access,
    asked::{Asked, Served},
    limits,
    query::Query,
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{StatusCode, header};
use resource::{
    Resource,
    inspect::{Format, What},
};
use store::Backend;
use tokio::time::timeout;

/// Why an Envoy did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// There is no way to it now.
    #[error("{0}")]
    Away(String),
    /// It, or who is between, was silent for too long.
    #[error("{0}")]
    Late(String),
    /// Who is between says why.
    #[error("{0}")]
    Failed(String),
}

/// Asks the Envoys of proxies.
pub trait Envoys: Send + Sync {
    /// What the Envoy of `dataplane` answers.
    fn ask(&self, dataplane: &Resource, what: What) -> BoxFuture<'_, Result<Bytes, Unanswered>>;
}

const TITLE: &str = "Could not inspect a dataplane";

/// `GET …/dataplanes/{name}/xds`
pub(crate) async fn config<B: Backend>(
    State(served): State<Served<B>>,
    asked: Asked,
) -> Result<Response, Problem> {
    let what = What::Config { endpoints: asked.query.is_set("include_eds") };
    answer(&served, &asked, Ok(what)).await
}

/// `GET …/dataplanes/{name}/stats`
pub(crate) async fn stats<B: Backend>(
    State(served): State<Served<B>>,
    asked: Asked,
) -> Result<Response, Problem> {
    let what = format(&asked.query)
        .and_then(|format| Ok(What::Stats { format, used_only: used_only(&asked.query)? }));
    answer(&served, &asked, what).await
}

/// `GET …/dataplanes/{name}/clusters`
pub(crate) async fn clusters<B: Backend>(
    State(served): State<Served<B>>,
    asked: Asked,
) -> Result<Response, Problem> {
    let what = format(&asked.query).map(|format| What::Clusters { format });
    answer(&served, &asked, what).await
}

fn format(query: &Query) -> Result<Format, Problem> {
    match query.get("format") {
        None | Some("text") => Ok(Format::Text),
        Some("json") => Ok(Format::Json),
        Some(_) => Err(Problem::field(TITLE, "format", "must be one of [json, text]")),
    }
}

fn used_only(query: &Query) -> Result<bool, Problem> {
    match query.get("usedonly") {
        None | Some("" | "true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(Problem::field(TITLE, "usedonly", "must be one of [true, false]")),
    }
}

async fn answer<B: Backend>(
    served: &Served<B>,
    asked: &Asked,
    what: Result<What, Problem>,
) -> Result<Response, Problem> {
    access::check_admin(&asked.user)?;
    let key = asked.key(served)?;
    let row = served.api.reader.get(served.id, &key);
    let row = row.ok_or_else(|| Asked::nothing_here(TITLE, &served.kind, &key))?;
    let what = what?;
    let busy = |_| {
        let most = limits::INSPECTIONS;
        let detail = format_args!("{most} Envoys are being asked already: try again");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, TITLE, detail)
    };
    let _turn = served.api.inspections.try_acquire().map_err(busy)?;
    let envoys = served.api.given.envoys.as_deref();
    let none = || Problem::not_found(TITLE, "this control plane knows no way to Envoys");
    let asked = envoys.ok_or_else(none)?.ask(&row, what);
    // Who is between has bounds of its own, which say more.
    let answer = timeout(limits::INSPECTION, asked).await;
    let late = |_| Err(Unanswered::Late("no answer came in time".into()));
    let body = answer.unwrap_or_else(late).map_err(|error| refused(&error))?;
    let json = matches!(
        what,
        What::Config { .. }
            | What::Stats { format: Format::Json, .. }
            | What::Clusters { format: Format::Json }
    );
    let kind = if json { "application/json" } else { "text/plain; charset=utf-8" };
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

fn refused(error: &Unanswered) -> Problem {
    let status = match error {
        Unanswered::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
        Unanswered::Late(_) => StatusCode::GATEWAY_TIMEOUT,
        Unanswered::Failed(_) => StatusCode::BAD_GATEWAY,
    };
    Problem::new(status, TITLE, error)
}
