//! The roles of policies that are bound to a namespace.

use resource::{Labels, label};
use serde::Deserialize as _;
use serde_json::Value;
use std::collections::BTreeMap;
use xds::{ToKind, ToRef};

/// What a policy is to whom, by where it was written and what it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// For every proxy of the mesh, or of its zone.
    System,
    /// Of a service's owner, for its callers in every zone.
    Producer,
    /// Of a caller, for its own namespace.
    Consumer,
    /// Of a workload's owner, for its own namespace.
    WorkloadOwner,
}

/// A policy that is a producer's and a consumer's at once.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("producer and consumer items cannot be mixed in one policy")]
pub struct Mixed;

impl Role {
    /// As the label has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => label::ROLE_SYSTEM,
            Self::Producer => label::ROLE_PRODUCER,
            Self::Consumer => label::ROLE_CONSUMER,
            Self::WorkloadOwner => label::ROLE_WORKLOAD_OWNER,
        }
    }

    /// The role of a policy with the items `to` that was written in `namespace`, which is empty
    /// outside Kubernetes and in its system namespace.
    pub fn of<'a>(to: impl IntoIterator<Item = &'a ToRef>, namespace: &str) -> Result<Self, Mixed> {
        if namespace.is_empty() {
            return Ok(Self::System);
        }
        let (mut producer, mut consumer) = (false, false);
        for item in to {
            if is_producer_item(item, namespace) {
                producer = true;
            } else {
                consumer = true;
            }
        }
        match (producer, consumer) {
            (true, true) => Err(Mixed),
            (true, false) => Ok(Self::Producer),
            (false, true) => Ok(Self::Consumer),
            (false, false) => Ok(Self::WorkloadOwner),
        }
    }
}

/// The role of a policy with this content as JSON. What of `to` cannot be read selects nothing: others
/// refuse it.
pub fn of_content(content: &Value, namespace: &str) -> Result<Role, Mixed> {
    let to = content.get("to").and_then(Value::as_array).into_iter().flatten();
    let to = to.filter_map(|item| ToRef::deserialize(item.get("targetRef")?).ok());
    Role::of(&to.collect::<Vec<_>>(), namespace)
}

fn is_producer_item(item: &ToRef, namespace: &str) -> bool {
    let kind = matches!(item.kind, ToKind::MeshService | ToKind::MeshHTTPRoute);
    let none = BTreeMap::new();
    let labels = item.labels.as_ref().unwrap_or(&none);
    let of = |key: &str| labels.get(key).map_or("", String::as_str);
    let only = [label::DISPLAY_NAME, label::NAMESPACE];
    kind && !of(label::DISPLAY_NAME).is_empty()
        && labels.keys().all(|key| only.contains(&&**key))
        && matches!(of(label::NAMESPACE), own if own.is_empty() || own == namespace)
}

/// Whether a policy that a zone wrote goes on to the other zones: it says that it is a producer's,
/// and it is.
pub(crate) fn is_producer<'a>(to: impl IntoIterator<Item = &'a ToRef>, labels: &Labels) -> bool {
    let namespace = labels.get(label::NAMESPACE).unwrap_or_default();
    labels.get(label::ROLE) == Some(label::ROLE_PRODUCER)
        && Role::of(to, namespace) == Ok(Role::Producer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(kind: ToKind, labels: &[(&str, &str)]) -> ToRef {
        let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        ToRef { kind, labels: Some(labels.collect()), section_name: None }
    }

    #[test]
    fn a_role_follows_from_what_is_selected() {
        let name = (label::DISPLAY_NAME, "cart");
        let own = to(ToKind::MeshService, &[name]);
        let mine = to(ToKind::MeshService, &[name, (label::NAMESPACE, "shop")]);
        let route = to(ToKind::MeshHTTPRoute, &[name]);
        let foreign = to(ToKind::MeshService, &[name, (label::NAMESPACE, "other")]);
        let zoned = to(ToKind::MeshService, &[name, (label::ZONE, "east")]);
        let multi = to(ToKind::MeshMultiZoneService, &[name]);
        let unnamed = to(ToKind::MeshService, &[("app", "cart")]);
        for (items, namespace, role) in [
            (&[&own][..], "", Ok(Role::System)),
            (&[], "shop", Ok(Role::WorkloadOwner)),
            (&[&own, &mine, &route], "shop", Ok(Role::Producer)),
            (&[&foreign, &zoned, &multi, &unnamed], "shop", Ok(Role::Consumer)),
            (&[&own, &foreign], "shop", Err(Mixed)),
        ] {
            assert_eq!(Role::of(items.iter().copied(), namespace), role, "{items:?}");
        }
    }

    #[test]
    fn a_policy_is_a_producers_if_it_says_so_and_is() {
        let own = to(ToKind::MeshService, &[(label::DISPLAY_NAME, "cart")]);
        let of = |role, namespace| {
            is_producer(
                [&own],
                &Labels::from_iter([(label::ROLE, role), (label::NAMESPACE, namespace)]),
            )
        };
        assert_eq!(
            [of("producer", "shop"), of("system", "shop"), of("producer", "")],
            [true, false, false]
        );
        assert!(!is_producer([&own], &Labels::from_iter([(label::NAMESPACE, "shop")])));
    }
}
