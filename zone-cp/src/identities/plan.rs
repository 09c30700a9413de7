//! What follows from the MeshIdentities of a mesh. No I/O.

use super::{
    authority::{Cache, Files, Found, NoAuthority, SUFFIXES, Search, Secrets, Sources},
    trust::{Claims, trust},
};
use crate::generate::Trust;
use identity::{Authority, TrustDomain, certificates, to_pem};
use jiff::Timestamp;
use kinds::{
    Condition, GoDuration,
    labels::{Env, Place, own},
    mesh_identity::{self, MeshIdentity, Provider, ProviderType, Status, condition},
    mesh_trust,
    secret::{self, Secret},
};
use resource::{
    AnySpec, Kind, Kri, Labels, MeshName, Peer, Resource, ResourceKey, ZoneName, label,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use store::view::Revision;

/// Who made the Secrets that are made here.
const MANAGER: &str = "meshidentity-provider";

/// Why a MeshIdentity is ready that is wrong now.
pub(super) const LAST_GOOD: &str = "LastGood";

/// How long a certificate is valid where its MeshIdentity does not say it.
const VALIDITY: Duration = Duration::from_secs(5 * 24 * 3600);

/// How long Envoy waits for a SPIRE agent where the MeshIdentity does not say it.
const AGENT_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the control plane is.
#[derive(Clone, Debug)]
pub(super) struct Here {
    pub(super) zone: ZoneName,
    pub(super) env: Env,
}

impl Here {
    pub(super) fn labels(&self, kind: Kind, key: &ResourceKey) -> Labels {
        own(kind, key, &Place::Zone { name: self.zone.clone(), env: self.env })
    }

    /// The place of a proxy of `mesh` in `zone`.
    pub(super) fn place<'a>(
        &self,
        mesh: &'a MeshName,
        zone: &'a ZoneName,
    ) -> mesh_identity::Place<'a> {
        let kubernetes = self.env == Env::Kubernetes;
        mesh_identity::Place { mesh: mesh.as_str(), zone: zone.as_str(), kubernetes }
    }
}

/// What a mesh holds that matters here.
pub(super) struct View<'a> {
    pub(super) mesh: &'a MeshName,
    /// Whether the Mesh itself is there.
    pub(super) exists: bool,
    pub(super) identities: Vec<Arc<Resource>>,
    pub(super) trusts: Vec<Arc<Resource>>,
    pub(super) secrets: Vec<Arc<Resource>>,
    pub(super) files: Files,
    /// Until which revision global has the MeshTrusts of this zone; `None` if there is no global.
    pub(super) relayed: Option<Revision>,
    pub(super) now: Timestamp,
}

/// A MeshIdentity, as the issuer needs it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: Arc<str>,
    pub(super) kri: Arc<Kri>,
    pub(super) spec: Arc<MeshIdentity>,
    pub(super) labels: Labels,
    pub(super) domain: Result<TrustDomain, String>,
    pub(super) authority: Option<Arc<Authority>>,
    /// How long its certificates are valid.
    pub(super) validity: Duration,
    /// How long Envoy waits for a SPIRE agent, if these have the certificates.
    pub(super) agent_timeout: Option<Duration>,
    pub(super) here: Here,
    pub(super) mesh: MeshName,
}

impl Member {
    /// Whether its template makes `domain` for `zone`.
    pub(super) fn makes(&self, domain: &TrustDomain, zone: &ZoneName) -> bool {
        let made = self.spec.trust_domain(self.here.place(&self.mesh, zone), &self.labels);
        made.is_ok_and(|made| made == domain.as_str())
    }

    /// Whether a proxy gets the same from both.
    pub(super) fn same(&self, other: &Self) -> bool {
        let key = |authority: &Option<Arc<Authority>>| authority.as_ref().map(Arc::as_ptr);
        (&self.kri, &self.spec, &self.domain) == (&other.kri, &other.spec, &other.domain)
            && key(&self.authority) == key(&other.authority)
    }
}

/// One step towards what the MeshIdentities want. Committed together.
pub(super) enum Step {
    /// An authority: both Secrets or none.
    Make([Arc<Resource>; 2]),
    /// Anything else; `before` is what it replaces.
    Put { kind: Kind, before: Option<Arc<Resource>>, now: Arc<Resource> },
    /// Something whose reason is gone.
    Delete { kind: Kind, before: Arc<Resource> },
}

/// What follows from a mesh as it is.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) members: Vec<Member>,
    pub(super) trust: Trust,
    /// An authority is used when global has the MeshTrusts until here.
    pub(super) waits: Option<Revision>,
    /// When to work it out again though nothing changed.
    pub(super) again: Option<Timestamp>,
}

/// What is remembered of a mesh, so that only what changed is read.
#[derive(Debug, Default)]
pub(super) struct Memory {
    authorities: Cache,
    claims: Claims,
    /// What issued last. It goes on while its Secrets are damaged, and until what takes its place is
    /// known to others.
    pub(super) last_good: BTreeMap<Arc<str>, Member>,
    /// When MeshTrusts were written here.
    pub(super) written: BTreeMap<Arc<str>, Revision>,
    /// Since when global is known to have the authorities that are to take the place of others.
    pub(super) relayed: BTreeMap<Arc<str>, Timestamp>,
}

/// Why a MeshIdentity is not ready.
pub(super) struct Trouble {
    pub(super) aspect: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Works out what a mesh needs next. When it needs nothing, it is as it should be.
pub(super) fn plan(here: &Here, view: &View<'_>, memory: &mut Memory) -> Plan {
    let mut planner = Planner {
        here,
        view,
        memory,
        steps: Vec::new(),
        kept: Vec::new(),
        waits: None,
        again: None,
    };
    let mut members = Vec::new();
    if view.exists {
        for identity in &view.identities {
            members.extend(planner.member(identity));
        }
    }
    planner.tidy();
    let Planner { steps, kept, waits, again, .. } = planner;
    let exists = |name: &Arc<str>| members.iter().any(|member| member.name == *name);
    memory.last_good.retain(|name, _| exists(name));
    memory.relayed.retain(|name, _| exists(name));
    for member in &members {
        if member.authority.is_some() {
            memory.last_good.insert(member.name.clone(), member.clone());
        }
    }
    let claims = memory.claims.read(&view.trusts);
    let mut trust = trust(&here.zone, &members, &claims);
    // What goes on is believed here, also under a trust domain that is about to be another one.
    for (domain, authority) in kept {
        trust.0.entry(domain).or_default().extend(split(authority.certificate_pem()));
    }
    Plan { steps, members, trust, waits, again }
}

pub(super) struct Planner<'a> {
    pub(super) here: &'a Here,
    pub(super) view: &'a View<'a>,
    pub(super) memory: &'a mut Memory,
    pub(super) steps: Vec<Step>,
    /// What goes on as it was before.
    pub(super) kept: Vec<(TrustDomain, Arc<Authority>)>,
    pub(super) waits: Option<Revision>,
    pub(super) again: Option<Timestamp>,
}

/// How long Envoy waits for a SPIRE agent, if the provider is one.
fn agent_timeout(provider: &Provider) -> Option<Duration> {
    let agent = provider.spire.as_ref().and_then(|spire| spire.agent.as_ref());
    let timeout = agent.and_then(|agent| agent.timeout).map_or(AGENT_TIMEOUT, GoDuration::to_std);
    (provider.kind == ProviderType::Spire).then_some(timeout)
}

fn display_name(resource: &Resource) -> &str {
    let name = resource.head.labels.get(label::DISPLAY_NAME).filter(|name| !name.is_empty());
    name.unwrap_or(&resource.head.key.name)
}

impl Planner<'_> {
    fn member(&mut self, resource: &Arc<Resource>) -> Option<Member> {
        // Specs were read when they were stored; one that cannot be read is a newer program's.
        let spec = kinds::read::<MeshIdentity>(resource).ok()?;
        let head = &resource.head;
        let place = self.here.place(self.view.mesh, &self.here.zone);
        let domain = spec.trust_domain(place, &head.labels).map_err(|error| error.to_string());
        let domain =
            domain.and_then(|domain| TrustDomain::new(&domain).map_err(|error| error.to_string()));
        let bundled = spec.provider.as_ref().and_then(|provider| provider.bundled.as_ref());
        let expiry = bundled.and_then(|bundled| bundled.certificate_parameters.as_ref());
        let validity = expiry.and_then(|it| it.expiry).map_or(VALIDITY, GoDuration::to_std);
        let agent_timeout = spec.provider.as_ref().and_then(agent_timeout);
        let mut member = Member {
            name: head.key.name.clone(),
            kri: Arc::new(mesh_identity::KIND.kri(head)),
            spec,
            labels: head.labels.clone(),
            domain,
            authority: None,
            validity,
            agent_timeout,
            here: self.here.clone(),
            mesh: self.view.mesh.clone(),
        };
        let steps = self.steps.len();
        let conditions = self.prepare(resource, &mut member);
        // While there is something to do, nothing is reported: it is done in a moment.
        if self.steps.len() == steps {
            self.report(resource, conditions);
        }
        Some(member)
    }

    /// Sees to authority and trust. Returns the conditions.
    fn prepare(&mut self, resource: &Arc<Resource>, member: &mut Member) -> Vec<Condition> {
        let mut conditions = Vec::new();
        match self.provide(resource, member, &mut conditions) {
            Ok(true) => {
                conditions.push(Condition::holds(
                    condition::READY,
                    "Ready",
                    "Successfully initialized",
                ));
            }
            Ok(false) => conditions.push(Condition::holds(
                condition::READY,
                condition::PARTIALLY_READY,
                "SPIFFE IDs are published, certificates are not issued",
            )),
            Err(Trouble { aspect, reason, message }) => {
                conditions.push(Condition::fails(aspect, reason, message.clone()));
                // Who is called by an identity that is not ready is not called any more.
                conditions.push(if member.authority.is_some() {
                    let message = format!("what was good before goes on: {message}");
                    Condition::holds(condition::READY, LAST_GOOD, message)
                } else {
                    Condition::fails(condition::READY, reason, message)
                });
            }
        }
        conditions
    }

    /// Whether certificates are issued.
    fn provide(
        &mut self,
        resource: &Arc<Resource>,
        member: &mut Member,
        conditions: &mut Vec<Condition>,
    ) -> Result<bool, Trouble> {
        let domain = member.domain.clone().map_err(|message| {
            self.keep(member);
            Trouble {
                aspect: condition::SPIFFE_ID_PROVIDER,
                reason: "TrustDomainNotRendered",
                message,
            }
        })?;
        let spec = member.spec.clone();
        let Some(provider) = &spec.provider else {
            let message = "SPIFFE IDs are published";
            conditions.push(Condition::holds(
                condition::SPIFFE_ID_PROVIDER,
                "SpiffeIDProvided",
                message,
            ));
            return Ok(false);
        };
        if member.agent_timeout.is_some() {
            let message = "SPIRE agents beside proxies have their certificates";
            conditions.push(Condition::holds(condition::PROVIDER, "ProviderInitialized", message));
            return Ok(true);
        }
        let (ProviderType::Bundled, Some(bundled)) = (provider.kind, &provider.bundled) else {
            return Err(Trouble {
                aspect: condition::PROVIDER,
                reason: "ProviderNotSupported",
                message: format!("this zone has no provider of type {:?}", provider.kind),
            });
        };
        let authority = match self.authority(resource, bundled, &domain) {
            Ok(Some(authority)) => authority,
            Ok(None) => return Ok(true),
            Err(error) => {
                if error.is_damage() {
                    self.keep(member);
                }
                let message = error.to_string();
                return Err(Trouble {
                    aspect: condition::PROVIDER,
                    reason: "ProviderNotReady",
                    message,
                });
            }
        };
        let message = "Provider successfully initialized";
        conditions.push(Condition::holds(condition::PROVIDER, "ProviderInitialized", message));
        if bundled.creates_mesh_trust()
            && !self.is_trusted(resource, &member.kri, &domain, &authority)?
        {
            // Others shall know it before they meet it.
            self.keep(member);
            return Ok(true);
        }
        if bundled.creates_mesh_trust() {
            let message = "MeshTrust has been successfully created";
            conditions.push(Condition::holds(
                condition::MESH_TRUST_CREATED,
                "MeshTrustCreated",
                message,
            ));
            if self.replaces(member, &authority) && !self.is_known(member) {
                let message = "the new authority issues when other zones had time to learn of it from \
                               global; until then the one before does";
                conditions.push(Condition::fails(
                    condition::DEPENDENCIES_READY,
                    "MeshTrustNotRelayed",
                    message,
                ));
                self.keep(member);
                return Ok(true);
            }
        }
        member.authority = Some(authority);
        Ok(true)
    }

    /// The authority, or `None` if it is about to be made.
    fn authority(
        &mut self,
        resource: &Resource,
        bundled: &mesh_identity::Bundled,
        domain: &TrustDomain,
    ) -> Result<Option<Arc<Authority>>, NoAuthority> {
        let display_name = display_name(resource);
        if bundled.autogenerates() && self.owner_of(display_name) != Some(&resource.head.key.name) {
            return Err(NoAuthority::NameTaken(display_name.into()));
        }
        let name = &*resource.head.key.name;
        let search = Search { name, display_name, trust_domain: domain, now: self.view.now };
        let secrets: &Secrets<'_> =
            &|name| self.view.secrets.iter().find(|secret| *secret.head.key.name == *name).cloned();
        let sources = Sources { secrets, files: self.view.files };
        match search.find(bundled, sources, &mut self.memory.authorities)? {
            Found::There(authority) => Ok(Some(authority)),
            Found::Made(pair) => {
                let [certificate, key] = pair.map(|(name, text)| self.secret(&name, text));
                self.steps.push(Step::Make([certificate?, key?]));
                Ok(None)
            }
        }
    }

    /// The MeshIdentity that the Secrets of `display_name` belong to: the one that was there first.
    fn owner_of(&self, display_name: &str) -> Option<&Arc<str>> {
        let of_name =
            self.view.identities.iter().filter(|it| self::display_name(it) == display_name);
        let first = of_name.min_by_key(|it| (it.head.times.created, it.head.key.name.clone()));
        first.map(|it| &it.head.key.name)
    }

    fn secret(&self, name: &str, text: String) -> Result<Arc<Resource>, NoAuthority> {
        let key = ResourceKey::in_mesh(self.view.mesh, name);
        let labels = self.here.labels(secret::KIND, &key).with(label::MANAGED_BY, MANAGER);
        written(secret::KIND, key, labels, Arc::new(Secret::of(text)), Vec::new())
            .map_err(NoAuthority::Unusable)
    }

    fn report(&mut self, before: &Arc<Resource>, conditions: Vec<Condition>) {
        let status = Status { conditions };
        if kinds::status::<MeshIdentity>(before).is_ok_and(|before| before == status) {
            return;
        }
        let status = serde_json::to_vec(&status).unwrap_or_default();
        let now = Arc::new(before.with_status(status.into()));
        let before = Some(before.clone());
        self.steps.push(Step::Put { kind: mesh_identity::KIND, before, now });
    }

    /// Deletes what was made for a MeshIdentity that is gone.
    fn tidy(&mut self) {
        let identities = &self.view.identities;
        let kris: BTreeSet<Kri> =
            identities.iter().map(|it| mesh_identity::KIND.kri(&it.head)).collect();
        for trust in &self.view.trusts {
            if self.origin(trust).is_some_and(|origin| !kris.contains(&origin)) {
                self.steps.push(Step::Delete { kind: mesh_trust::KIND, before: trust.clone() });
            }
        }
        for secret in &self.view.secrets {
            let name = &secret.head.key.name;
            let owner = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
            let made_here = secret.head.labels.get(label::MANAGED_BY) == Some(MANAGER);
            let gone = |owner| !identities.iter().any(|it| display_name(it) == owner);
            if made_here && owner.is_some_and(gone) {
                self.steps.push(Step::Delete { kind: secret::KIND, before: secret.clone() });
            }
        }
    }
}

pub(super) fn split(text: &str) -> BTreeSet<String> {
    certificates(text).unwrap_or_default().iter().map(to_pem).collect()
}

pub(super) fn written(
    kind: Kind,
    key: ResourceKey,
    labels: Labels,
    spec: AnySpec,
    status: Vec<u8>,
) -> Result<Arc<Resource>, String> {
    let bytes = kind.encode(&spec).map_err(|error| error.to_string())?;
    let resource = kind.resource(key, labels, bytes, status.into(), Peer::Global);
    resource.map(Arc::new).map_err(|error| error.to_string())
}
