//! Defaults and checks of resources: the same that the REST API has, in the words of objects.

use super::{
    object::{ANNOTATED, Object, of_label},
    review::{Operation, Refused, Request, Verdict},
};
use kinds::{
    dataplane,
    labels::{self, Place},
    mesh,
    role::{self, Role},
    zone,
};
use resource::{
    Access, Kind, KnownFields, Labels, MeshName, NameRule, RejectedSpec, ResourceKey, Violations,
    label,
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};
use store::{Kinds, view::Reader};

/// Kubernetes itself: it takes away what was in a namespace or belonged to something that is gone.
const OF_KUBERNETES: [&str; 3] = [
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
    "system:kube-controller-manager",
];

/// What resources are checked by.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) system_namespace: String,
    pub(super) place: Place,
    /// Whether there is a global.
    pub(super) federated: bool,
    pub(super) kinds: Arc<Kinds>,
    pub(super) fields: Arc<Fields>,
    pub(super) reader: Reader,
    /// Who may write whatever they like.
    pub(super) trusted: Vec<String>,
}

/// The fields of the kinds that are custom resources, by their names.
#[derive(Debug)]
pub(super) struct Fields(BTreeMap<&'static str, KnownFields>);

impl Fields {
    pub(super) fn of(kinds: &Kinds) -> Self {
        let kinds = kinds.list.iter().filter(|kind| kind.custom.is_some());
        Self(kinds.map(|kind| (kind.name, kind.known_fields())).collect())
    }
}

impl Rules {
    /// Whether whoever asks is above these rules.
    fn trusts(&self, request: &Request) -> bool {
        let user = &request.user_info.username;
        let of_kubernetes = OF_KUBERNETES.contains(&user.as_str());
        self.trusted.contains(user) || (of_kubernetes && request.operation != Operation::Create)
    }

    fn kind(&self, request: &Request) -> Option<Kind> {
        let kinds = self.kinds.list.iter();
        let mut kinds = kinds.filter(|kind| kind.custom.is_some());
        let group = request.kind.group == kinds::crd::GROUP;
        kinds.find(|kind| group && kind.name == request.kind.kind).copied()
    }

    /// Whether nobody looks at this request more closely: that of a status is one of control planes.
    fn is_open(&self, request: &Request) -> bool {
        request.sub_resource.as_deref().is_some_and(|it| !it.is_empty()) || self.trusts(request)
    }

    /// Adds the labels that follow from what an object is. One that is wrong stays as it is: the
    /// check says more.
    pub(super) fn default(&self, request: &Request) -> Verdict {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        let kind = self.kind(request).filter(|_| writes && !self.is_open(request));
        let Some(kind) = kind else { return Verdict::default() };
        let mut violations = Violations::default();
        let object = Object::read(kind, &request.object, request, &mut violations);
        let before = self.before(kind, request);
        let Ok(spec) = kind.from_json(object.content.clone()) else { return Verdict::default() };
        let key = object.key();
        let existing = before.as_ref().map(|object| &object.labels);
        let (labels, spec) = (&without_role(&object.labels), &spec);
        let asked = labels::Request { kind, key: &key, labels, existing, spec };
        let computed = labels::computed(&asked, &self.place);
        let (Ok(computed), true) = (computed, violations.is_empty()) else {
            return Verdict::default();
        };
        let mut wanted: BTreeMap<&str, &str> = computed.iter().collect();
        if !object.namespace.is_empty() {
            wanted.entry(label::NAMESPACE).or_insert(&object.namespace);
        }
        wanted.extend(self.role(&object).ok().flatten().map(|role| (label::ROLE, role.as_str())));
        wanted.retain(|key, _| !ANNOTATED.contains(key));
        Verdict { patch: Some(relabelled(&request.object, &wanted)), ..Verdict::default() }
    }

    /// Says everything that is wrong with what somebody wants.
    pub(super) fn check(&self, request: &Request) -> Verdict {
        if self.is_open(request) {
            return Verdict::default();
        }
        let Some(kind) = self.kind(request) else {
            let message = format!("this control plane knows no kind {:?}", request.kind.kind);
            return Refused::malformed(message).into();
        };
        if let Some(refused) = self.forbidden(kind) {
            return refused.into();
        }
        let refused = match request.operation {
            Operation::Create | Operation::Update => self.check_write(kind, request),
            Operation::Delete => self.check_delete(kind, request),
            Operation::Connect => Ok(()),
        };
        match refused {
            Ok(()) => {
                Verdict { warnings: self.unknown_fields(kind, request), ..Verdict::default() }
            }
            Err(refused) => refused.into(),
        }
    }

    /// Warns of fields that nobody reads: the definition may be newer than this control plane, or
    /// take anything.
    fn unknown_fields(&self, kind: Kind, request: &Request) -> Vec<String> {
        let content = kind.custom.map_or("spec", |it| it.content);
        let (fields, document) = (self.fields.0.get(kind.name), request.object.get(content));
        let others = fields.zip(document).map(|(fields, it)| fields.others(it, content));
        let others = others.into_iter().flatten().take(KnownFields::TOLD);
        others.map(|field| format!("unknown field {field:?}")).collect()
    }

    fn forbidden(&self, kind: Kind) -> Option<Refused> {
        let name = kind.name;
        if kind.access == Access::ReadOnly {
            let message = format!("a {name} is written by control planes only");
            return Some(Refused::forbidden(message));
        }
        (self.federated && !kind.flow.written_in_zones()).then(|| {
            let message = format!(
                "a {name} is written on the global control plane, from where this zone gets it"
            );
            Refused::forbidden(message)
        })
    }

    fn before(&self, kind: Kind, request: &Request) -> Option<Object> {
        let there = request.operation != Operation::Create && request.old_object.is_object();
        // What was wrong with it before is not to be said now.
        let mut unsaid = Violations::default();
        there.then(|| Object::read(kind, &request.old_object, request, &mut unsaid))
    }

    fn check_write(&self, kind: Kind, request: &Request) -> Result<(), Refused> {
        let mut violations = Violations::default();
        let object = Object::read(kind, &request.object, request, &mut violations);
        let before = self.before(kind, request);
        if let Some(before) = &before {
            check_mesh(&object, before, &mut violations);
        } else {
            self.check_new(&object, &mut violations);
        }
        self.check_labels(&object, before.as_ref(), &mut violations);
        let content = kind.custom.map_or("spec", |it| it.content);
        let read = kind.from_json(object.content.clone());
        match &read {
            Ok(_) => {}
            Err(RejectedSpec::Invalid { violations: of_spec, .. }) => {
                for violation in of_spec.iter() {
                    let beside = !kind.inline || violation.path.starts_with("spec.");
                    let prefix = if beside { "" } else { "spec." };
                    violations.add(format_args!("{prefix}{}", violation.path), &violation.reason);
                }
            }
            Err(error @ RejectedSpec::Malformed { .. }) => {
                let error: &dyn std::error::Error = error;
                let source = error.source().map(ToString::to_string).unwrap_or_default();
                violations.add(content, format_args!("{error}: {source}"));
            }
        }
        // Labels that depend on the content; what it is instead, an empty one, has none.
        let spec = read.unwrap_or_else(|_| Arc::new(()));
        let (key, existing) = (object.key(), before.as_ref().map(|object| &object.labels));
        let labels = &without_role(&object.labels);
        let asked = labels::Request { kind, key: &key, labels, existing, spec: &spec };
        if let Err(of_labels) = labels::computed(&asked, &self.place) {
            for violation in of_labels.iter() {
                violations.add(in_metadata(&violation.path), &violation.reason);
            }
        }
        if violations.is_empty() { Ok(()) } else { Err(Refused::invalid(&violations)) }
    }

    /// What counts when an object comes into being.
    fn check_new(&self, object: &Object, violations: &mut Violations) {
        let kind = object.kind;
        if let Err(error) = kind.name_rule.check(&object.name) {
            violations.add("metadata.name", error);
        }
        self.check_length(object, violations);
        if kind.name == zone::KIND.name
            && let Place::Zone { name, .. } = &self.place
            && object.name != name.as_str()
        {
            let reason = format_args!("must be {name}: this control plane has no other zone");
            violations.add("metadata.name", reason);
        }
        let elsewhere = !object.namespace.is_empty() && object.namespace != self.system_namespace;
        if elsewhere && object.is_of_the_system() {
            let reason = format_args!("must be {}: it is for all", self.system_namespace);
            violations.add("metadata.namespace", reason);
        }
        if let Some(mesh) = object.mesh.as_ref().filter(|mesh| !self.has_mesh(mesh)) {
            let named = object.kind.custom.is_some_and(|it| it.names_mesh);
            let field = if named { "mesh".to_owned() } else { of_label(label::MESH) };
            violations.add(field, format_args!("mesh {:?} not found", mesh.as_str()));
        }
    }

    /// Of objects outside the system namespace, that is part of the name that others see.
    fn check_length(&self, object: &Object, violations: &mut Violations) {
        if object.namespace.is_empty() || object.namespace == self.system_namespace {
            return;
        }
        let name = format!("{}.{}", object.name, object.namespace);
        if NameRule::Subdomain.check(&name).is_err() && object.name.len() <= 253 {
            let most = 253_usize.saturating_sub(object.namespace.len() + 1);
            let reason = format_args!("must have at most {most} bytes in this namespace");
            violations.add("metadata.name", reason);
        }
    }

    pub(super) fn has_mesh(&self, mesh: &MeshName) -> bool {
        let kind = self.kinds.id_of(mesh::KIND.name);
        let key = ResourceKey::global(mesh.as_str());
        kind.is_some_and(|kind| self.reader.get(kind, &key).is_some())
    }

    /// The role of a policy; `None` for all else.
    fn role(&self, object: &Object) -> Result<Option<Role>, role::Mixed> {
        let system = object.namespace == self.system_namespace;
        let namespace = if system { "" } else { object.namespace.as_str() };
        let policy = object.kind.targets.is_some();
        policy.then(|| role::of_content(&object.content, namespace)).transpose()
    }

    fn check_labels(&self, object: &Object, before: Option<&Object>, violations: &mut Violations) {
        let said = object.labels.get(label::NAMESPACE);
        let copied = before.is_some_and(|before| !self.place.is_origin_of(&before.labels));
        if said.is_some_and(|said| said != object.namespace) && !copied {
            let reason = format_args!("must be {:?}", object.namespace);
            violations.add(of_label(label::NAMESPACE), reason);
        }
        match (self.role(object), object.labels.get(label::ROLE)) {
            (Err(mixed), _) => violations.add("spec.to", mixed),
            (Ok(Some(role)), Some(said)) if said != role.as_str() && !copied => {
                let reason = format_args!("must be {:?}, by what it selects", role.as_str());
                violations.add(of_label(label::ROLE), reason);
            }
            (Ok(_), _) => {}
        }
    }

    fn check_delete(&self, kind: Kind, request: &Request) -> Result<(), Refused> {
        let Some(before) = self.before(kind, request) else { return Ok(()) };
        labels::check_delete(&before.labels, &self.place).map_err(|violations| {
            let mut said = Violations::default();
            for violation in violations.iter() {
                said.add(of_label(label::ORIGIN), &violation.reason);
            }
            Refused::invalid(&said)
        })?;
        if kind.name != mesh::KIND.name {
            return Ok(());
        }
        let (Ok(mesh), Some(dataplanes)) =
            (MeshName::new(&before.name), self.kinds.id_of(dataplane::KIND.name))
        else {
            return Ok(());
        };
        let (_, rows) = self.reader.rows(dataplanes);
        let first = rows.after(Some(&ResourceKey::in_mesh(&mesh, ""))).next();
        if first.is_some_and(|row| row.head.key.mesh.as_ref() == Some(&mesh)) {
            let message = "unable to delete mesh, there are still some dataplanes attached";
            return Err(Refused::forbidden(message));
        }
        Ok(())
    }
}

/// A role follows from what a policy selects, whatever it says.
fn without_role(labels: &Labels) -> Labels {
    labels.iter().filter(|(key, _)| *key != label::ROLE).collect()
}

/// A resource does not move: others may refer to it.
fn check_mesh(object: &Object, before: &Object, violations: &mut Violations) {
    if let (Some(now), Some(then)) = (&object.mesh, &before.mesh)
        && now != then
    {
        let named = object.kind.custom.is_some_and(|it| it.names_mesh);
        let field = if named { "mesh".to_owned() } else { of_label(label::MESH) };
        violations.add(field, format_args!("is immutable (was {:?})", then.as_str()));
    }
}

/// The path of a violation, as it is in an object.
fn in_metadata(path: &str) -> String {
    let label = path.strip_prefix("labels[\"").and_then(|rest| rest.strip_suffix("\"]"));
    match (label, path) {
        (Some(key), _) => of_label(key),
        (None, "name") => "metadata.name".to_owned(),
        (None, other) => other.to_owned(),
    }
}

/// Sets the labels that an object should have, and takes away those that only we set.
fn relabelled(document: &Value, wanted: &BTreeMap<&str, &str>) -> json_patch::Patch {
    let mut edits = crate::edits::Edits::of(document);
    let there = document.pointer("/metadata/labels");
    let is = |key: &str| there.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    for (key, value) in wanted {
        if is(key) != Some(value) {
            edits.set(&["metadata", "labels"], key, (*value).into());
        }
    }
    for key in [label::LISTENER_ZONE_INGRESS, label::LISTENER_ZONE_EGRESS] {
        if is(key).is_some() && !wanted.contains_key(key) {
            edits.remove(&["metadata", "labels", key]);
        }
    }
    edits.done()
}
