//! Reading: one resource, pages of them, by KRI, and with what is known about them.

use super::{
    Problem,
    asked::{Asked, Served},
    health,
    query::{Filter, Page},
    render::{self, Form},
    state::Api,
    watch,
};
use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use resource::{Access, Kind, Kri, MeshName, RejectedSpec, Resource, ResourceKey, Scope};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use store::{
    Backend,
    view::{KindId, Rows},
};

pub(crate) const ONE: &str = "Could not retrieve a resource";

/// A page of a list.
#[derive(Serialize)]
struct List {
    total: usize,
    items: Vec<Value>,
    next: Option<String>,
}

/// A stored row that its kind cannot read any more: a defect of ours, shown as such.
pub(crate) fn unreadable(error: &RejectedSpec) -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "Internal Server Error",
        format_args!("a stored resource is not readable: {error}"),
    )
}

pub(crate) fn etag(row: &Resource) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("\"{}\"", row.head.version));
    value.into_iter().map(|value| (header::ETAG, value)).collect()
}

/// `GET /meshes/{mesh}/{path}/{name}`
pub(crate) async fn one<B: Backend>(
    State(served): State<Served<B>>,
    asked: Asked,
) -> Result<Response, Problem> {
    let form = form(&asked)?;
    let key = asked.key(&served)?;
    if !asked.user.reads(&served.kind, &key) {
        return Err(asked.user.denied(&served.kind));
    }
    let row = served.api.reader.get(served.id, &key);
    let row = row.ok_or_else(|| Asked::nothing_here(ONE, &served.kind, &key))?;
    let shown = render::resource(&served.kind, &row, form).map_err(|error| unreadable(&error))?;
    Ok((etag(&row), Json(shown)).into_response())
}

fn form(asked: &Asked) -> Result<Form, Problem> {
    match asked.query.get("format") {
        None | Some("universal") => Ok(Form::Universal),
        Some("k8s" | "kubernetes") => Ok(Form::Kubernetes),
        Some(_) => {
            let reason = r#""format" must be one of ["k8s", "kubernetes", "universal"]"#;
            Err(Problem::field(ONE, "format", reason))
        }
    }
}

/// `GET /{path}` and `GET /meshes/{mesh}/{path}`
pub(crate) async fn list<B: Backend + 'static>(
    State(served): State<Served<B>>,
    asked: Asked,
) -> Result<Response, Problem> {
    let mesh = asked.mesh(&served)?;
    asked.user.check_list(&served.kind, mesh.as_ref())?;
    if asked.query.is_set("watch") {
        return watch::stream(&served, &asked, mesh);
    }
    let show = |row: &Resource| render::listed(&served.kind, row);
    let page = page(&served, &asked, mesh.as_ref(), show)?;
    // Where a watch goes on from.
    let (revision, _) = served.api.reader.rows(served.id);
    Ok((watch::place(&served.api, revision), Json(page)).into_response())
}

fn page<B: Backend>(
    served: &Served<B>,
    asked: &Asked,
    mesh: Option<&MeshName>,
    show: impl Fn(&Resource) -> Result<Value, RejectedSpec>,
) -> Result<List, Problem> {
    let page = Page::of(&asked.query)?;
    let filter = Filter::of(&asked.query, &asked.route(&served.kind), &served.kind)?;
    let (_, rows) = served.api.reader.rows(served.id);
    let all = mesh.is_some() || asked.user.reads_all(&served.kind);
    let (total, rows) = if filter.is_empty() && all {
        slice(&rows, mesh, page)
    } else {
        let readable = |row: &Resource| all || asked.user.reads(&served.kind, &row.head.key);
        // Not looked at where it need not: what costs most of a search is to touch the rows.
        let by_name = all && filter.is_by_name();
        let matches = |row: &Resource| by_name || (filter.selects(row) && readable(row));
        matching(&rows, mesh, (page, filter.name()), matches)
    };
    let items: Result<Vec<Value>, RejectedSpec> = rows.iter().map(|row| show(row)).collect();
    let more = page.offset.saturating_add(page.size) < total;
    Ok(List {
        total,
        items: items.map_err(|error| unreadable(&error))?,
        next: more.then(|| page.next(&asked.base, &asked.path, &asked.query)),
    })
}

/// The rows of `mesh`, or all.
pub(crate) fn within<'a>(
    rows: &'a Rows,
    mesh: Option<&MeshName>,
) -> impl Iterator<Item = &'a Arc<Resource>> {
    // Nothing is called "", and the rows of a mesh stand together.
    let first = mesh.map(|mesh| ResourceKey::in_mesh(mesh, ""));
    let mesh = mesh.cloned();
    rows.after(first.as_ref()).take_while(move |row| mesh.is_none() || row.head.key.mesh == mesh)
}

/// Above every name there can be.
const ABOVE: &str = "\u{10ffff}";

/// How many there are, and those of the page. Skips leaves of the table, not rows.
fn slice(rows: &Rows, mesh: Option<&MeshName>, page: Page) -> (usize, Vec<Arc<Resource>>) {
    let total = match mesh {
        None => rows.len(),
        Some(mesh) => {
            let edge = |name: &str| rows.after(Some(&ResourceKey::in_mesh(mesh, name))).count();
            edge("") - edge(ABOVE)
        }
    };
    let first = mesh.map(|mesh| ResourceKey::in_mesh(mesh, ""));
    let wanted = total.saturating_sub(page.offset).min(page.size);
    (total, rows.after(first.as_ref()).skip(page.offset).take(wanted).cloned().collect())
}

/// The same for those that match and whose names have a part.
fn matching(
    rows: &Rows,
    mesh: Option<&MeshName>,
    (page, part): (Page, &str),
    matches: impl Fn(&Resource) -> bool,
) -> (usize, Vec<Arc<Resource>>) {
    let (mut total, mut found) = (0, Vec::new());
    let edge = |name: &str| mesh.map(|mesh| ResourceKey::in_mesh(mesh, name));
    let (first, last) = (edge(""), edge(ABOVE));
    for row in rows.named(first.as_ref(), last.as_ref(), part).filter(|row| matches(row)) {
        if total >= page.offset && found.len() < page.size {
            found.push(row.clone());
        }
        total += 1;
    }
    (total, found)
}

/// A kind and the one that says what is known about its resources.
pub(crate) struct Observed<B> {
    pub(crate) served: Served<B>,
    pub(crate) insight: (KindId, Kind),
}

impl<B> Clone for Observed<B> {
    fn clone(&self) -> Self {
        Self { served: self.served.clone(), insight: self.insight }
    }
}

impl<B: Backend> Observed<B> {
    fn show(&self, row: &Resource) -> Result<Value, RejectedSpec> {
        let (id, kind) = &self.insight;
        let (api, of) = (&self.served.api, &self.served.kind);
        let insight = api.reader.get(*id, &row.head.key);
        let health = health::of(api, of, row, insight.as_deref());
        render::overview((of, row), (kind, insight.as_deref()), health)
    }
}

/// `GET …/{name}/_overview`
pub(crate) async fn overview<B: Backend>(
    State(observed): State<Observed<B>>,
    asked: Asked,
) -> Result<Response, Problem> {
    let served = &observed.served;
    let key = asked.key(served)?;
    if !asked.user.reads(&served.kind, &key) {
        return Err(asked.user.denied(&served.kind));
    }
    let row = served.api.reader.get(served.id, &key);
    let row = row.ok_or_else(|| Asked::nothing_here(ONE, &served.kind, &key))?;
    Ok(Json(observed.show(&row).map_err(|error| unreadable(&error))?).into_response())
}

/// `GET …/_overview`
pub(crate) async fn overviews<B: Backend>(
    State(observed): State<Observed<B>>,
    asked: Asked,
) -> Result<Response, Problem> {
    let mesh = asked.mesh(&observed.served)?;
    asked.user.check_list(&observed.served.kind, mesh.as_ref())?;
    let page = page(&observed.served, &asked, mesh.as_ref(), |row| observed.show(row))?;
    Ok(Json(page).into_response())
}

/// `GET /_kri/{kri}`
pub(crate) async fn by_kri<B: Backend>(
    State(api): State<Arc<Api<B>>>,
    Path(text): Path<String>,
    asked: Asked,
) -> Result<Response, Problem> {
    let kri: Kri = text.parse().map_err(|error| Problem::field(ONE, "kri", error))?;
    let kri = kri.with_section("");
    let missing = || Problem::not_found(ONE, format_args!("{text} not found"));
    let kinds = &api.given.kinds;
    let kind = kinds.iter().find(|(_, kind)| !kind.short.is_empty() && kind.short == kri.short);
    let (id, kind) = kind.ok_or_else(missing)?;
    let row = find(&api.reader.rows(id).1, kind, &kri);
    let readable = row.filter(|row| asked.user.reads(kind, &row.head.key));
    let row = readable.ok_or_else(missing)?;
    let shown =
        render::resource(kind, &row, Form::Universal).map_err(|error| unreadable(&error))?;
    Ok((etag(&row), Json(shown)).into_response())
}

/// The resource of `kri`. Here it is called by its display name, or by that and a hash.
fn find(rows: &Rows, kind: &Kind, kri: &Kri) -> Option<Arc<Resource>> {
    let mesh = MeshName::new(&kri.mesh).ok();
    if (kind.scope == Scope::Mesh) != mesh.is_some()
        || kri.name.is_empty()
        || kind.access == Access::Admins
    {
        return None;
    }
    let is = |row: &Resource| kind.kri(&row.head) == *kri;
    let key = ResourceKey { mesh: mesh.clone(), name: kri.name.as_str().into() };
    if let Some(row) = rows.get(&key).filter(|row| is(row)) {
        return Some(row.clone());
    }
    // A long name is cut where the hash begins.
    let kept = kri.name.get(..kri.name.floor_char_boundary(HASHED_NAME_KEEPS)).unwrap_or_default();
    let from = ResourceKey { mesh, name: kept.into() };
    let mut near = rows
        .after(Some(&from))
        .take_while(|row| row.head.key.mesh == from.mesh && row.head.key.name.starts_with(kept));
    near.find(|row| is(row)).cloned()
}

/// How much of a name stands before the hash of a resource that came from another control plane.
const HASHED_NAME_KEEPS: usize = 236;
