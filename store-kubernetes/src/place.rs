//! Where the resources of a kind are kept, in what form and under which names.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{ApiResource, DynamicObject};
use resource::{
    CustomResource, Kind, KnownFields, Labels, MeshName, Peer, ResourceKey, Scope, label,
};
use serde_json::{Map, Value, json};
use std::{fmt, sync::Arc};
use xxhash_rust::xxh3::xxh3_64;

/// The API group of the kinds that are custom resources, and its version.
pub(crate) const GROUP: &str = "kuma.io";
const VERSION: &str = "v1alpha1";

/// On objects of kinds that others have too: which of ours they are.
pub(crate) const KIND_LABEL: &str = "atoll.io/kind";
/// Says the name of a resource whose object had to be called otherwise.
pub(crate) const NAME_ANNOTATION: &str = "atoll.io/name";

/// What Kubernetes takes as the name of an object.
const LONGEST_NAME: usize = 253;

/// Names an object of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectName {
    pub(crate) namespace: Option<Arc<str>>,
    pub(crate) name: Arc<str>,
}

impl ObjectName {
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        let namespace = meta.namespace.as_deref().map(Into::into);
        Self { namespace, name: meta.name.as_deref().unwrap_or_default().into() }
    }
}

/// As `kubectl` has it: `namespace/name`, or the name alone.
impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Why nothing can be made of an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(pub(crate) String);

impl Unreadable {
    pub(crate) fn at(field: &str, reason: impl fmt::Display) -> Self {
        Self(format!("{field}: {reason}"))
    }
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Custom(CustomResource),
    Secret { of_type: &'static str },
    ConfigMap,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) peer: Peer,
    pub(crate) api: ApiResource,
    pub(crate) fields: KnownFields,
    form: Form,
    system: Arc<str>,
}

impl Place {
    /// `None` for kinds that are kept in memory only.
    pub(crate) fn of(kind: &Kind, peer: Peer, system: &Arc<str>) -> Option<Self> {
        // Kinds that are no custom resources are known by name, here alone.
        let (form, api) = match (kind.custom, kind.name) {
            (Some(custom), _) => (Form::Custom(custom), custom_resource(kind)),
            (None, "Secret") => secret("system.kuma.io/secret"),
            (None, "GlobalSecret") => secret("system.kuma.io/global-secret"),
            (None, "Config") => (Form::ConfigMap, core("ConfigMap", "configmaps")),
            (None, _) => return None,
        };
        let (kind, fields, system) = (*kind, kind.known_fields(), system.clone());
        Some(Self { kind, peer, api, fields, form, system })
    }

    /// The name of the definition without which there are no such objects.
    pub(crate) fn definition(&self) -> Option<String> {
        match self.form {
            Form::Custom(_) => Some(format!("{}.{GROUP}", self.kind.plural)),
            Form::Secret { .. } | Form::ConfigMap => None,
        }
    }

    /// The namespace outside of which no objects are looked for; `None` if they are everywhere.
    pub(crate) fn namespace(&self) -> Option<&str> {
        match self.form {
            Form::Custom(_) => None,
            Form::Secret { .. } | Form::ConfigMap => Some(&self.system),
        }
    }

    /// What tells our objects from others, by their fields.
    pub(crate) fn field_selector(&self) -> Option<String> {
        match self.form {
            Form::Secret { of_type } => Some(format!("type={of_type}")),
            Form::Custom(_) | Form::ConfigMap => None,
        }
    }

    /// What tells our objects from others, by their labels.
    pub(crate) fn label_selector(&self) -> Option<String> {
        match self.form {
            Form::ConfigMap => Some(format!("{KIND_LABEL}={}", self.kind.name)),
            Form::Custom(_) | Form::Secret { .. } => None,
        }
    }

    /// Whether the selectors would find `object`.
    pub(crate) fn is_ours(&self, object: &DynamicObject) -> bool {
        match self.form {
            Form::Custom(_) => true,
            Form::Secret { of_type } => object.data.get("type") == Some(&json!(of_type)),
            Form::ConfigMap => {
                let labels = object.metadata.labels.as_ref();
                labels.is_some_and(|it| it.get(KIND_LABEL).is_some_and(|it| it == self.kind.name))
            }
        }
    }

    const fn is_namespaced(&self) -> bool {
        match self.form {
            Form::Custom(custom) => custom.namespaced,
            Form::Secret { .. } | Form::ConfigMap => true,
        }
    }

    const fn names_mesh(&self) -> bool {
        let custom = match self.form {
            Form::Custom(custom) => custom.names_mesh,
            Form::Secret { .. } | Form::ConfigMap => false,
        };
        custom && matches!(self.kind.scope, Scope::Mesh)
    }

    /// The field in which a spec stands, for messages.
    pub(crate) const fn content_field(&self) -> &'static str {
        match self.form {
            Form::Custom(custom) => custom.content,
            Form::Secret { .. } | Form::ConfigMap => "data",
        }
    }

    /// Whether a status stands beside the spec.
    pub(crate) const fn has_status(&self) -> bool {
        self.kind.has_status && !self.kind.inline
    }

    /// The key of the resource that an object is.
    pub(crate) fn key(&self, object: &DynamicObject) -> Result<ResourceKey, Unreadable> {
        let (name, meta) = (self.name(&object.metadata), &object.metadata);
        let name = match meta.namespace.as_deref() {
            Some(namespace) if namespace != &*self.system => format!("{name}.{namespace}"),
            Some(_) | None => name.to_owned(),
        };
        if self.kind.scope == Scope::Global {
            return Ok(ResourceKey::global(&name));
        }
        let named = object.data.get("mesh").filter(|_| self.names_mesh());
        let named = named.and_then(Value::as_str).filter(|mesh| !mesh.is_empty());
        let labelled = meta.labels.as_ref().and_then(|labels| labels.get(label::MESH));
        let (field, mesh) = match (named, labelled) {
            (Some(mesh), _) => ("mesh", mesh),
            (None, Some(mesh)) => ("metadata.labels[kuma.io/mesh]", &**mesh),
            (None, None) => ("", "default"),
        };
        let mesh = MeshName::new(mesh).map_err(|error| Unreadable::at(field, error))?;
        Ok(ResourceKey::in_mesh(&mesh, &name))
    }

    /// The name of a resource within its namespace.
    #[expect(clippy::unused_self, reason = "beside its sisters")]
    pub(crate) fn name<'a>(&self, meta: &'a ObjectMeta) -> &'a str {
        let said = meta.annotations.as_ref().and_then(|it| it.get(NAME_ANNOTATION));
        said.or(meta.name.as_ref()).map_or("", |name| name)
    }

    /// The name of the resource `key` within the namespace of its object.
    pub(crate) fn base<'a>(&self, key: &'a ResourceKey, at: &ObjectName) -> &'a str {
        let elsewhere = at.namespace.as_deref().filter(|namespace| *namespace != &*self.system);
        let within =
            elsewhere.and_then(|namespace| key.name.strip_suffix(namespace)?.strip_suffix('.'));
        within.unwrap_or(&key.name)
    }

    /// Where a new resource goes, and its name there: what `name` says of the object.
    pub(crate) fn home(&self, key: &ResourceKey, labels: &Labels) -> ObjectName {
        if !self.is_namespaced() {
            return ObjectName { namespace: None, name: key.name.clone() };
        }
        let of_zone = labels.get(label::ORIGIN) == Some(label::ORIGIN_ZONE);
        let elsewhere = labels.get(label::NAMESPACE).filter(|namespace| {
            of_zone && *namespace != &*self.system && self.namespace().is_none()
        });
        let within = elsewhere.and_then(|namespace| {
            let name = key.name.strip_suffix(namespace)?.strip_suffix('.')?;
            (!name.is_empty())
                .then(|| ObjectName { namespace: Some(namespace.into()), name: name.into() })
        });
        let system = Some(self.system.clone());
        within.unwrap_or_else(|| ObjectName { namespace: system, name: key.name.clone() })
    }

    /// Another name for the object of `key`, whose own is that of another object: two meshes may
    /// have resources of one name.
    pub(crate) fn otherwise(&self, key: &ResourceKey, home: &ObjectName) -> ObjectName {
        let mesh = key.mesh.as_ref().map_or("", MeshName::as_str);
        let suffix = format!("-{:016x}", xxh3_64(format!("{mesh}/{}", key.name).as_bytes()));
        let kept = home.name.get(..LONGEST_NAME - suffix.len()).unwrap_or(&home.name);
        let kept = kept.trim_end_matches(['.', '-']);
        ObjectName { namespace: home.namespace.clone(), name: format!("{kept}{suffix}").into() }
    }

    /// A spec as the API has it, out of an object.
    pub(crate) fn content(&self, data: &Value) -> Value {
        let empty = || Value::Object(Map::new());
        let entry = |entry: &str, field: &str| {
            let value = data.get("data").and_then(|data| data.get(entry));
            value.map_or_else(empty, |value| json!({ field: value }))
        };
        match self.form {
            Form::Custom(custom) => match data.get(custom.content) {
                None | Some(Value::Null) => empty(),
                Some(content) => content.clone(),
            },
            Form::Secret { .. } => entry("value", "data"),
            Form::ConfigMap => entry("config", "config"),
        }
    }

    /// What stands beside `metadata` in an object: the other way round.
    pub(crate) fn data(&self, key: &ResourceKey, content: Value, status: Option<Value>) -> Value {
        let mut data = Map::new();
        let entry = |entry: &str, field: &str| {
            let value = content.get(field).cloned().unwrap_or_else(|| "".into());
            json!({ entry: value })
        };
        match self.form {
            Form::Custom(custom) => {
                if let Some(mesh) = key.mesh.as_ref().filter(|_| self.names_mesh()) {
                    data.insert("mesh".into(), mesh.as_str().into());
                }
                data.insert(custom.content.into(), content);
                data.extend(status.map(|status| ("status".into(), status)));
            }
            Form::Secret { of_type } => {
                data.insert("type".into(), of_type.into());
                data.insert("data".into(), entry("value", "data"));
            }
            Form::ConfigMap => {
                data.insert("data".into(), entry("config", "config"));
            }
        }
        Value::Object(data)
    }

    /// A label that every object of the kind has and no resource.
    pub(crate) fn own_label(&self) -> Option<(&'static str, &'static str)> {
        match self.form {
            Form::ConfigMap => Some((KIND_LABEL, self.kind.name)),
            Form::Custom(_) | Form::Secret { .. } => None,
        }
    }
}

fn custom_resource(kind: &Kind) -> ApiResource {
    ApiResource {
        group: GROUP.into(),
        version: VERSION.into(),
        api_version: format!("{GROUP}/{VERSION}"),
        kind: kind.name.into(),
        plural: kind.plural.into(),
    }
}

fn secret(of_type: &'static str) -> (Form, ApiResource) {
    (Form::Secret { of_type }, core("Secret", "secrets"))
}

fn core(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".into(),
        api_version: "v1".into(),
        kind: kind.into(),
        plural: plural.into(),
    }
}
