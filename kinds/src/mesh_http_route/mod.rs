//! MeshHTTPRoute: where requests go, and how they are changed on the way.

mod spec;
#[cfg(test)]
mod tests;
mod validate;

pub use self::spec::{
    Filter, FilterType, Match, MeshHTTPRoute, Method, PathMatch, PathMatchType, PathRewrite,
    PathRewriteType, QueryParamMatch, QueryParamMatchType, RequestMirror, RequestRedirect, Rule,
    RuleConf, Scheme, StatusCode, To, UrlRewrite,
};

pub(crate) use self::validate::DESTINATIONS;

use crate::role;
use resource::{Flow, Json, Kind, Labels, NoStatus, Scope, Spec, Targets, Violations};

/// See [`MeshHTTPRoute`].
pub const KIND: Kind = Kind::of::<MeshHTTPRoute>();

impl Spec for MeshHTTPRoute {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "MeshHTTPRoute";
    const PLURAL: &'static str = "meshhttproutes";
    const SHORT: &'static str = "mhttpr";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::Everywhere;
    const TARGETS: Option<Targets> = Some(Targets { to: true, rules: false });

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    fn validate(&self, violations: &mut Violations) {
        validate::validate(self, violations);
    }

    fn is_producer(&self, labels: &Labels) -> bool {
        role::is_producer(self.to.iter().map(|to| &to.target_ref), labels)
    }
}
