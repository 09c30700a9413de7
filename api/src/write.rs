//! Writing: create or update, and delete.
//!
//! A write is decided against what was read and committed only if that is still there, so no
//! write of somebody else is lost, a control plane's status included. Without a precondition of the
//! client's a lost race is decided again.

use super::{
    Problem,
    asked::{Asked, Served, is_mesh},
    body, limited, limits,
    precondition::Precondition,
    read::{etag, unreadable, within},
    render::{self, Form},
    state::{Change, Place, Written},
};
use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::StatusCode;
use kinds::{
    labels::{self, Place as Here},
    mesh_service::MeshService,
};
use resource::{Access, AnySpec, Flow, Kind, Labels, Resource, ResourceKey, Scope, Violations};
use serde_json::{Map, Value};
use std::sync::Arc;
use store::{Backend, Committed, Expected, Item, Outcome, view::Edit};

const PUT: &str = "Could not process a resource";
const DELETE: &str = "Could not delete a resource";

/// What a user wants a resource to be.
struct Wanted {
    labels: Labels,
    spec: AnySpec,
    encoded: Bytes,
}

/// `PUT /meshes/{mesh}/{path}/{name}`
pub(crate) async fn put<B: Backend + 'static>(
    State(served): State<Served<B>>,
    asked: Asked,
    body: Body,
) -> Result<Response, Problem> {
    let key = may_write(&served, &asked)?;
    let document = body::document(&asked.headers, body, served.kind.name).await?;
    let wanted = wanted(&served, &key, document)?;
    let precondition = Precondition::of(&asked.headers)?;
    for _ in 0..limits::WRITE_ATTEMPTS {
        let before = served.api.reader.get(served.id, &key);
        precondition.check(before.as_deref())?;
        let after = Arc::new(resource(&served, &key, &wanted, before.as_deref())?);
        let change = change(&served, &key, before.as_deref(), Some(&after));
        let more = served.api.given.hooks.before(&change).await?;
        let created = before.is_none();
        let status = if created { StatusCode::CREATED } else { StatusCode::OK };
        if asked.query.is_set("dryRun") {
            let shown = render::resource(&served.kind, &after, Form::Universal);
            return Ok((status, Json(shown.map_err(|error| unreadable(&error))?)).into_response());
        }
        let expected = expected(before.as_deref());
        let item = Item { kind: served.id, expected, edit: Edit::Put(after.clone()) };
        if commit(&served, item, more).await? {
            let written = Written { warnings: super::sni::warnings(&served.kind, &after) };
            return Ok((status, etag(&after), Json(written)).into_response());
        }
    }
    Err(raced(PUT))
}

/// `DELETE /meshes/{mesh}/{path}/{name}`
pub(crate) async fn delete<B: Backend + 'static>(
    State(served): State<Served<B>>,
    asked: Asked,
) -> Result<Response, Problem> {
    let key = may_write(&served, &asked)?;
    let precondition = Precondition::of(&asked.headers)?;
    for _ in 0..limits::WRITE_ATTEMPTS {
        let before = served.api.reader.get(served.id, &key);
        let before = before.ok_or_else(|| Asked::nothing_here(DELETE, &served.kind, &key))?;
        precondition.check(Some(&before))?;
        labels::check_delete(&before.head.labels, &served.api.given.place.here)
            .map_err(|violations| Problem::invalid(DELETE, &violations))?;
        let change = change(&served, &key, Some(&before), None);
        let mut more = served.api.given.hooks.before(&change).await?;
        if asked.query.is_set("dryRun") {
            return Ok(Json(Written::default()).into_response());
        }
        more.extend(goes_with(&served, &key));
        let expected = expected(Some(&before));
        let item = Item { kind: served.id, expected, edit: Edit::Delete(key.clone()) };
        if commit(&served, item, more).await? {
            return Ok(Json(Written::default()).into_response());
        }
    }
    Err(raced(DELETE))
}

fn raced(title: &str) -> Problem {
    Problem::conflict(title, "others write it all the time; try again")
}

fn change<'a, B: Backend>(
    served: &'a Served<B>,
    key: &'a ResourceKey,
    before: Option<&'a Resource>,
    after: Option<&'a Resource>,
) -> Change<'a> {
    Change { kind: &served.kind, key, before, after, reader: &served.api.reader }
}

fn expected(before: Option<&Resource>) -> Expected {
    before.map_or(Expected::Nothing, |row| Expected::Version(row.head.version))
}

/// Whether the write was done; `false` if another one came first.
async fn commit<B: Backend>(
    served: &Served<B>,
    item: Item,
    more: Vec<Item>,
) -> Result<bool, Problem> {
    let backend = &served.api.given.backend;
    let batch = [item].into_iter().chain(more).collect();
    let Committed { revision, outcomes } = backend.commit(batch).await?;
    backend.wait_for(revision).await?;
    if let Some(Outcome::Refused { reason }) = outcomes.first() {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Err(Problem::new(status, "Resource is not accepted", reason));
    }
    Ok(!matches!(outcomes.first(), Some(Outcome::Conflict { .. }) | None))
}

/// The resource of the path, if the user may write it and this control plane is where to.
fn may_write<B: Backend>(served: &Served<B>, asked: &Asked) -> Result<ResourceKey, Problem> {
    let key = asked.key(served)?;
    if !asked.user.writes(&served.kind, &key) {
        return Err(asked.user.denied(&served.kind));
    }
    match refusal(&served.kind, &served.api.given.place) {
        None => Ok(key),
        Some(detail) => {
            Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail))
        }
    }
}

const ON_GLOBAL: &str = "On global control plane you can not modify dataplane resources with 'kumactl apply' or via the HTTP API. You can still use 'kumactl' or the HTTP API to modify them on the zone control plane.\n";
const ON_ZONE: &str = "On zone control plane you can only modify zone resources with 'kumactl apply' or via the HTTP API. You can still use 'kumactl' or the HTTP API to modify the rest of the resource on the global control plane.\n";

/// Why users cannot write a kind here.
pub(crate) const fn refusal(kind: &Kind, place: &Place) -> Option<&'static str> {
    let read_only = matches!(kind.access, Access::ReadOnly);
    let of_zones = matches!(kind.flow, Flow::ZoneToGlobal | Flow::ZoneToZones);
    match place.here {
        Here::Global if read_only || of_zones => Some(ON_GLOBAL),
        Here::Zone { .. } if read_only || (place.federated && !kind.flow.written_in_zones()) => {
            Some(ON_ZONE)
        }
        Here::Global | Here::Zone { .. } => None,
    }
}

/// Checks the document, and everything in it that does not depend on what is stored.
fn wanted<B: Backend>(
    served: &Served<B>,
    key: &ResourceKey,
    document: Value,
) -> Result<Wanted, Problem> {
    let kind = &served.kind;
    let Value::Object(mut fields) = document else {
        let detail = format_args!("invalid {} object: not a map", kind.name);
        return Err(Problem::new(StatusCode::BAD_REQUEST, "Bad Request", detail));
    };
    let mut violations = Violations::default();
    envelope(kind, key, &mut fields, &mut violations);
    let labels = super::labels::given(&mut fields, &mut violations);
    // As lists show a secret; to take it as one without content would wipe it.
    if kind.access == Access::Admins && fields.get("data").is_none_or(Value::is_null) {
        violations.add("data", ".data in body is required");
    }
    let spec = if kind.inline { Some(Value::Object(fields)) } else { fields.remove("spec") };
    let spec = spec.filter(|spec| !spec.is_null());
    if spec.is_none() {
        violations.add("spec", ".spec in body is required");
    }
    let (Some(spec), true) = (spec, violations.is_empty()) else {
        return Err(Problem::invalid(PUT, &violations));
    };
    let rejected = |error| Problem::rejected(PUT, &error);
    let spec = kind.from_json(spec).map_err(rejected)?;
    let encoded = kind.encode(&spec).map_err(rejected)?;
    Ok(Wanted { labels, spec, encoded })
}

/// Takes the fields of the envelope out, so that a spec whose fields stand beside them is left.
fn envelope(
    kind: &Kind,
    key: &ResourceKey,
    fields: &mut Map<String, Value>,
    violations: &mut Violations,
) {
    let name = match kind.name_rule.check(&key.name) {
        Ok(()) => "name from the URL has to be the same as in body".to_owned(),
        Err(error) => {
            violations.add("name", error);
            String::new()
        }
    };
    let mut check =
        |field: &str, expected: Option<&str>, required: bool, differs: String| match fields
            .remove(field)
        {
            None | Some(Value::Null) if required => {
                violations.add(field, format_args!(".{field} in body is required"));
            }
            None | Some(Value::Null) => {}
            Some(Value::String(text))
                if expected == Some(&*text) || (expected.is_none() && text.is_empty()) => {}
            Some(_) if differs.is_empty() => {}
            Some(_) => violations.add(field, differs),
        };
    check("type", Some(kind.name), true, format!("type in body should be one of [{}]", kind.name));
    check("name", Some(&key.name), true, name);
    let mesh = key.mesh.as_ref().map(resource::MeshName::as_str);
    check("mesh", mesh, false, "mesh from the URL has to be the same as in body".into());
    // Written by us; a document that was read here may be sent back as it is.
    for ours in ["creationTime", "modificationTime", "kri", "snis"] {
        drop(fields.remove(ours));
    }
    if !kind.inline {
        drop(fields.remove("status"));
    }
}

/// The resource as it shall be stored.
fn resource<B: Backend>(
    served: &Served<B>,
    key: &ResourceKey,
    wanted: &Wanted,
    before: Option<&Resource>,
) -> Result<Resource, Problem> {
    let (kind, given) = (&served.kind, &served.api.given);
    let existing = before.map(|row| &row.head.labels);
    let (labels, spec) = (&wanted.labels, &wanted.spec);
    let request = labels::Request { kind: *kind, key, labels, existing, spec };
    let labels = labels::computed(&request, &given.place.here)
        .map_err(|violations| Problem::invalid(PUT, &violations))?;
    // What control planes reported stays until they report again.
    let status = before.map(|row| row.status.clone()).unwrap_or_default();
    let encoded = kept(kind, wanted, before)?;
    let row = kind.resource(key.clone(), labels, encoded, status, given.kinds.peer);
    let row = row.map_err(|error| Problem::rejected(PUT, &error))?;
    Ok(limited::limited(row, &given.kinds, &served.api.reader))
}

/// The wanted spec; what a zone keeps in that of a service stays until the zone says otherwise, since
/// nobody could be called in between.
fn kept(kind: &Kind, wanted: &Wanted, before: Option<&Resource>) -> Result<Bytes, Problem> {
    let before = before.and_then(|row| kinds::read::<MeshService>(row).ok());
    match (wanted.spec.downcast_ref::<MeshService>(), before) {
        (Some(service), Some(before)) => {
            let spec: AnySpec = Arc::new(service.kept(&before));
            kind.encode(&spec).map_err(|error| Problem::rejected(PUT, &error))
        }
        _ => Ok(wanted.encoded.clone()),
    }
}

/// What is deleted with a resource: what lives in a mesh, and what is known about a resource.
fn goes_with<B: Backend>(served: &Served<B>, key: &ResourceKey) -> Vec<Item> {
    let (api, kind) = (&served.api, &served.kind);
    let item = |id, key: ResourceKey| Item {
        kind: id,
        expected: Expected::Anything,
        edit: Edit::Delete(key),
    };
    let mut items = Vec::new();
    if let Some((id, _)) = api.kind(&format!("{}Insight", kind.name)) {
        items.push(item(id, key.clone()));
    }
    if is_mesh(kind)
        && let Ok(mesh) = resource::MeshName::new(&key.name)
    {
        for (id, _) in api.given.kinds.iter().filter(|(_, kind)| kind.scope == Scope::Mesh) {
            let (_, rows) = api.reader.rows(id);
            items.extend(within(&rows, Some(&mesh)).map(|row| item(id, row.head.key.clone())));
        }
    }
    items
}
