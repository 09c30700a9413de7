//! MeshIdentity: who the proxies of a mesh are, and who vouches for them.

mod spec;
#[cfg(test)]
mod tests;
mod validate;

pub use self::spec::{
    Agent, Autogenerate, Bundled, Ca, CertificateParameters, DataplaneSelector, Extension,
    MeshIdentity, MeshTrustCreation, Provider, ProviderType, Selector, SpiffeIdTemplates, Spire,
    Status,
};

use crate::template::{NotRendered, Template, Values};
use resource::{Flow, Json, Kind, Labels, Scope, Spec, Violations, label};

/// See [`MeshIdentity`].
pub const KIND: Kind = Kind::of::<MeshIdentity>();

/// The trust domain where a MeshIdentity says none.
pub const TRUST_DOMAIN: &str = "{{ .Mesh }}.{{ .Zone }}.mesh.local";
/// The path on Kubernetes where a MeshIdentity says none.
pub const PATH_ON_KUBERNETES: &str = "/ns/{{ .Namespace }}/sa/{{ .ServiceAccount }}";
/// The path elsewhere where a MeshIdentity says none.
pub const PATH_ON_UNIVERSAL: &str = "/workload/{{ .Workload }}";

/// The aspects that a status reports.
pub mod condition {
    /// Identities are issued.
    pub const READY: &str = "Ready";
    /// Issued where a part is still missing.
    pub const PARTIALLY_READY: &str = "PartiallyReady";
    /// The provider works.
    pub const PROVIDER: &str = "Provider";
    /// SPIFFE IDs are published, without a provider.
    pub const SPIFFE_ID_PROVIDER: &str = "SpiffeIDProvider";
    /// The MeshTrust is there.
    pub const MESH_TRUST_CREATED: &str = "MeshTrustCreated";
    /// What it refers to is there.
    pub const DEPENDENCIES_READY: &str = "DependenciesReady";
}

impl Spec for MeshIdentity {
    type Encoding = Json;
    type Status = Status;

    const KIND: &'static str = "MeshIdentity";
    const PLURAL: &'static str = "meshidentities";
    const SHORT: &'static str = "mid";
    const SCOPE: Scope = Scope::Mesh;
    const FLOW: Flow = Flow::BothWays;

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    fn validate(&self, violations: &mut Violations) {
        validate::validate(self, violations);
    }
}

impl resource::Status for Status {}

/// Where a proxy is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its mesh.
    pub mesh: &'a str,
    /// Its zone.
    pub zone: &'a str,
    /// What its zone runs on.
    pub kubernetes: bool,
}

/// Why a proxy has no SPIFFE ID.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoSpiffeId {
    /// A template cannot be read.
    #[error(transparent)]
    Template(#[from] crate::template::InvalidTemplate),
    /// The proxy lacks what a template says.
    #[error(transparent)]
    Values(#[from] NotRendered),
    /// A field that the path names is empty.
    #[error("{0:?} is empty")]
    Empty(&'static str),
}

impl MeshIdentity {
    /// How closely it selects a proxy with these labels: by the number of labels it names; `None`
    /// if it does not. Without a selector it selects none.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> Option<usize> {
        let selector = self.selector.as_ref()?.dataplane.as_ref()?;
        let wanted = &selector.match_labels;
        let all = wanted.iter().map(|(key, value)| (&**key, &**value));
        labels.contain(all).then_some(wanted.len())
    }

    /// The trust domain of proxies at `place`. A label in its template is one of the identity, whose
    /// labels are `own`: a trust domain is the same for all its proxies.
    pub fn trust_domain(&self, place: Place<'_>, own: &Labels) -> Result<String, NoSpiffeId> {
        let template = self.templates().and_then(|templates| templates.trust_domain.as_deref());
        render(template.unwrap_or(TRUST_DOMAIN), place, own)
    }

    /// The path of the SPIFFE ID of a proxy with these labels.
    pub fn path(&self, place: Place<'_>, labels: &Labels) -> Result<String, NoSpiffeId> {
        render(self.path_template(place.kubernetes), place, labels)
    }

    /// The SPIFFE ID of a proxy with `labels`, by the identity with the labels `own`.
    pub fn spiffe_id(
        &self,
        place: Place<'_>,
        own: &Labels,
        labels: &Labels,
    ) -> Result<String, NoSpiffeId> {
        Ok(format!("spiffe://{}{}", self.trust_domain(place, own)?, self.path(place, labels)?))
    }

    /// Whether a proxy needs the label of its workload to have a SPIFFE ID.
    #[must_use]
    pub fn needs_workload(&self, kubernetes: bool) -> bool {
        let template = self.path_template(kubernetes).parse::<Template>();
        template.is_ok_and(|it| {
            it.has_field("Workload") || it.labels().any(|key| key == label::WORKLOAD)
        })
    }

    fn templates(&self) -> Option<&SpiffeIdTemplates> {
        self.spiffe_id.as_ref()
    }

    fn path_template(&self, kubernetes: bool) -> &str {
        let default = if kubernetes { PATH_ON_KUBERNETES } else { PATH_ON_UNIVERSAL };
        self.templates().and_then(|templates| templates.path.as_deref()).unwrap_or(default)
    }
}

fn render(template: &str, place: Place<'_>, labels: &Labels) -> Result<String, NoSpiffeId> {
    let template: Template = template.parse()?;
    let of = |key| labels.get(key).unwrap_or_default();
    let fields = [
        ("Mesh", place.mesh),
        ("Zone", place.zone),
        ("Namespace", of(label::NAMESPACE)),
        ("ServiceAccount", of(label::SERVICE_ACCOUNT)),
        ("Workload", of(label::WORKLOAD)),
    ];
    // An empty segment would make proxies that have nothing in common the same.
    for name in ["Namespace", "ServiceAccount", "Workload"] {
        let empty = fields.iter().any(|(field, value)| *field == name && value.is_empty());
        if empty && template.has_field(name) {
            return Err(NoSpiffeId::Empty(name));
        }
    }
    Ok(template.render(&Values { fields: &fields, label: |key: &str| labels.get(key) })?)
}

/// The identity that a proxy with these labels gets: the one that names most labels, then the first
/// by name.
pub fn best<'a, N: Ord + Copy>(
    identities: impl IntoIterator<Item = (N, &'a MeshIdentity)>,
    labels: &Labels,
) -> Option<(N, &'a MeshIdentity)> {
    identities
        .into_iter()
        .filter_map(|(name, identity)| Some((identity.selects(labels)?, name, identity)))
        .max_by(|one, two| one.0.cmp(&two.0).then(two.1.cmp(&one.1)))
        .map(|(_, name, identity)| (name, identity))
}
