//! Minting tokens: `POST /tokens/dataplane`, `/tokens/zone` and `/tokens/user`.

use super::{
    Problem,
    asked::Asked,
    body,
    keys::{TokenKeys, USER_KEYS, ZONE_KEYS},
    limits,
    state::Api,
};
use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use identity::token::{Claims, DataplaneClaims, KeySet, MintError, UserClaims, ZoneClaims, mint};
use resource::{MeshName, Violations};
use serde::{Deserialize, de::DeserializeOwned};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::Backend;

const TITLE: &str = "Invalid request";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct DataplaneRequest {
    name: String,
    mesh: String,
    tags: BTreeMap<String, Vec<String>>,
    r#type: String,
    workload: String,
    valid_for: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ZoneRequest {
    zone: String,
    scope: Vec<String>,
    valid_for: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct UserRequest {
    name: String,
    groups: Vec<String>,
    valid_for: String,
}

/// `POST /tokens/dataplane`
pub(crate) async fn dataplane<B: Backend>(
    State(api): State<Arc<Api<B>>>,
    asked: Asked,
    body: Body,
) -> Result<Response, Problem> {
    may_mint(&asked, "dataplane token")?;
    let request: DataplaneRequest = request(&asked, body).await?;
    let mut violations = Violations::default();
    let mesh = name(&request.mesh, "mesh", &mut violations);
    if !matches!(&*request.r#type, "" | "dataplane" | "ingress" | "egress") {
        violations.add("type", format_args!("{} is not a valid proxy type", request.r#type));
    }
    let valid_for = valid_for(&request.valid_for, Missing::Longest, &mut violations);
    let mesh = checked(mesh, &violations)?;
    let keys = TokenKeys::of_mesh(&api.given.kinds, &mesh).now(&api.reader);
    let DataplaneRequest { name, tags, r#type, workload, .. } = request;
    let claims = DataplaneClaims { name, mesh: mesh.to_string(), tags, r#type, workload };
    token(
        &api,
        &keys.keys,
        &claims,
        valid_for,
        &format!("mesh {mesh} has no key for dataplane tokens"),
    )
}

/// `POST /tokens/zone`
pub(crate) async fn zone<B: Backend>(
    State(api): State<Arc<Api<B>>>,
    asked: Asked,
    body: Body,
) -> Result<Response, Problem> {
    may_mint(&asked, "zone token")?;
    let request: ZoneRequest = request(&asked, body).await?;
    let mut violations = Violations::default();
    let zone = name(&request.zone, "zone", &mut violations);
    for (i, scope) in request.scope.iter().enumerate() {
        if !matches!(&**scope, "cp" | "ingress" | "egress") {
            violations.add(format_args!("scope[{i}]"), "must be one of cp, ingress, egress");
        }
    }
    let valid_for = valid_for(&request.valid_for, Missing::Longest, &mut violations);
    let zone = checked(zone, &violations)?.to_string();
    let keys = TokenKeys::global(&api.given.kinds, ZONE_KEYS, "").now(&api.reader);
    let claims = ZoneClaims { zone, scope: request.scope };
    token(&api, &keys.keys, &claims, valid_for, "this control plane has no key for zone tokens")
}

/// `POST /tokens/user`
pub(crate) async fn user<B: Backend>(
    State(api): State<Arc<Api<B>>>,
    asked: Asked,
    body: Body,
) -> Result<Response, Problem> {
    may_mint(&asked, "user token")?;
    let request: UserRequest = request(&asked, body).await?;
    let mut violations = Violations::default();
    if request.name.is_empty() {
        violations.add("name", "cannot be empty");
    }
    let valid_for = valid_for(&request.valid_for, Missing::Refused, &mut violations);
    checked(Some(()), &violations)?;
    let keys = TokenKeys::global(&api.given.kinds, USER_KEYS, "").now(&api.reader);
    let claims = UserClaims { name: request.name, groups: request.groups };
    token(&api, &keys.keys, &claims, valid_for, "this control plane has no key for user tokens")
}

fn may_mint(asked: &Asked, what: &str) -> Result<(), Problem> {
    if asked.user.is_admin() {
        return Ok(());
    }
    let user = asked.user.to_string();
    Err(Problem::denied(format_args!("user {user:?} cannot access generate {what}")))
}

async fn request<T: DeserializeOwned>(asked: &Asked, body: Body) -> Result<T, Problem> {
    let document = body::document(&asked.headers, body, "token request").await?;
    T::deserialize(document).map_err(|error| Problem::new(StatusCode::BAD_REQUEST, TITLE, error))
}

fn name(text: &str, field: &str, violations: &mut Violations) -> Option<MeshName> {
    if text.is_empty() {
        violations.add(field, "cannot be empty");
        return None;
    }
    // The names of zones and meshes follow the same rule.
    MeshName::new(text).map_err(|error| violations.add(field, error)).ok()
}

#[derive(Clone, Copy)]
enum Missing {
    Longest,
    Refused,
}

fn valid_for(text: &str, missing: Missing, violations: &mut Violations) -> Duration {
    let longest = limits::TOKEN_VALIDITY;
    match (text, missing) {
        ("", Missing::Longest) => return longest,
        ("", Missing::Refused) => violations.add("validFor", "cannot be empty"),
        _ => match daemon::duration::parse(text) {
            Ok(given) if given > Duration::ZERO && given <= longest => return given,
            Ok(_) => violations.add("validFor", "must be above 0 and at most 87600h"),
            Err(error) => violations.add("validFor", format_args!("is invalid: {error}")),
        },
    }
    longest
}

fn checked<T>(value: Option<T>, violations: &Violations) -> Result<T, Problem> {
    value.filter(|_| violations.is_empty()).ok_or_else(|| Problem::invalid(TITLE, violations))
}

fn token<B: Backend, C: Claims>(
    api: &Api<B>,
    keys: &KeySet,
    claims: &C,
    valid_for: Duration,
    no_key: &str,
) -> Result<Response, Problem> {
    match mint(keys, claims, api.given.clock.now(), valid_for) {
        Ok(token) => Ok(([(header::CONTENT_TYPE, "text/plain")], token).into_response()),
        Err(MintError::NoKey) => Err(Problem::not_found("Signing Key not found", no_key)),
        Err(error @ MintError::Claims) => Err(Problem::new(StatusCode::BAD_REQUEST, TITLE, error)),
    }
}
