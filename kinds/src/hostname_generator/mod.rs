//! HostnameGenerator: under which host names services can be reached.

mod spec;
#[cfg(test)]
mod tests;

pub use self::spec::{Extension, HostnameGenerator, Selector};

use crate::{
    rule,
    template::{NotRendered, Template, Values},
};
use resource::{Feature, Features, Flow, Json, Kind, NoStatus, Scope, Spec, Violations};

/// See [`HostnameGenerator`].
pub const KIND: Kind = Kind::of::<HostnameGenerator>();

impl Spec for HostnameGenerator {
    type Encoding = Json;
    type Status = NoStatus;

    const KIND: &'static str = "HostnameGenerator";
    const PLURAL: &'static str = "hostnamegenerators";
    const SHORT: &'static str = "hg";
    const SCOPE: Scope = Scope::Global;
    const FLOW: Flow = Flow::BothWays;

    fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    fn validate(&self, violations: &mut Violations) {
        let selector = &self.selector;
        let selectors = [
            &selector.mesh_service,
            &selector.mesh_external_service,
            &selector.mesh_multi_zone_service,
        ];
        if selectors.iter().filter(|selector| selector.is_some()).count() != 1 {
            violations.add(
                "spec.selector",
                "exactly one selector (meshService, meshExternalService or meshMultiZoneService) must be defined",
            );
        }
        if self.template.is_empty() {
            violations.add("spec.template", "must not be empty");
        } else if let Err(error) = self.dry_run() {
            violations.add("spec.template", error);
        }
        if self.extension.as_ref().is_some_and(|extension| extension.kind.is_empty()) {
            violations.add("spec.extension.type", "must not be empty");
        }
    }

    fn needs(&self) -> Features {
        if self.selector.mesh_multi_zone_service.is_some() {
            Features::default().with(Feature::HostnameGeneratorMultiZone)
        } else {
            Features::default()
        }
    }
}

/// Why a service gets no host name.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoHostname {
    /// The template cannot be read.
    #[error(transparent)]
    Template(#[from] crate::template::InvalidTemplate),
    /// The service lacks what the template says.
    #[error(transparent)]
    Values(#[from] NotRendered),
    /// DNS does not allow what came out.
    #[error("{0:?} is not a host name")]
    Name(String),
}

/// What a template may say about a service.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// Its name in this control plane, without its Kubernetes namespace.
    pub name: &'a str,
    /// The name its owner gave it.
    pub display_name: &'a str,
    /// Its Kubernetes namespace.
    pub namespace: &'a str,
    /// Its mesh.
    pub mesh: &'a str,
    /// Its zone.
    pub zone: &'a str,
}

impl HostnameGenerator {
    /// The host name of a service whose labels `label` tells.
    pub fn hostname<'a>(
        &self,
        service: &Service<'a>,
        label: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<String, NoHostname> {
        let template: Template = self.template.parse()?;
        let fields = [
            ("Name", service.name),
            ("DisplayName", service.display_name),
            ("Namespace", service.namespace),
            ("Mesh", service.mesh),
            ("Zone", service.zone),
        ];
        let name = template.render(&Values { fields: &fields, label })?;
        if rule::is_host_name(&name) { Ok(name) } else { Err(NoHostname::Name(name)) }
    }

    fn dry_run(&self) -> Result<String, NoHostname> {
        let word = "sample";
        let service =
            Service { name: word, display_name: word, namespace: word, mesh: word, zone: word };
        self.hostname(&service, |_| Some(word))
    }
}
