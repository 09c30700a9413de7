use super::{
    InboundRule, Parts, PolicyKind,
    order::{Attributes, Order, Role},
};
use crate::target::{Match, TargetKind, TargetRef, ToKind, ToRef};
use resource::{Head, Kri, Labels, MeshName, Version, label};
use serde_json::Value;
use std::{collections::BTreeMap, fmt, sync::Arc};

/// A policy, read and ready to be asked.
#[derive(Clone)]
pub struct Applied {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its name in all control planes.
    pub kri: Arc<Kri>,
    /// Another one whenever it says something else.
    pub version: Version,
    /// Its place among all policies.
    pub order: Order,
    mesh: Option<MeshName>,
    role: Role,
    shadow: bool,
    target: TargetRef,
    to: Vec<(ToRef, Value)>,
    rules: Vec<(Vec<Match>, Value)>,
    conf: Option<Value>,
}

impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.kri, self.version)
    }
}

/// What policies ask about a proxy.
#[derive(Clone, Copy, Debug)]
pub struct ProxyFacts<'a> {
    /// Its mesh.
    pub mesh: &'a MeshName,
    /// The labels of its Dataplane.
    pub labels: &'a Labels,
}

/// What policies ask about a destination.
#[derive(Clone, Copy, Debug)]
pub struct DestinationFacts<'a> {
    /// The service with the port as section.
    pub kri: &'a Kri,
    /// The labels of the service.
    pub labels: &'a Labels,
    /// The number of the port.
    pub port: u16,
}

/// What policies ask about an inbound or a listener of a zone proxy.
#[derive(Clone, Copy, Debug)]
pub struct InboundFacts<'a> {
    /// Its name, or its port where it has none.
    pub section: &'a str,
    /// The number of its port.
    pub port: u16,
}

/// How closely an item of `to` looks: what looks closer applies later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Closeness {
    Everything,
    Service,
    Port,
}

impl Applied {
    pub(super) fn new(kind: PolicyKind, head: &Head, parts: Parts) -> Self {
        let target = parts.target.unwrap_or_default();
        Self {
            kind,
            kri: Arc::new(kind.kind.kri(head)),
            version: head.offered,
            order: Order::of(&kind, head, &target),
            mesh: head.key.mesh.clone(),
            role: Role::of(head),
            shadow: head.labels.get(label::EFFECT) == Some(label::EFFECT_SHADOW),
            target,
            to: parts.to,
            rules: parts.rules,
            conf: parts.conf,
        }
    }

    /// Whether it says something about what `proxy` does. Which of its inbounds is another question.
    #[must_use]
    pub fn selects(&self, proxy: &ProxyFacts<'_>) -> bool {
        let same = |key| part(&self.kri, key) == proxy.labels.get(key).unwrap_or_default();
        let reaches = match self.role {
            // One that a zone wrote is for that zone.
            Role::System => self.kri.zone.is_empty() || same(label::ZONE),
            Role::Producer => true,
            Role::Consumer | Role::WorkloadOwner => same(label::ZONE) && same(label::NAMESPACE),
        };
        let targeted = match self.target.kind {
            TargetKind::Mesh => true,
            TargetKind::Dataplane => has(proxy.labels, self.target.labels.as_ref()),
            TargetKind::Unknown => false,
        };
        !self.shadow && self.mesh.as_ref() == Some(proxy.mesh) && reaches && targeted
    }

    /// Whether it says anything about outgoing traffic.
    #[must_use]
    pub const fn is_outbound(&self) -> bool {
        !self.to.is_empty()
    }

    /// Whether it says anything about incoming traffic.
    #[must_use]
    pub const fn is_inbound(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Whether it says anything about the proxy as a whole.
    #[must_use]
    pub const fn is_about_proxy(&self) -> bool {
        self.conf.is_some()
    }

    pub(super) const fn conf(&self) -> Option<&Value> {
        self.conf.as_ref()
    }

    /// Whether it says anything about a destination, for a proxy that it selects.
    #[must_use]
    pub fn concerns(&self, facts: &DestinationFacts<'_>) -> bool {
        self.items(facts).next().is_some()
    }

    pub(super) const fn attributes(&self) -> Attributes {
        self.order.attributes()
    }

    /// The items that concern a destination.
    pub(super) fn items(
        &self,
        facts: &DestinationFacts<'_>,
    ) -> impl Iterator<Item = (&Self, Closeness, &Value)> {
        self.to.iter().filter_map(move |(target, conf)| {
            self.closeness(target, facts).map(|closeness| (self, closeness, conf))
        })
    }

    fn closeness(&self, target: &ToRef, facts: &DestinationFacts<'_>) -> Option<Closeness> {
        let short = match target.kind {
            ToKind::Mesh => return Some(Closeness::Everything),
            ToKind::MeshService => "msvc",
            ToKind::MeshExternalService => "extsvc",
            ToKind::MeshMultiZoneService => "mzsvc",
            // Routes are not destinations.
            ToKind::MeshHTTPRoute | ToKind::Unknown => return None,
        };
        // The owner of a service speaks for his own, not for those of others with its name.
        let own = |key| part(&self.kri, key) == facts.labels.get(key).unwrap_or_default();
        let may = self.role != Role::Producer || own(label::ZONE) && own(label::NAMESPACE);
        if facts.kri.short != short || !may || !has(facts.labels, target.labels.as_ref()) {
            return None;
        }
        match &target.section_name {
            None => Some(Closeness::Service),
            Some(section) => is(section, &facts.kri.section, facts.port).then_some(Closeness::Port),
        }
    }

    /// The rules that concern an inbound.
    pub(super) fn rules(
        &self,
        facts: &InboundFacts<'_>,
    ) -> impl Iterator<Item = InboundRule<Value>> {
        let section = self.target.section_name.as_deref();
        let concerned = section.is_none_or(|section| is(section, facts.section, facts.port));
        self.rules.iter().filter(move |_| concerned).map(|(matches, conf)| InboundRule {
            policy: self.kri.clone(),
            matches: matches.clone(),
            conf: conf.clone(),
        })
    }
}

fn part<'a>(kri: &'a Kri, key: &str) -> &'a str {
    if key == label::ZONE { &kri.zone } else { &kri.namespace }
}

fn has(labels: &Labels, wanted: Option<&BTreeMap<String, String>>) -> bool {
    let wanted = wanted.into_iter().flatten();
    labels.contain(wanted.map(|(key, value)| (key.as_str(), value.as_str())))
}

fn is(wanted: &str, name: &str, port: u16) -> bool {
    wanted == name || wanted == port.to_string()
}
