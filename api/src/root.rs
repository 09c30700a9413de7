//! What the control plane says about itself and about whoever asks.

use super::{Problem, asked::Asked, state::Api};
use axum::{Json, extract::State};
use resource::ResourceKey;
use serde_json::{Value, json};
use std::sync::Arc;
use store::Backend;

/// The name of the row that holds the identity of a global and all its zones.
pub const CLUSTER_ID: &str = "kuma-cluster-id";

/// `GET /`
pub(crate) async fn root<B: Backend>(State(api): State<Arc<Api<B>>>) -> Json<Value> {
    let about = &api.given.about;
    Json(json!({
        "product": "Atoll",
        "version": about.version,
        "instanceId": about.instance_id,
        "clusterId": cluster_id(&api),
        "hostname": about.hostname,
        "gui": about.gui,
    }))
}

fn cluster_id<B: Backend>(api: &Api<B>) -> String {
    let id = api.kind("Config").and_then(|(id, kind)| {
        let row = api.reader.get(id, &ResourceKey::global(CLUSTER_ID))?;
        Some(kind.to_json(&row.spec).ok()?.get("config")?.as_str()?.to_owned())
    });
    id.unwrap_or_default()
}

/// `GET /who-am-i`
pub(crate) async fn who_am_i(asked: Asked) -> Json<Value> {
    Json(json!({"name": asked.user.name, "groups": asked.user.groups}))
}

/// `GET /config`
pub(crate) async fn config<B: Backend>(
    State(api): State<Arc<Api<B>>>,
    asked: Asked,
) -> Result<Json<Value>, Problem> {
    // It tells where things are, which is the operators' business only.
    if asked.user.is_admin() {
        Ok(Json(api.given.config.clone()))
    } else {
        Err(Problem::denied(format_args!(
            "user {:?} cannot see the configuration",
            asked.user.to_string()
        )))
    }
}
