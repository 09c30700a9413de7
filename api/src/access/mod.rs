//! Who gets in, and who may do what.
//!
//! A request is let in by a user token, never by its address. Everybody who has one may look at
//! what lives outside meshes, secrets apart; more comes from groups:
//!
//! | group | may |
//! |---|---|
//! | `mesh-system:admin` | everything |
//! | `mesh:<mesh>:reader` | read the mesh and what is in it, secrets apart |
//! | `mesh:<mesh>:writer` | also write what is in it, secrets apart |
//!
//! `*` in place of a mesh's name means every mesh.
//!
//! Before that, a request must be addressed to this server: a web page can make a browser send
//! requests to any address, under a name that its author controls (DNS rebinding), and shows itself
//! by its `Origin`.

use super::{
    Problem, body,
    serve::Connection,
    state::{Api, Entry, MESH},
};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts, uri::Authority};
use resource::{Access, Kind, MeshName, ResourceKey, Scope};
use std::{fmt, net::IpAddr, sync::Arc};
use store::Backend;

/// The group, and the user, that may do everything.
pub const ADMIN: &str = "mesh-system:admin";
const AUTHENTICATED: &str = "mesh-system:authenticated";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// What it is a member of.
    pub groups: Vec<String>,
}

impl User {
    /// Whoever holds a token with this name and these groups.
    #[must_use]
    pub fn authenticated(name: String, mut groups: Vec<String>) -> Self {
        groups.push(AUTHENTICATED.into());
        Self { name, groups }
    }

    /// The administrator.
    #[must_use]
    pub fn admin() -> Self {
        Self::authenticated(ADMIN.into(), vec![ADMIN.into()])
    }

    /// Whether it may do everything.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.name == ADMIN || self.groups.iter().any(|group| group == ADMIN)
    }

    fn has_role(&self, mesh: &str, roles: &[&str]) -> bool {
        let grants = |group: &String| {
            let granted = group.strip_prefix("mesh:").and_then(|group| group.rsplit_once(':'));
            granted.is_some_and(|(of, role)| (of == mesh || of == "*") && roles.contains(&role))
        };
        self.is_admin() || self.groups.iter().any(grants)
    }

    /// Whether it may read what is in `mesh`.
    #[must_use]
    pub fn reads_mesh(&self, mesh: &MeshName) -> bool {
        self.has_role(mesh.as_str(), &["reader", "writer"])
    }

    /// Whether it may read the resource `key`.
    #[must_use]
    pub fn reads(&self, kind: &Kind, key: &ResourceKey) -> bool {
        match (kind.access, &key.mesh) {
            (Access::Admins, _) => self.is_admin(),
            (Access::Users | Access::ReadOnly, Some(mesh)) => self.reads_mesh(mesh),
            (Access::Users | Access::ReadOnly, None) if kind.name == MESH => {
                self.has_role(&key.name, &["reader", "writer"])
            }
            (Access::Users | Access::ReadOnly, None) => true,
        }
    }

    /// Whether it may write the resource `key`.
    #[must_use]
    pub fn writes(&self, kind: &Kind, key: &ResourceKey) -> bool {
        match (kind.access, &key.mesh) {
            (Access::Users, Some(mesh)) => self.has_role(mesh.as_str(), &["writer"]),
            (Access::Users | Access::Admins | Access::ReadOnly, _) => self.is_admin(),
        }
    }

    /// What it is told when it may not.
    pub(crate) fn denied(&self, kind: &Kind) -> Problem {
        let name = kind.name;
        Problem::denied(format_args!(
            "user {:?} cannot access the resource of type {name:?}",
            self.to_string()
        ))
    }

    /// Refuses unless it may read every resource of `kind` in `mesh`, or some of it in all meshes.
    pub(crate) fn check_list(&self, kind: &Kind, mesh: Option<&MeshName>) -> Result<(), Problem> {
        let may = match (kind.access, mesh) {
            (Access::Admins, _) => self.is_admin(),
            (Access::Users | Access::ReadOnly, Some(mesh)) => self.reads_mesh(mesh),
            (Access::Users | Access::ReadOnly, None) => true,
        };
        if may { Ok(()) } else { Err(self.denied(kind)) }
    }

    /// Whether it sees every resource of `kind`, so that a list need not ask for each.
    pub(crate) fn reads_all(&self, kind: &Kind) -> bool {
        let by_mesh = kind.scope == Scope::Mesh || kind.name == MESH;
        self.is_admin()
            || (kind.access != Access::Admins
                && (!by_mesh || self.has_role("*", &["reader", "writer"])))
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.groups.join(","))
    }
}

/// Refuses everybody but administrators.
pub(crate) fn check_admin(user: &User) -> Result<(), Problem> {
    if user.is_admin() {
        return Ok(());
    }
    let user = user.to_string();
    Err(Problem::denied(format_args!("user {user:?} is not an administrator")))
}

/// Lets in, or refuses.
pub(crate) async fn admit<B: Backend + 'static>(
    State(api): State<Arc<Api<B>>>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let entry = &api.given.entry;
    let origin = match addressed(&parts, entry) {
        Ok(origin) => origin,
        Err(problem) => return problem.into_response(),
    };
    if parts.method == Method::OPTIONS && origin.is_some() {
        return shared(StatusCode::NO_CONTENT.into_response(), origin);
    }
    let user = match api.user(&parts) {
        Ok(Some(user)) => user,
        // `/` says nothing that a client does not need before it can log in.
        Ok(None) if parts.uri.path() == "/" => User { name: String::new(), groups: Vec::new() },
        Ok(None) => return shared(unauthenticated().into_response(), origin),
        Err(problem) => return shared(problem.into_response(), origin),
    };
    if let Err(problem) = body::check_accept(&parts.headers) {
        return shared(problem.into_response(), origin);
    }
    parts.extensions.insert(user);
    let response = next.run(Request::from_parts(parts, body)).await;
    shared(response, origin)
}

pub(crate) fn unauthenticated() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "Invalid authentication data", "Unauthenticated")
}

impl<B: Backend> Api<B> {
    fn user(&self, parts: &Parts) -> Result<Option<User>, Problem> {
        match bearer(&parts.headers) {
            Some(token) => self.keys.user(token, &self.reader, &self.given.clock).map(Some),
            None if self.given.entry.localhost_is_admin && from_localhost(parts) => {
                Ok(Some(User::admin()))
            }
            None => Ok(None),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What a request was sent to, without the port.
fn host(parts: &Parts) -> Option<(Authority, String)> {
    let authority = match parts.uri.authority() {
        Some(authority) => authority.clone(),
        None => parts.headers.get(header::HOST)?.to_str().ok()?.parse().ok()?,
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    Some((authority, host))
}

const LOCALHOST: &str = "localhost";

/// Refuses what was not meant for this server; returns the origin to share the answer with.
fn addressed(parts: &Parts, entry: &Entry) -> Result<Option<HeaderValue>, Problem> {
    let Some((authority, host)) = host(parts) else {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "Bad Request", "no usable Host"));
    };
    let here = parts.extensions.get::<Connection>();
    let known = match host.parse::<IpAddr>() {
        // The connection shows that the address is ours; a name would only be somebody's word.
        Ok(address) if here.is_some_and(|here| here.local.ip().to_canonical() == address) => true,
        Ok(address) => entry.hosts.iter().any(|known| known.parse() == Ok(address)),
        Err(_) if host == LOCALHOST => {
            here.is_none_or(|here| here.local.ip().to_canonical().is_loopback())
        }
        Err(_) => entry.hosts.iter().any(|known| known.eq_ignore_ascii_case(&host)),
    };
    if !known {
        let detail = format_args!("this server is not {host:?}; its names are set by api.hosts");
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "Misdirected request", detail));
    }
    let Some(origin) = parts.headers.get(header::ORIGIN) else { return Ok(None) };
    let text = origin.to_str().unwrap_or_default();
    if entry.origins.iter().any(|known| known == text) {
        return Ok(Some(origin.clone()));
    }
    let own = text.split_once("://").is_some_and(|(_, from)| from == authority.as_str());
    if own {
        Ok(None)
    } else {
        Err(Problem::denied(format_args!("origin {text:?} is not one of api.origins")))
    }
}

/// Lets the web pages of a listed origin read the answer.
fn shared(mut response: Response, origin: Option<HeaderValue>) -> Response {
    const METHODS: HeaderValue = HeaderValue::from_static("GET, PUT, POST, DELETE");
    const HEADERS: HeaderValue =
        HeaderValue::from_static("authorization, content-type, if-match, if-none-match");
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// Whether a program on this machine asks, for itself: not a browser, and not for somebody else.
fn from_localhost(parts: &Parts) -> bool {
    let loopback = |connection: &Connection| {
        let ends = [connection.peer, connection.local];
        ends.iter().all(|end| end.ip().to_canonical().is_loopback())
    };
    let to_localhost = host(parts).is_some_and(|(_, host)| {
        host == LOCALHOST || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    });
    let foreign = |name: &str| {
        matches!(name, "origin" | "referer" | "forwarded" | "via" | "x-real-ip" | "true-client-ip")
            || ["sec-fetch-", "x-forwarded", "cf-"].iter().any(|prefix| name.starts_with(prefix))
    };
    parts.extensions.get::<Connection>().is_some_and(loopback)
        && to_localhost
        && !parts.headers.keys().any(|name| foreign(name.as_str()))
}

#[cfg(test)]
mod tests;
