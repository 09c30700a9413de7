//! The labels that control planes set when a resource is written. What a request says about them is
//! checked, not believed.

use crate::dataplane::Dataplane;
use proto::kuma::mesh::v1alpha1::dataplane::networking::listener;
use resource::{AnySpec, Kind, Labels, NameRule, ResourceKey, Violations, ZoneName, label, limit};
use std::collections::BTreeMap;

/// Where a resource is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The global control plane.
    Global,
    /// A zone.
    Zone {
        /// Its name.
        name: ZoneName,
        /// What it runs on.
        env: Env,
    },
}

/// What a zone runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Env {
    /// A Kubernetes cluster.
    Kubernetes,
    /// Anything else.
    Universal,
}

impl Env {
    /// As the label has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => label::ENV_KUBERNETES,
            Self::Universal => label::ENV_UNIVERSAL,
        }
    }
}

impl Place {
    /// What the label for the origin says about a resource that was written here.
    #[must_use]
    pub const fn origin(&self) -> &'static str {
        match self {
            Self::Global => label::ORIGIN_GLOBAL,
            Self::Zone { .. } => label::ORIGIN_ZONE,
        }
    }

    /// Whether a resource with these labels was written here. One that says nothing was.
    #[must_use]
    pub fn is_origin_of(&self, labels: &Labels) -> bool {
        labels.get(label::ORIGIN).is_none_or(|origin| origin == self.origin())
    }
}

/// A resource that somebody wants to write.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub key: &'a ResourceKey,
    /// The labels that the request has.
    pub labels: &'a Labels,
    /// The labels of the resource that is there.
    pub existing: Option<&'a Labels>,
    /// The content.
    pub spec: &'a AnySpec,
}

/// The labels with which a control plane at `place` writes what a user wants to write.
pub fn computed(request: &Request<'_>, place: &Place) -> Result<Labels, Violations> {
    let mut violations = Violations::default();
    check_syntax(request.labels, &mut violations);
    check_owner(request, place, &mut violations);
    check_reserved(request, place, &mut violations);
    check_name(request, place, &mut violations);
    if !violations.is_empty() {
        return Err(violations);
    }
    let mut labels: BTreeMap<&str, &str> = request.labels.iter().collect();
    let derived = derived(request.spec);
    labels.retain(|key, _| !DERIVED.contains(key));
    labels.extend(derived);
    let own = own(request.kind, request.key, place);
    labels.extend(own.iter());
    Ok(labels.into_iter().collect())
}

/// The labels of every resource that a control plane at `place` writes.
#[must_use]
pub fn own(kind: Kind, key: &ResourceKey, place: &Place) -> Labels {
    let mut labels = vec![(label::DISPLAY_NAME, &*key.name), (label::ORIGIN, place.origin())];
    if let Some(mesh) = &key.mesh {
        labels.push((label::MESH, mesh.as_str()));
    }
    if let Place::Zone { name, env } = place
        && kind.flow.written_in_zones()
    {
        labels.push((label::ZONE, name.as_str()));
        labels.push((label::ENV, env.as_str()));
    }
    labels.into_iter().collect()
}

/// Checks that a resource with the labels `existing` may be deleted at `place`.
pub fn check_delete(existing: &Labels, place: &Place) -> Result<(), Violations> {
    if place.is_origin_of(existing) {
        return Ok(());
    }
    let mut violations = Violations::default();
    violations.add(format_args!("[\"{}\"]", label::ORIGIN), wrong_origin(place));
    Err(violations)
}

fn wrong_origin(place: &Place) -> String {
    format!("the origin label must be set to '{}'", place.origin())
}

fn path(key: &str) -> String {
    format!("labels[\"{key}\"]")
}

/// Only where a resource was written it can be changed: elsewhere the change would be lost.
fn check_owner(request: &Request<'_>, place: &Place, violations: &mut Violations) {
    let claimed = request.labels.get(label::ORIGIN);
    let existing = request.existing.filter(|labels| !place.is_origin_of(labels));
    if claimed.is_some_and(|origin| origin != place.origin()) {
        violations.add(path(label::ORIGIN), wrong_origin(place));
    } else if let Some(existing) = existing {
        match existing.get(label::ZONE) {
            Some(zone) if claimed.is_none() && request.labels.get(label::ZONE).is_none() => {
                let reason = format!("is immutable, cannot be removed (was {zone:?})");
                violations.add(path(label::ZONE), reason);
            }
            _ if claimed.is_none() => violations.add(path(label::ORIGIN), wrong_origin(place)),
            _ => {
                let origin = existing.get(label::ORIGIN).unwrap_or_default();
                let reason = format!("is immutable: this is a copy, written elsewhere ({origin})");
                violations.add(path(label::ORIGIN), reason);
            }
        }
    }
}

/// Labels that only a control loop sets; a request may repeat them.
const LOOPS: [&str; 2] = [label::MANAGED_BY, label::GRACE_PERIOD_STARTED];

fn check_reserved(request: &Request<'_>, place: &Place, violations: &mut Violations) {
    let own = own(request.kind, request.key, place);
    for (key, value) in request.labels.iter() {
        let existing = request.existing.and_then(|labels| labels.get(key));
        let reason = match (key, own.get(key), place) {
            (label::ORIGIN, _, _) => None,
            (label::ZONE, Some(zone), _) if zone != value => {
                Some(format!("kuma.io/zone label should have {zone} value"))
            }
            (_, Some(right), _) if right != value => Some(format!("must be {right:?}")),
            // Reported with its origin.
            (label::ZONE, None, Place::Global) if existing == Some(value) => None,
            (label::ZONE | label::ENV | label::MESH, None, _) => {
                Some("must not be set here".to_owned())
            }
            (label::NAMESPACE, _, place) if !is_kubernetes(place) => {
                Some("must not be set outside Kubernetes".to_owned())
            }
            (label::ROLE, _, place) if !is_kubernetes(place) && value != label::ROLE_SYSTEM => {
                Some(format!("must be '{}' outside Kubernetes", label::ROLE_SYSTEM))
            }
            (label::SYNC, ..) if ![label::ENABLED, label::DISABLED].contains(&value) => {
                Some(format!("must be '{}' or '{}'", label::ENABLED, label::DISABLED))
            }
            (label::WORKLOAD, ..) => wrong_workload(request, place, value),
            (key, ..) if key.starts_with(limit::PREFIX) => wrong_limit(request.kind, place),
            (key, ..) if LOOPS.contains(&key) && existing != Some(value) => {
                Some("is set by control planes only".to_owned())
            }
            _ => None,
        };
        if let Some(reason) = reason {
            violations.add(path(key), reason);
        }
    }
}

const fn is_kubernetes(place: &Place) -> bool {
    matches!(place, Place::Zone { env: Env::Kubernetes, .. })
}

/// A limit is for what goes from global to every zone, and is said there.
fn wrong_limit(kind: Kind, place: &Place) -> Option<String> {
    match place {
        Place::Zone { .. } => Some("limits resources to zones; it is set on global only".into()),
        Place::Global if kind.can_be_limited() => None,
        Place::Global => {
            Some(format!("limits resources to zones; a {} cannot be limited", kind.name))
        }
    }
}

/// The workload of a proxy becomes the name of a service, where nobody else names it.
fn wrong_workload(request: &Request<'_>, place: &Place, value: &str) -> Option<String> {
    request.spec.downcast_ref::<Dataplane>()?;
    match place {
        Place::Global => Some("must not be set on global".to_owned()),
        Place::Zone { env: Env::Kubernetes, .. } => None,
        Place::Zone { .. } => NameRule::Label.check(value).err().map(|error| error.to_string()),
    }
}

/// Global adds the zone to a name in older protocols; it must still fit.
fn check_name(request: &Request<'_>, place: &Place, violations: &mut Violations) {
    if let Place::Zone { name, .. } = place
        && name.as_str().len() + request.key.name.len() + 1 >= 253
    {
        violations
            .add("name", format_args!("must have at most {} bytes", 251 - name.as_str().len()));
    }
}

const DERIVED: [&str; 2] = [label::LISTENER_ZONE_INGRESS, label::LISTENER_ZONE_EGRESS];

/// Labels that follow from the content.
fn derived(spec: &AnySpec) -> Vec<(&'static str, &'static str)> {
    let Some(dataplane) = spec.downcast_ref::<Dataplane>() else { return Vec::new() };
    [
        (label::LISTENER_ZONE_INGRESS, listener::Type::ZoneIngress),
        (label::LISTENER_ZONE_EGRESS, listener::Type::ZoneEgress),
    ]
    .into_iter()
    .filter(|(_, sort)| dataplane.has_listener(*sort))
    .map(|(key, _)| (key, label::ENABLED))
    .collect()
}

/// Stored as annotations on Kubernetes, because they are longer than its labels may be.
const LONG: [&str; 3] = [label::DISPLAY_NAME, label::SERVICE_ACCOUNT, label::WORKLOAD];

fn check_syntax(labels: &Labels, violations: &mut Violations) {
    for (key, value) in labels.iter() {
        let longest = if LONG.contains(&key) { 253 } else { 63 };
        for reason in [wrong_key(key), wrong_value(value, longest)].into_iter().flatten() {
            violations.add(path(key), reason);
        }
    }
}

fn wrong_key(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_some_and(|prefix| NameRule::Subdomain.check(prefix).is_err()) {
        return Some("prefix part must be a DNS subdomain".to_owned());
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 bytes".to_owned());
    }
    (!is_word(name)).then(|| {
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and \
         end with an alphanumeric character"
            .to_owned()
    })
}

fn wrong_value(value: &str, longest: usize) -> Option<String> {
    if value.len() > longest {
        return Some(format!("must be no more than {longest} bytes"));
    }
    (!value.is_empty() && !is_word(value)).then(|| {
        "must be empty or consist of alphanumeric characters, '-', '_' or '.', and must start and \
         end with an alphanumeric character"
            .to_owned()
    })
}

fn is_word(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.iter().all(|b| inner(*b)) && edge(bytes.first()) && edge(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mesh, mesh_timeout};
    use proto::kuma::mesh::v1alpha1::{
        Dataplane as Message,
        dataplane::{Networking, networking::Listener},
    };
    use resource::MeshName;
    use std::sync::Arc;

    fn east() -> Place {
        Place::Zone { name: ZoneName::new("east").unwrap(), env: Env::Universal }
    }

    fn written(
        kind: Kind,
        place: &Place,
        labels: &[(&str, &str)],
        existing: Option<&[(&str, &str)]>,
    ) -> Result<Vec<(String, String)>, String> {
        let labels = labels.iter().copied().collect();
        let existing: Option<Labels> = existing.map(|labels| labels.iter().copied().collect());
        let mesh = MeshName::new("shop").unwrap();
        let global = kind.scope == resource::Scope::Global;
        let key = if global { ResourceKey::global("a") } else { ResourceKey::in_mesh(&mesh, "a") };
        let spec: AnySpec = Arc::new(Dataplane(Message {
            networking: Some(Networking {
                listeners: vec![Listener { r#type: 1, ..Listener::default() }],
                ..Networking::default()
            }),
        }));
        let spec = if kind.name == "Dataplane" { spec } else { Arc::new(()) };
        let existing = existing.as_ref();
        let request = Request { kind, key: &key, labels: &labels, existing, spec: &spec };
        computed(&request, place)
            .map(|labels| labels.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
            .map_err(|violations| violations.to_string())
    }

    fn pairs(labels: &[(&str, &str)]) -> Vec<(String, String)> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn global_and_zones_set_their_labels() {
        let team = ("team", "a");
        assert_eq!(
            written(mesh_timeout::KIND.kind, &Place::Global, &[team], None),
            Ok(pairs(&[
                ("kuma.io/display-name", "a"),
                ("kuma.io/mesh", "shop"),
                ("kuma.io/origin", "global"),
                team,
            ]))
        );
        assert_eq!(
            written(mesh::KIND, &Place::Global, &[], None),
            Ok(pairs(&[("kuma.io/display-name", "a"), ("kuma.io/origin", "global")]))
        );
        let zone = [
            ("kuma.io/display-name", "a"),
            ("kuma.io/env", "universal"),
            ("kuma.io/mesh", "shop"),
            ("kuma.io/origin", "zone"),
            ("kuma.io/zone", "east"),
        ];
        for given in [&[][..], &zone] {
            assert_eq!(written(mesh_timeout::KIND.kind, &east(), given, None), Ok(pairs(&zone)));
        }
    }

    #[test]
    fn a_dataplane_is_labelled_by_its_listeners() {
        let lie = ("kuma.io/listener-zoneegress", "enabled");
        let workload = ("kuma.io/workload", "edge");
        assert_eq!(
            written(crate::dataplane::KIND, &east(), &[lie, workload], None),
            Ok(pairs(&[
                ("kuma.io/display-name", "a"),
                ("kuma.io/env", "universal"),
                ("kuma.io/listener-zoneingress", "enabled"),
                ("kuma.io/mesh", "shop"),
                ("kuma.io/origin", "zone"),
                workload,
                ("kuma.io/zone", "east"),
            ]))
        );
        let error = written(crate::dataplane::KIND, &east(), &[("kuma.io/workload", "A.b")], None);
        assert!(
            error.unwrap_err().starts_with(r#"labels["kuma.io/workload"]: "A.b" is not a DNS"#)
        );
        assert_eq!(
            written(crate::dataplane::KIND, &Place::Global, &[workload], None),
            Err(r#"labels["kuma.io/workload"]: must not be set on global"#.into())
        );
    }

    #[test]
    fn labels_that_lie_are_refused() {
        let wrong = |place: &Place, key: &str, value: &str| {
            written(mesh_timeout::KIND.kind, place, &[(key, value)], None).unwrap_err()
        };
        for (place, key, value, reason) in [
            (Place::Global, "kuma.io/origin", "zone", "the origin label must be set to 'global'"),
            (east(), "kuma.io/origin", "global", "the origin label must be set to 'zone'"),
            (east(), "kuma.io/zone", "west", "kuma.io/zone label should have east value"),
            (Place::Global, "kuma.io/zone", "west", "must not be set here"),
            (Place::Global, "kuma.io/mesh", "other", r#"must be "shop""#),
            (Place::Global, "kuma.io/display-name", "other", r#"must be "a""#),
            (east(), "kuma.io/env", "kubernetes", r#"must be "universal""#),
            (east(), "k8s.kuma.io/namespace", "x", "must not be set outside Kubernetes"),
            (east(), "kuma.io/policy-role", "producer", "must be 'system' outside Kubernetes"),
            (east(), "kuma.io/kds-sync", "no", "must be 'enabled' or 'disabled'"),
            (east(), "kuma.io/managed-by", "x", "is set by control planes only"),
        ] {
            assert_eq!(wrong(&place, key, value), format!("labels[{key:?}]: {reason}"));
        }
        let system = ("kuma.io/policy-role", "system");
        let labels = written(mesh_timeout::KIND.kind, &east(), &[system], None).unwrap();
        assert!(labels.contains(&pairs(&[system])[0]));
    }

    #[test]
    fn only_what_goes_from_global_to_zones_is_limited_to_some() {
        let canary = ("zones.atoll.io/stage", "canary");
        let limited = |kind, place: &Place| written(kind, place, &[canary], None);
        let labels = limited(mesh_timeout::KIND.kind, &Place::Global).unwrap();
        assert!(labels.contains(&pairs(&[canary])[0]));
        let wrong = |reason: &str| {
            Err(format!(r#"labels["zones.atoll.io/stage"]: limits resources to zones; {reason}"#))
        };
        assert_eq!(limited(mesh_timeout::KIND.kind, &east()), wrong("it is set on global only"));
        for kind in [mesh::KIND, crate::zone::KIND, crate::config::KIND, crate::global_secret::KIND]
        {
            assert_eq!(
                limited(kind, &Place::Global),
                wrong(&format!("a {} cannot be limited", kind.name))
            );
        }
        let bad =
            written(mesh_timeout::KIND.kind, &Place::Global, &[("zones.atoll.io/", "x")], None);
        assert!(bad.unwrap_err().starts_with(r#"labels["zones.atoll.io/"]: name part must"#));
    }

    #[test]
    fn a_copy_is_changed_where_it_was_written() {
        let of_east = [("kuma.io/origin", "zone"), ("kuma.io/zone", "east")];
        let of_global = [("kuma.io/origin", "global")];
        let update = |place: &Place, labels: &[(&str, &str)], existing: &[(&str, &str)]| {
            written(mesh_timeout::KIND.kind, place, labels, Some(existing)).unwrap_err()
        };
        assert_eq!(
            update(&Place::Global, &[], &of_east),
            r#"labels["kuma.io/zone"]: is immutable, cannot be removed (was "east")"#
        );
        assert_eq!(
            update(&Place::Global, &of_east, &of_east),
            r#"labels["kuma.io/origin"]: the origin label must be set to 'global'"#
        );
        assert_eq!(
            update(&east(), &[], &of_global),
            r#"labels["kuma.io/origin"]: the origin label must be set to 'zone'"#
        );
        assert_eq!(
            update(&east(), &of_east, &of_global),
            r#"labels["kuma.io/origin"]: is immutable: this is a copy, written elsewhere (global)"#
        );
        let delete = |place: &Place, existing: [(&str, &str); 1]| {
            check_delete(&existing.into_iter().collect(), place).map_err(|error| error.to_string())
        };
        assert_eq!(delete(&Place::Global, of_global), Ok(()));
        assert_eq!(
            delete(&east(), of_global),
            Err(r#"["kuma.io/origin"]: the origin label must be set to 'zone'"#.into())
        );
    }

    #[test]
    fn what_a_loop_set_may_be_repeated() {
        let managed = [("kuma.io/managed-by", "meshservice-generator")];
        let repeated = written(crate::mesh_service::KIND, &east(), &managed, Some(&managed));
        assert!(repeated.unwrap().contains(&pairs(&managed)[0]));
    }

    #[test]
    fn keys_and_values_have_the_form_of_kubernetes() {
        let long = "x".repeat(64);
        let word = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        for (key, value, expected) in [
            ("a b", "", format!("name part {word}")),
            ("a/b/c", "", format!("name part {word}")),
            ("-/b", "", "prefix part must be a DNS subdomain".to_owned()),
            ("", "", format!("name part {word}")),
            (&*long, "", "name part must be no more than 63 bytes".to_owned()),
            ("ok", &*long, "must be no more than 63 bytes".to_owned()),
            ("ok", "a b", format!("must be empty or {}", word.trim_start_matches("must "))),
        ] {
            let error = written(mesh::KIND, &Place::Global, &[(key, value)], None).unwrap_err();
            assert_eq!(error, format!("labels[\"{key}\"]: {expected}"));
        }
        let workload = ("kuma.io/workload", &*long);
        assert!(written(mesh::KIND, &Place::Global, &[workload, ("a.b/c_D", "")], None).is_ok());
    }
}
