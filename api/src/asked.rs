//! What every request about a kind says.

use super::{
    Problem,
    access::User,
    query::Query,
    serve::Connection,
    state::{Api, MESH},
};
use axum::{
    RequestPartsExt,
    extract::{FromRequestParts, Path},
};
use http::{HeaderMap, Method, header, request::Parts};
use resource::{Kind, MeshName, ResourceKey, Scope};
use std::{collections::BTreeMap, sync::Arc};
use store::{Backend, view::KindId};

/// A kind, and the API it is served by: the state of a kind's routes.
pub(crate) struct Served<B> {
    pub(crate) api: Arc<Api<B>>,
    pub(crate) id: KindId,
    pub(crate) kind: Kind,
}

impl<B> Clone for Served<B> {
    fn clone(&self) -> Self {
        Self { api: self.api.clone(), id: self.id, kind: self.kind }
    }
}

/// The parts of a request that do not depend on its body.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) user: User,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) path: String,
    /// Scheme and host, as the client wrote them.
    pub(crate) base: String,
    /// The parameters of the path.
    mesh: Option<String>,
    name: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut path: BTreeMap<String, String> = match parts.extract().await {
            Ok(Path(path)) => path,
            Err(_) => BTreeMap::new(),
        };
        let user =
            parts.extensions.get::<User>().cloned().ok_or_else(super::access::unauthenticated)?;
        let tls = parts.extensions.get::<Connection>().is_some_and(|connection| connection.tls);
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let authority = parts.uri.authority().map(http::uri::Authority::as_str);
        let host = authority.or(host).unwrap_or_default();
        Ok(Self {
            user,
            query: Query::of(&parts.uri)?,
            headers: parts.headers.clone(),
            path: parts.uri.path().to_owned(),
            base: format!("{}://{host}", if tls { "https" } else { "http" }),
            mesh: path.remove("mesh"),
            name: path.remove("name"),
        })
    }
}

impl Asked {
    /// The mesh of the path, which must exist, if the user may look into it.
    pub(crate) fn mesh<B: Backend>(&self, served: &Served<B>) -> Result<Option<MeshName>, Problem> {
        let Some(text) = &self.mesh else { return Ok(None) };
        let missing = || {
            Problem::not_found("Failed to retrieve Mesh", format_args!("mesh {text:?} not found"))
        };
        let mesh = MeshName::new(text).map_err(|_| missing())?;
        // Who may not look into a mesh does not learn whether there is one.
        if !self.user.reads_mesh(&mesh) {
            return Err(self.user.denied(&served.kind));
        }
        if served.api.has_mesh(&mesh) { Ok(Some(mesh)) } else { Err(missing()) }
    }

    /// The resource of the path.
    pub(crate) fn key<B: Backend>(&self, served: &Served<B>) -> Result<ResourceKey, Problem> {
        let mesh = self.mesh(served)?;
        let name = self.name.as_deref().unwrap_or_default();
        Ok(ResourceKey { mesh, name: name.into() })
    }

    /// What there is no resource of, for a person.
    pub(crate) fn nothing_here(title: &str, kind: &Kind, key: &ResourceKey) -> Problem {
        let (kind_name, name) = (kind.name, &key.name);
        match (&key.mesh, kind.scope) {
            (Some(mesh), Scope::Mesh) => Problem::not_found(
                title,
                format_args!("{kind_name} {name:?} not found in mesh {:?}", mesh.as_str()),
            ),
            _ => Problem::not_found(title, format_args!("{kind_name} {name:?} not found")),
        }
    }

    /// The route of the list, for a person.
    pub(crate) fn route(&self, kind: &Kind) -> String {
        let path = kind.path;
        if self.mesh.is_some() { format!("/meshes/{{mesh}}/{path}") } else { format!("/{path}") }
    }
}

/// Whether `kind` is the one that others live in.
pub(crate) fn is_mesh(kind: &Kind) -> bool {
    kind.name == MESH
}

/// Why a method is not there.
pub(crate) fn no_method(method: &Method) -> Problem {
    let detail = format_args!("{method} is not possible here");
    Problem::new(http::StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail)
}
