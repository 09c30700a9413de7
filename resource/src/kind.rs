//! What is known about a kind without knowing its spec type.

use super::{
    Access, Audience, CustomResource, Encoding, Export, Feature, Features, Flow, Head, KnownFields,
    Kri, Labels, NameRule, Peer, RejectedSpec, Resource, ResourceKey, Scope, Spec, Status, Targets,
    TransitName, Violations, ZoneName, label,
    limit::{Zones, is_limited},
    schema,
};
use bytes::Bytes;
use serde_json::Value;
use std::{any::Any, fmt, sync::Arc};

/// A decoded spec whose type only its kind knows.
pub type AnySpec = Arc<dyn Any + Send + Sync>;

/// What the control planes know about a kind without knowing its spec type.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The kind, as written in YAML.
    pub name: &'static str,
    /// The plural, as written in custom resource definitions.
    pub plural: &'static str,
    /// The plural, as written in URLs.
    pub path: &'static str,
    /// The abbreviation used in KRIs; may be empty.
    pub short: &'static str,
    /// Whether the kind lives inside a mesh.
    pub scope: Scope,
    /// Which way the kind travels.
    pub flow: Flow,
    /// What becomes of its names on the way to a zone.
    pub transit_name: TransitName,
    /// What its display names may look like.
    pub name_rule: NameRule,
    /// Who may use the API for it.
    pub access: Access,
    /// Set for policies.
    pub targets: Option<Targets>,
    /// How it stands in Kubernetes; `None` for kinds that are no custom resources there.
    pub custom: Option<CustomResource>,
    /// Whether control planes report a status.
    pub has_status: bool,
    /// Whether the fields of its specs stand beside `name` in the API, not under `spec`.
    pub inline: bool,
    type_url: fn() -> String,
    decode: fn(&[u8]) -> Result<AnySpec, RejectedSpec>,
    encode: fn(&AnySpec) -> Result<Bytes, RejectedSpec>,
    from_json: fn(Value) -> Result<AnySpec, RejectedSpec>,
    to_json: fn(&AnySpec) -> Result<Value, RejectedSpec>,
    check_status: fn(&[u8]) -> Result<(), RejectedSpec>,
    encode_status: fn(Value) -> Result<Bytes, RejectedSpec>,
    blank_status: fn() -> Bytes,
    export: fn(&AnySpec, &ResourceKey, Peer) -> Export<AnySpec>,
    transit_key: fn(&ResourceKey, Peer) -> Option<ResourceKey>,
    needs: fn(&AnySpec) -> Features,
    is_producer: fn(&AnySpec, &Labels) -> bool,
    keeps_audience: fn(&[u8], &[u8]) -> bool,
    schema: fn() -> schemars::Schema,
    document_schema: fn() -> schemars::Schema,
    status_schema: fn() -> schemars::Schema,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Kind {
    /// The descriptor of the kind whose spec is `S`.
    #[must_use]
    pub const fn of<S: Spec>() -> Self {
        Self {
            name: S::KIND,
            plural: S::PLURAL,
            path: S::PATH,
            short: S::SHORT,
            scope: S::SCOPE,
            flow: S::FLOW,
            transit_name: S::TRANSIT_NAME,
            name_rule: S::NAME,
            access: S::ACCESS,
            targets: S::TARGETS,
            custom: S::CUSTOM,
            has_status: S::Status::PRESENT,
            inline: S::Encoding::INLINE,
            type_url: S::Encoding::type_url,
            decode: decode::<S>,
            encode: encode::<S>,
            from_json: from_json::<S>,
            to_json: to_json::<S>,
            check_status: check_status::<S>,
            encode_status: encode_status::<S>,
            blank_status: blank_status::<S>,
            export: export::<S>,
            transit_key: S::transit_key,
            needs: needs::<S>,
            is_producer: is_producer::<S>,
            keeps_audience: keeps_audience::<S>,
            schema: S::schema,
            document_schema: document_schema::<S>,
            status_schema: status_schema::<S>,
        }
    }

    /// The type URL of an encoded spec; empty where the protocol has none.
    #[must_use]
    pub fn type_url(&self) -> String {
        (self.type_url)()
    }

    /// Decodes and validates a spec.
    pub fn decode(&self, bytes: &[u8]) -> Result<AnySpec, RejectedSpec> {
        (self.decode)(bytes)
    }

    /// Writes a spec; equal specs give equal bytes.
    pub fn encode(&self, spec: &AnySpec) -> Result<Bytes, RejectedSpec> {
        (self.encode)(spec)
    }

    /// Reads and validates a spec as the API has it.
    pub fn from_json(&self, json: Value) -> Result<AnySpec, RejectedSpec> {
        (self.from_json)(json)
    }

    /// An encoded spec as the API has it.
    pub fn to_json(&self, bytes: &[u8]) -> Result<Value, RejectedSpec> {
        (self.to_json)(&self.decode(bytes)?)
    }

    /// Reads a status as the API has it; equal ones give equal bytes.
    pub fn encode_status(&self, status: Value) -> Result<Bytes, RejectedSpec> {
        (self.encode_status)(status)
    }

    /// The status of which nothing is known, as it goes on the wire.
    #[must_use]
    pub fn blank_status(&self) -> Bytes {
        (self.blank_status)()
    }

    /// Validates a resource that is written here or comes in, and decides who may see it when it is
    /// offered to `peer`. An empty `status` is none.
    pub fn resource(
        &self,
        key: ResourceKey,
        labels: Labels,
        spec: Bytes,
        status: Bytes,
        peer: Peer,
    ) -> Result<Resource, RejectedSpec> {
        let decoded = self.decode(&spec)?;
        let status = if self.has_status { status } else { Bytes::new() };
        if !status.is_empty() {
            (self.check_status)(&status)?;
        }
        self.check_name(&key, &labels)?;
        let export = self.export(&decoded, &key, peer);
        let withheld = matches!(export, Export::Withheld);
        let audience = self.audience(&decoded, withheld, &labels, peer);
        let renamed = self.transit_key(&key, peer);
        let resource = Resource::new(key.clone(), labels, spec.clone(), status, audience);
        Ok(match (export, renamed) {
            (Export::Changed(spec), renamed) => {
                resource.exported_as(renamed.unwrap_or(key), &self.encode(&spec)?)
            }
            (Export::AsIs, Some(renamed)) => resource.exported_as(renamed, &spec),
            (Export::AsIs | Export::Withheld, _) => resource,
        })
    }

    fn check_name(&self, key: &ResourceKey, labels: &Labels) -> Result<(), RejectedSpec> {
        let display = labels.get(label::DISPLAY_NAME).filter(|name| !name.is_empty());
        let mut violations = Violations::default();
        if let Err(error) = self.name_rule.check(display.unwrap_or(&key.name)) {
            violations.add("name", error);
        }
        if violations.is_empty() {
            Ok(())
        } else {
            Err(RejectedSpec::Invalid { kind: self.name, violations })
        }
    }

    /// Who may see a resource. What depends on other resources (is its zone enabled, may its trust
    /// be relayed) is decided by those who watch these, and committed as another audience.
    fn audience(&self, spec: &AnySpec, withheld: bool, labels: &Labels, peer: Peer) -> Audience {
        let (zone, origin) = (labels.get(label::ZONE), labels.get(label::ORIGIN));
        let needs = (self.needs)(spec);
        let leaves = labels.get(label::SYNC) != Some(label::DISABLED) && !withheld;
        match peer {
            Peer::Global => {
                let ours = origin.is_none_or(|origin| origin == label::ORIGIN_ZONE);
                let hidden = !(leaves && ours && self.flow.goes_up());
                Audience { hidden, ..Audience::default() }
            }
            Peer::Zone => {
                let of_zone = origin == Some(label::ORIGIN_ZONE);
                let owner = zone.filter(|_| of_zone).and_then(|zone| ZoneName::new(zone).ok());
                let (reaches, needs) = match self.flow {
                    Flow::ZoneToZones => (owner.is_some(), needs),
                    Flow::Everywhere if of_zone => (
                        owner.is_some() && (self.is_producer)(spec, labels),
                        needs.with(Feature::ProducerPolicyFlow),
                    ),
                    Flow::GlobalToZones
                    | Flow::GlobalToZonesOrLocal
                    | Flow::BothWays
                    | Flow::Everywhere
                    | Flow::BeaconToZones => (!of_zone, needs),
                    Flow::Local | Flow::ZoneToGlobal | Flow::BeaconToGlobal => (false, needs),
                };
                // For nobody, until those who know the zones have said for whom.
                let limited = !of_zone && is_limited(labels);
                let only = limited.then(|| Zones::from([]));
                Audience { owner, needs, hidden: !(leaves && reaches), only }
            }
        }
    }

    /// Whether a resource of global can be limited to some zones. What every zone needs cannot.
    #[must_use]
    pub fn can_be_limited(&self) -> bool {
        match self.flow {
            Flow::BothWays | Flow::Everywhere => true,
            Flow::GlobalToZones | Flow::GlobalToZonesOrLocal => self.scope == Scope::Mesh,
            Flow::Local
            | Flow::ZoneToGlobal
            | Flow::ZoneToZones
            | Flow::BeaconToZones
            | Flow::BeaconToGlobal => false,
        }
    }

    /// Decides what of a resource may leave for `peer`.
    #[must_use]
    pub fn export(&self, spec: &AnySpec, key: &ResourceKey, peer: Peer) -> Export<AnySpec> {
        (self.export)(spec, key, peer)
    }

    /// The name under which a resource leaves for `peer` where its kind renames it, before what
    /// [`transit_name`](Self::transit_name) asks for. Known without its spec.
    #[must_use]
    pub fn transit_key(&self, key: &ResourceKey, peer: Peer) -> Option<ResourceKey> {
        (self.transit_key)(key, peer)
    }

    /// The KRI of a resource of this kind.
    #[must_use]
    pub fn kri(&self, head: &Head) -> Kri {
        let label = |key| head.labels.get(key).unwrap_or_default().to_owned();
        let display = head.labels.get(label::DISPLAY_NAME).filter(|name| !name.is_empty());
        Kri {
            short: self.short.to_owned(),
            mesh: head.key.mesh.as_ref().map(ToString::to_string).unwrap_or_default(),
            zone: label(label::ZONE),
            namespace: label(label::NAMESPACE),
            name: display.unwrap_or(&head.key.name).to_owned(),
            section: String::new(),
        }
    }

    /// Whether a resource that becomes `now` is seen by the same as `before`, where others decided
    /// about that; see [`Spec::keeps_audience_of`].
    #[must_use]
    pub fn keeps_audience(&self, before: &[u8], now: &[u8]) -> bool {
        (self.keeps_audience)(before, now)
    }

    /// The JSON schema, for custom resource definitions and the API.
    #[must_use]
    pub fn schema(&self) -> schemars::Schema {
        (self.schema)()
    }

    /// The fields of specs as the API has them. Finding them costs more than using them.
    #[must_use]
    pub fn known_fields(&self) -> KnownFields {
        KnownFields::new((self.document_schema)())
    }

    /// The JSON schema of the status, likewise.
    #[must_use]
    pub fn status_schema(&self) -> schemars::Schema {
        (self.status_schema)()
    }
}

const OWN: &str = "a kind's table holds only specs of that kind";

fn checked<S: Spec>(spec: S) -> Result<AnySpec, RejectedSpec> {
    let mut violations = Violations::default();
    spec.validate(&mut violations);
    if violations.is_empty() {
        Ok(Arc::new(spec))
    } else {
        Err(RejectedSpec::Invalid { kind: S::KIND, violations })
    }
}

fn malformed<S: Spec>(source: super::BoxError) -> RejectedSpec {
    RejectedSpec::Malformed { kind: S::KIND, source }
}

fn decode<S: Spec>(bytes: &[u8]) -> Result<AnySpec, RejectedSpec> {
    match S::Encoding::decode(bytes) {
        Ok(spec) => checked(spec),
        Err(error) => {
            let document = serde_json::from_slice(bytes).ok();
            Err(explained::<S>(document.as_ref(), error))
        }
    }
}

fn encode<S: Spec>(spec: &AnySpec) -> Result<Bytes, RejectedSpec> {
    let spec = spec.downcast_ref::<S>().expect(OWN);
    Ok(S::Encoding::encode(spec).map_err(malformed::<S>)?.into())
}

fn from_json<S: Spec>(json: Value) -> Result<AnySpec, RejectedSpec> {
    match S::Encoding::from_json(json.clone()) {
        Ok(spec) => checked(spec),
        Err(error) => Err(explained::<S>(Some(&json), error)),
    }
}

/// What is wrong with a document that could not be read: place by place, if the schema knows.
fn explained<S: Spec>(document: Option<&Value>, error: super::BoxError) -> RejectedSpec {
    let mut violations = Violations::default();
    if let Some(document) = document {
        let path = if S::Encoding::INLINE { "" } else { "spec" };
        let schema = document_schema::<S>();
        schema::check(schema.as_value(), document, path, &mut violations);
    }
    if violations.is_empty() {
        malformed::<S>(error)
    } else {
        RejectedSpec::Invalid { kind: S::KIND, violations }
    }
}

fn to_json<S: Spec>(spec: &AnySpec) -> Result<Value, RejectedSpec> {
    S::Encoding::to_json(spec.downcast_ref::<S>().expect(OWN)).map_err(malformed::<S>)
}

fn check_status<S: Spec>(status: &[u8]) -> Result<(), RejectedSpec> {
    let status: Result<S::Status, _> = serde_json::from_slice(status);
    status.map(drop).map_err(|error| malformed::<S>(error.into()))
}

fn encode_status<S: Spec>(status: Value) -> Result<Bytes, RejectedSpec> {
    let status: S::Status =
        serde_json::from_value(status).map_err(|error| malformed::<S>(error.into()))?;
    Ok(serde_json::to_vec(&status).map_err(|error| malformed::<S>(error.into()))?.into())
}

fn blank_status<S: Spec>() -> Bytes {
    serde_json::to_vec(&S::Status::default()).expect("a status is plain JSON").into()
}

fn document_schema<S: Spec>() -> schemars::Schema {
    S::Encoding::schema().unwrap_or_else(S::schema)
}

fn status_schema<S: Spec>() -> schemars::Schema {
    schemars::schema_for!(S::Status)
}

fn export<S: Spec>(spec: &AnySpec, key: &ResourceKey, peer: Peer) -> Export<AnySpec> {
    match spec.downcast_ref::<S>().expect(OWN).export(key, peer) {
        Export::AsIs => Export::AsIs,
        Export::Changed(spec) => Export::Changed(Arc::new(spec)),
        Export::Withheld => Export::Withheld,
    }
}

fn needs<S: Spec>(spec: &AnySpec) -> Features {
    spec.downcast_ref::<S>().expect(OWN).needs()
}

fn keeps_audience<S: Spec>(before: &[u8], now: &[u8]) -> bool {
    let read = |bytes| S::Encoding::decode(bytes).ok();
    read(before).zip(read(now)).is_some_and(|(before, now): (S, S)| now.keeps_audience_of(&before))
}

fn is_producer<S: Spec>(spec: &AnySpec, labels: &Labels) -> bool {
    spec.downcast_ref::<S>().expect(OWN).is_producer(labels)
}
