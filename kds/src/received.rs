//! A resource as it came in: unwrapped, not yet judged.

use crate::{limit, refusal::Refusal, transit::TransitKey};
use bytes::Bytes;
use delta::Name;
use prost::{Message, Name as _};
use prost_types::Any;
use proto::{
    envoy::service::discovery::v3::Resource,
    kuma::mesh::v1alpha1::{KumaResource, kuma_resource::Meta},
};
use resource::{Kind, Labels, MeshName, NameRule, ResourceKey, Scope};

/// A resource of a peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Its name in transit.
    pub name: Name,
    /// Its key, as the peer says.
    pub key: ResourceKey,
    /// Its labels, as the peer says.
    pub labels: Labels,
    /// Not decoded yet.
    pub spec: Bytes,
    /// As JSON; empty if the peer sent none.
    pub status: Bytes,
}

/// A resource that could not be unwrapped.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// Which, if that can be told: refused is not absent.
    pub key: Option<ResourceKey>,
    /// Why.
    pub refusal: Refusal,
}

impl Received {
    /// Unwraps a resource of `kind`.
    pub fn read(kind: &Kind, resource: Resource) -> Result<Self, Unreadable> {
        let named = resource.name.parse::<TransitKey>().ok().map(ResourceKey::from);
        // One that is too long is no name of ours, and nobody is told it back.
        let length = resource.name.len();
        let name: Name = if length > limit::NAME { "".into() } else { resource.name.into() };
        let unreadable = |key: Option<ResourceKey>, reason: String| Unreadable {
            key: key.or_else(|| named.clone()),
            refusal: Refusal { name: name.clone(), reason },
        };
        if length > limit::NAME {
            return Err(unreadable(None, above("resource.name", "bytes", length, limit::NAME)));
        }
        let wrapped = resource.resource.ok_or_else(|| unreadable(None, missing("resource")))?;
        let (meta, spec, status) = unwrap(&wrapped).map_err(|reason| unreadable(None, reason))?;
        let key = key(kind, &meta).map_err(|reason| unreadable(None, reason))?;
        let spec = spec_of(kind, spec).map_err(|reason| unreadable(Some(key.clone()), reason))?;
        if meta.labels.len() > limit::LABELS {
            let reason = above("meta.labels", "entries", meta.labels.len(), limit::LABELS);
            return Err(unreadable(Some(key), reason));
        }
        let labels = meta.labels.iter().map(|(key, value)| (&**key, &**value)).collect();
        let status = status.map_or_else(Bytes::new, |status| status.value.into());
        Ok(Self { name, key, labels, spec, status })
    }
}

fn missing(field: &str) -> String {
    format!("{field}: is missing")
}

fn above(field: &str, what: &str, found: usize, most: usize) -> String {
    format!("{field}: has {found} {what}, and may have {most}")
}

fn unwrap(any: &Any) -> Result<(Meta, Option<Any>, Option<Any>), String> {
    if message_name(&any.type_url) != KumaResource::full_name() {
        return Err(format!("resource.type_url: {:?} is not a KumaResource", any.type_url));
    }
    let resource = KumaResource::decode(&*any.value)
        .map_err(|error| format!("resource: malformed KumaResource: {error}"))?;
    let meta = resource.meta.ok_or_else(|| missing("meta"))?;
    Ok((meta, resource.spec, resource.status))
}

fn message_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

fn key(kind: &Kind, meta: &Meta) -> Result<ResourceKey, String> {
    NameRule::Subdomain.check(&meta.name).map_err(|error| format!("meta.name: {error}"))?;
    let mesh = match (kind.scope, &*meta.mesh) {
        (Scope::Global, "") => None,
        (Scope::Global, mesh) => return Err(format!("meta.mesh: is {mesh:?}, must be empty")),
        (Scope::Mesh, mesh) => {
            Some(MeshName::new(mesh).map_err(|error| format!("meta.mesh: {error}"))?)
        }
    };
    Ok(ResourceKey { mesh, name: (&*meta.name).into() })
}

fn spec_of(kind: &Kind, spec: Option<Any>) -> Result<Bytes, String> {
    let spec = spec.ok_or_else(|| missing("spec"))?;
    let expected = kind.type_url();
    // Kinds that are JSON have no type URL, and none is looked at.
    if !expected.is_empty() && message_name(&spec.type_url) != message_name(&expected) {
        return Err(format!("spec.type_url: is {:?}, must be {expected:?}", spec.type_url));
    }
    Ok(spec.value.into())
}
