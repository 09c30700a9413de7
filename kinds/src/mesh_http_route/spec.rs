use crate::{BackendRef, HeaderMatch, HeaderModifier, IntOrString, policy};
use resource::cel;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use xds::{TargetRef, ToRef};

/// Says where requests go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[
    policy::NO_SECTION,
])))]
pub struct MeshHTTPRoute {
    /// Whose requests; those of all proxies of the mesh without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// By destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<To>,
}

/// The rules for requests to some destinations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct To {
    /// To which destinations.
    pub target_ref: ToRef,
    /// For which hosts; refused, as only gateways of the mesh could look at them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// What becomes of them.
    pub rules: Vec<Rule>,
}

/// What becomes of some requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rule {
    /// Which requests: those that fit any of these.
    #[schemars(length(min = 1))]
    pub matches: Vec<Match>,
    /// What becomes of them.
    pub default: RuleConf,
}

/// Which requests; what is left out does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// By path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// By method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// By parameters of the query, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<QueryParamMatch>,
    /// By headers, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
}

/// Compares a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathMatch {
    /// With what.
    #[schemars(length(min = 1))]
    pub value: String,
    /// How.
    pub r#type: PathMatchType,
}

/// How paths are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    /// The same path.
    Exact,
    /// The same path, or one below it: whole segments are compared.
    PathPrefix,
    /// The path fits a regular expression.
    RegularExpression,
}

/// A method of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Method {
    /// `CONNECT`.
    CONNECT,
    /// `DELETE`.
    DELETE,
    /// `GET`.
    GET,
    /// `HEAD`.
    HEAD,
    /// `OPTIONS`.
    OPTIONS,
    /// `PATCH`.
    PATCH,
    /// `POST`.
    POST,
    /// `PUT`.
    PUT,
    /// `TRACE`.
    TRACE,
}

/// Compares a parameter of a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueryParamMatch {
    /// How.
    pub r#type: QueryParamMatchType,
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// With what.
    pub value: String,
}

/// How parameters of queries are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum QueryParamMatchType {
    /// It has this value.
    Exact,
    /// Its value fits a regular expression.
    RegularExpression,
}

/// What becomes of requests; what is left out is as it would be without the route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleConf {
    /// How they are changed, in this order. An empty list is not the same as none: it takes away
    /// what other routes say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<Vec<Filter>>,
    /// Where they go; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_refs: Option<Vec<BackendRef>>,
}

/// One change of a request or its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Which of the following it is.
    pub r#type: FilterType,
    /// Changes headers of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes headers of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderModifier>,
    /// Sends the caller elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<RequestRedirect>,
    /// Changes host and path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<UrlRewrite>,
    /// Sends a copy elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<RequestMirror>,
}

/// The sorts of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FilterType {
    /// Of headers of the request.
    RequestHeaderModifier,
    /// Of headers of the answer.
    ResponseHeaderModifier,
    /// The caller is sent elsewhere.
    RequestRedirect,
    /// Of host and path.
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    /// A copy is sent elsewhere.
    RequestMirror,
}

/// Sends a caller elsewhere; what is left out is as in his request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestRedirect {
    /// With this scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// To this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = HOST))]
    pub hostname: Option<String>,
    /// To this path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// To this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// With this status.
    #[serde(default)]
    pub status_code: StatusCode,
}

/// A host that is no address.
pub(super) const HOST: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A scheme of URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

/// A status that sends a caller elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct StatusCode(u16);

const STATUS_CODES: [u16; 5] = [301, 302, 303, 307, 308];

/// The status does not send callers elsewhere.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("in body should be one of [301 302 303 307 308]")]
pub struct InvalidStatusCode;

impl Default for StatusCode {
    fn default() -> Self {
        Self(302)
    }
}

impl TryFrom<u16> for StatusCode {
    type Error = InvalidStatusCode;

    fn try_from(code: u16) -> Result<Self, InvalidStatusCode> {
        if STATUS_CODES.contains(&code) { Ok(Self(code)) } else { Err(InvalidStatusCode) }
    }
}

impl From<StatusCode> for u16 {
    fn from(code: StatusCode) -> Self {
        code.0
    }
}

impl JsonSchema for StatusCode {
    fn schema_name() -> Cow<'static, str> {
        "StatusCode".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "enum": STATUS_CODES })
    }
}

/// Changes a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathRewrite {
    /// Which of the following it is.
    pub r#type: PathRewriteType,
    /// What the whole path becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_full_path: Option<String>,
    /// What the prefix that was matched becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_prefix_match: Option<String>,
}

/// The sorts of changes of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathRewriteType {
    /// Of all of it.
    ReplaceFullPath,
    /// Of the prefix that was matched.
    ReplacePrefixMatch,
}

/// Changes host and path of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UrlRewrite {
    /// What the host becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = HOST))]
    pub hostname: Option<String>,
    /// What the path becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// Whether the host becomes that of the backend; refused, as only gateways of the mesh could do
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_to_backend_hostname: Option<bool>,
}

/// Sends copies of requests elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestMirror {
    /// Of how many in a hundred; of all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentage: Option<IntOrString>,
    /// Where to.
    pub backend_ref: BackendRef,
}
