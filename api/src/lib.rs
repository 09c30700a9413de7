//! The REST API, the same in global and in zones.
//!
//! Every kind is served by the same code, over the list of kinds. What kinds differ in, they say
//! themselves; what global and zones differ in stands in `write` and `labels`.

pub mod access;
pub mod admin_token;
mod asked;
pub mod author;
mod body;
mod catalog;
pub mod config;
pub mod expiry;
pub mod following;
pub mod freshness;
mod health;
mod insight;
pub mod inspect;
pub mod keys;
mod labels;
pub mod limited;
pub mod limits;
pub mod mesh_defaults;
pub mod mesh_insights;
mod precondition;
mod problem;
pub mod propagation;
mod query;
mod read;
mod render;
mod root;
pub mod serve;
mod sni;
mod state;
#[cfg(test)]
mod tests;
mod tokens;
mod watch;
mod write;

pub use self::{
    config::Config,
    problem::Problem,
    root::CLUSTER_ID,
    state::{About, ApiState, Change, Entry, Hooks, NoHooks, Place, Prepared},
};

use self::{
    asked::{Served, no_method},
    read::Observed,
    state::Api,
};
use axum::{
    Router,
    http::{Method, StatusCode, Uri},
    middleware::from_fn_with_state,
    routing::{MethodRouter, get, post},
};
use resource::{Kind, Scope};
use std::sync::Arc;
use store::{Backend, view::KindId};

/// The API over what `state` holds.
pub fn router<B: Backend + 'static>(state: ApiState<B>) -> Router {
    let api = Arc::new(Api::new(state));
    let mut router = Router::new();
    for (id, kind) in api.given.kinds.iter().filter(|(_, kind)| !kind.path.is_empty()) {
        router = router.merge(of_kind(&api, id, kind));
    }
    router
        .merge(fixed(api.clone()))
        .fallback(nothing_here)
        .method_not_allowed_fallback(|method: Method| async move { no_method(&method) })
        .layer(from_fn_with_state(api, access::admit))
}

fn fixed<B: Backend + 'static>(api: Arc<Api<B>>) -> Router {
    Router::new()
        .route("/", get(root::root))
        .route("/who-am-i", get(root::who_am_i))
        .route("/config", get(root::config))
        .route("/global-insight", get(insight::global))
        .route("/global-insights", get(insight::global))
        .route("/_resources", get(catalog::resources))
        .route("/policies", get(catalog::policies))
        .route("/_kri/{kri}", get(read::by_kri))
        .route("/_freshness", get(freshness::of))
        .route("/_expiry", get(expiry::of))
        .route("/_global", get(following::state))
        .route("/_global/difference", get(following::difference))
        .route("/_global/adopt", post(following::adopt))
        .route("/tokens/dataplane", post(tokens::dataplane))
        .route("/tokens/zone", post(tokens::zone))
        .route("/tokens/user", post(tokens::user))
        .with_state(api)
}

/// The kinds that are also shown together with what is known about their resources.
const OVERVIEWS: [&str; 2] = ["Dataplane", "Zone"];

/// The routes of one kind, and of what is known about its resources.
fn of_kind<B: Backend + 'static>(api: &Arc<Api<B>>, id: KindId, kind: &Kind) -> Router {
    let served = Served { api: api.clone(), id, kind: *kind };
    let mut router = Router::new();
    let mut route = |path: &str, methods: MethodRouter| {
        // A slash at the end is no mistake.
        let taken = std::mem::take(&mut router);
        router = taken.route(path, methods.clone()).route(&format!("{path}/"), methods);
    };
    let lists = || get(read::list).with_state(served.clone());
    let base = match kind.scope {
        Scope::Global => format!("/{}", kind.path),
        Scope::Mesh => {
            route(&format!("/{}", kind.path), lists());
            format!("/meshes/{{mesh}}/{}", kind.path)
        }
    };
    route(&base, lists());
    let one = get(read::one).put(write::put).delete(write::delete);
    route(&format!("{base}/{{name}}"), one.with_state(served.clone()));
    let propagation = get(propagation::of).with_state(served.clone());
    route(&format!("{base}/{{name}}/_propagation"), propagation);
    if kind.name == kinds::dataplane::KIND.name {
        let asking = [
            ("xds", get(inspect::config)),
            ("stats", get(inspect::stats)),
            ("clusters", get(inspect::clusters)),
        ];
        for (what, ask) in asking {
            route(&format!("{base}/{{name}}/{what}"), ask.with_state(served.clone()));
        }
    }
    if OVERVIEWS.contains(&kind.name)
        && let Some((insight, known)) = api.kind(&format!("{}Insight", kind.name))
    {
        let observed = Observed { served, insight: (insight, *known) };
        let overviews = || get(read::overviews).with_state(observed.clone());
        let mut paths = vec![base.clone(), format!("/{}", kind.path)];
        paths.dedup();
        for path in paths {
            route(&format!("{path}/_overview"), overviews());
            route(&format!("{path}+insights"), overviews());
        }
        let overview = get(read::overview).with_state(observed.clone());
        route(&format!("{base}/{{name}}/_overview"), overview);
    }
    router
}

async fn nothing_here(uri: Uri) -> Problem {
    let path = uri.path();
    Problem::new(
        StatusCode::NOT_FOUND,
        "Page Not Found",
        format_args!("there is nothing at {path:?}"),
    )
}
