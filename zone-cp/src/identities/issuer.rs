//! Gives each proxy its certificate, and a new one in time.

use super::plan::Member;
use crate::generate::{Credentials, SpireAgent, Trust};
use api::expiry::{Entry, Holder, Renewal, Sort, by_mesh};
use daemon::Clock;
use identity::{Authority, SpiffeId, Svid};
use jiff::Timestamp;
use kinds::{
    labels::Env,
    mesh_identity::{NoSpiffeId, best},
};
use parking_lot::Mutex;
use resource::{Kri, Labels, MeshName, ResourceKey};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Notify, watch};
use xxhash_rust::xxh3::xxh3_64;

/// No certificate is replaced earlier than this after it was issued, however short its life is: that
/// of an authority that ends soon has a short one.
const PAUSE: Duration = Duration::from_secs(1);

/// What a proxy proves who it is by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The MeshIdentity.
    pub identity: Arc<Kri>,
    /// Who has the certificate.
    pub proof: Proof,
}

/// Who has a proxy's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// We do: certificate and key.
    Svid(Svid),
    /// The SPIRE agent beside the proxy.
    Agent(SpireAgent),
}

impl Issued {
    /// The certificate, if we have it.
    #[must_use]
    pub const fn svid(&self) -> Option<&Svid> {
        match &self.proof {
            Proof::Svid(svid) => Some(svid),
            Proof::Agent(_) => None,
        }
    }

    /// Where Envoy has it from.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        match &self.proof {
            Proof::Svid(_) => Credentials::Zone(self.identity.clone()),
            Proof::Agent(agent) => Credentials::Agent(agent.clone()),
        }
    }
}

/// Why a proxy has no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSvid {
    /// No MeshIdentity of its mesh selects it.
    #[error("no MeshIdentity selects the proxy")]
    NoIdentity,
    /// The MeshIdentity cannot say who it is.
    #[error("MeshIdentity {identity}: no trust domain: {reason}")]
    TrustDomain {
        /// The MeshIdentity.
        identity: Arc<Kri>,
        /// Why.
        reason: String,
    },
    /// The proxy lacks what the path of its SPIFFE ID needs.
    #[error("MeshIdentity {identity}: no path")]
    Path {
        /// The MeshIdentity.
        identity: Arc<Kri>,
        /// What is missing.
        #[source]
        source: NoSpiffeId,
    },
    /// The rendered SPIFFE ID is not one.
    #[error("MeshIdentity {identity}: no SPIFFE ID")]
    SpiffeId {
        /// The MeshIdentity.
        identity: Arc<Kri>,
        /// Why.
        #[source]
        source: identity::InvalidSpiffeId,
    },
    /// Its MeshIdentity has no authority yet, or none at all. Its status says why.
    #[error("MeshIdentity {0} has no authority")]
    NoAuthority(Arc<Kri>),
    /// Its MeshIdentity leaves it to a SPIRE agent, and the proxy says of none.
    #[error(
        "MeshIdentity {0} is of type Spire, and the proxy names no SPIRE agent: spire.socketPath of its \
         settings, or of its pod the annotation k8s.kuma.io/spire-support: enabled"
    )]
    NoAgent(Arc<Kri>),
    /// Signing failed.
    #[error("MeshIdentity {identity}: {reason}")]
    Sign {
        /// The MeshIdentity.
        identity: Arc<Kri>,
        /// Why.
        reason: String,
    },
}

/// What somebody who uses certificates has to look at again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Meshes whose trust changed.
    pub trust: BTreeSet<MeshName>,
    /// Proxies whose certificate may be another one now.
    pub proxies: BTreeSet<ResourceKey>,
}

impl Dirty {
    fn is_empty(&self) -> bool {
        self.trust.is_empty() && self.proxies.is_empty()
    }
}

/// Says what is dirty. Its owner is one task.
#[derive(Debug)]
pub struct Changes(Arc<Shared>);

impl Changes {
    /// Waits for changes and takes them. Cancel safe.
    pub async fn next(&mut self) -> Dirty {
        loop {
            let dirty = std::mem::take(&mut self.0.state.lock().dirty);
            if !dirty.is_empty() {
                return dirty;
            }
            self.0.dirty.notified().await;
        }
    }
}

/// Issues certificates. Cloneable.
#[derive(Clone, Debug)]
pub struct Issuer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    state: Mutex<State>,
    dirty: Notify,
    /// Something is due earlier than before.
    earlier: Notify,
    /// Every mesh that the store knew at the start was looked at.
    complete: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    meshes: BTreeMap<MeshName, Mesh>,
    /// Every proxy that was asked for, with what it got last.
    proxies: BTreeMap<ResourceKey, Result<Held, NoSvid>>,
    /// When whose certificate is to be replaced.
    due: BTreeSet<(Timestamp, ResourceKey)>,
    dirty: Dirty,
}

#[derive(Debug, Default)]
struct Mesh {
    members: Vec<Member>,
    trust: Arc<Trust>,
}

#[derive(Clone, Debug)]
struct Held {
    issued: Arc<Issued>,
    /// `None`: a SPIRE agent renews it.
    term: Option<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    authority: Arc<Authority>,
    validity: Duration,
    renew_at: Timestamp,
}

impl Issuer {
    /// An issuer that knows nothing yet, and who is told of its changes.
    #[must_use]
    pub fn new(clock: Clock) -> (Self, Changes) {
        let shared = Arc::new(Shared {
            clock,
            state: Mutex::default(),
            dirty: Notify::new(),
            earlier: Notify::new(),
            complete: watch::Sender::new(false),
        });
        (Self(shared.clone()), Changes(shared))
    }

    /// What the Dataplane `proxy` with these labels proves who it is by: the same until it is time for
    /// another. [`Changes`] names the proxy when it is. `has_agent`: a SPIRE agent is beside it.
    pub fn issue(
        &self,
        proxy: &ResourceKey,
        labels: &Labels,
        has_agent: bool,
    ) -> Result<Arc<Issued>, NoSvid> {
        let now = self.0.clock.now();
        let mut state = self.0.state.lock();
        let held = state.proxies.get(proxy).and_then(|held| held.clone().ok());
        let asked = Asked { proxy, labels, has_agent };
        let result = state.issue(&asked, held.as_ref(), now);
        let held_before = held.as_ref().map(|held| &held.issued);
        match &result {
            Ok(new) if held_before == Some(&new.issued) => {}
            new => {
                if state.hold(proxy, new.clone()) {
                    self.0.earlier.notify_one();
                }
            }
        }
        result.map(|held| held.issued)
    }

    /// What the proxy got when somebody asked last.
    pub fn last(&self, proxy: &ResourceKey) -> Result<Arc<Issued>, NoSvid> {
        let state = self.0.state.lock();
        let last = state.proxies.get(proxy).cloned().unwrap_or(Err(NoSvid::NoIdentity));
        last.map(|held| held.issued)
    }

    /// Waits until everything that was there at the start is known. Before, a proxy that has no
    /// certificate may have one.
    pub async fn complete(&self) {
        // Cannot fail: we hold the sender.
        drop(self.0.complete.subscribe().wait_for(|complete| *complete).await);
    }

    pub(super) fn completed(&self) {
        self.0.complete.send_replace(true);
    }

    /// Forgets a proxy that is gone.
    pub fn forget(&self, proxy: &ResourceKey) {
        let mut state = self.0.state.lock();
        state.hold(proxy, Err(NoSvid::NoIdentity));
        state.proxies.remove(proxy);
        state.dirty.proxies.remove(proxy);
    }

    /// The authorities of each mesh: the MeshIdentity, and when its authority ends.
    fn authorities(&self) -> Vec<(MeshName, Arc<Kri>, Timestamp)> {
        let state = self.0.state.lock();
        let of_mesh = |(mesh, known): (&MeshName, &Mesh)| {
            let ends = |member: &Member| {
                let ends = member.authority.as_ref()?.not_after();
                Some((mesh.clone(), member.kri.clone(), ends))
            };
            known.members.iter().filter_map(ends).collect::<Vec<_>>()
        };
        state.meshes.iter().flat_map(of_mesh).collect()
    }

    fn certificates(&self, soon: Timestamp) -> Vec<Entry> {
        let state = self.0.state.lock();
        let ends = state.proxies.iter().filter_map(|(key, held)| {
            let ends = held.as_ref().ok()?.issued.svid()?.not_after;
            Some((key.mesh.as_ref()?, &*key.name, ends))
        });
        let renewal = Renewal::automatic("the zone, after four fifths of its life");
        by_mesh(Sort::ProxyCertificates, &renewal, soon, ends)
    }

    /// Whose certificates count in a mesh.
    #[must_use]
    pub fn trust(&self, mesh: &MeshName) -> Arc<Trust> {
        let state = self.0.state.lock();
        state.meshes.get(mesh).map(|mesh| mesh.trust.clone()).unwrap_or_default()
    }

    /// Whether a proxy of `mesh` with these labels must prove its workload, because its SPIFFE ID
    /// says it.
    #[must_use]
    pub fn needs_workload(&self, mesh: &MeshName, labels: &Labels) -> bool {
        let state = self.0.state.lock();
        let member = state.meshes.get(mesh).and_then(|mesh| mesh.best(labels));
        member.is_some_and(Member::needs_workload)
    }

    /// What a mesh has now. Trust first: both are told together.
    pub(super) fn publish(&self, name: &MeshName, members: Vec<Member>, trust: Trust) {
        let mut state = self.0.state.lock();
        let state = &mut *state;
        let before = state.meshes.entry(name.clone()).or_default();
        if *before.trust != trust {
            before.trust = Arc::new(trust);
            state.dirty.trust.insert(name.clone());
        }
        let same = before.members.len() == members.len()
            && before.members.iter().zip(&members).all(|(one, other)| one.same(other));
        before.members = members;
        if before.members.is_empty() && before.trust.0.is_empty() {
            state.meshes.remove(name);
        }
        if !same {
            let of_mesh = |key: &&ResourceKey| key.mesh.as_ref() == Some(name);
            state.dirty.proxies.extend(state.proxies.keys().filter(of_mesh).cloned());
        }
        if !state.dirty.is_empty() {
            self.0.dirty.notify_one();
        }
    }

    /// Waits until a certificate is to be replaced, and says so. Cancel safe.
    pub(super) async fn rotate(&self) {
        let first = self.0.state.lock().due.first().map(|(when, _)| *when);
        tokio::select! {
            biased;
            () = self.0.earlier.notified() => {}
            () = sleep_until(&self.0.clock, first) => {
                let now = self.0.clock.now();
                let mut state = self.0.state.lock();
                while let Some((when, proxy)) = state.due.pop_first() {
                    if now < when {
                        state.due.insert((when, proxy));
                        break;
                    }
                    state.dirty.proxies.insert(proxy);
                }
                self.0.dirty.notify_one();
            }
        }
    }
}

async fn sleep_until(clock: &Clock, at: Option<Timestamp>) {
    match at {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

const AUTHORITY: &str = "nobody: delete both Secrets of the authority, and the zone makes the next \
                         one, or write another into both or into its files";

impl Holder for Issuer {
    fn entries(&self, soon: Timestamp) -> Vec<Entry> {
        let entry = |(mesh, identity, ends): (MeshName, Arc<Kri>, Timestamp)| {
            Entry::one(Sort::Authority, &*identity.name, ends, Renewal::by(AUTHORITY))
                .of_mesh(&mesh)
        };
        let authorities = self.authorities().into_iter().map(entry);
        authorities.chain(self.certificates(soon)).collect()
    }
}

impl Mesh {
    fn best(&self, labels: &Labels) -> Option<&Member> {
        let specs = self.members.iter().map(|member| (&*member.name, &*member.spec));
        let (name, _) = best(specs, labels)?;
        self.members.iter().find(|member| *member.name == *name)
    }
}

/// Who asks for a certificate.
struct Asked<'a> {
    proxy: &'a ResourceKey,
    labels: &'a Labels,
    has_agent: bool,
}

impl State {
    /// What the proxy shall have: what it has, if that will do, or else a new one.
    fn issue(
        &self,
        asked: &Asked<'_>,
        held: Option<&Held>,
        now: Timestamp,
    ) -> Result<Held, NoSvid> {
        let Asked { proxy, labels, has_agent } = *asked;
        let mesh = proxy.mesh.as_ref().and_then(|mesh| self.meshes.get(mesh));
        let member = mesh.and_then(|mesh| mesh.best(labels)).ok_or(NoSvid::NoIdentity)?;
        let id = member.spiffe_id(labels)?;
        if let Some(timeout) = member.agent_timeout {
            if !has_agent {
                return Err(NoSvid::NoAgent(member.kri.clone()));
            }
            let proof = Proof::Agent(SpireAgent { id, timeout });
            let issued = Arc::new(Issued { identity: member.kri.clone(), proof });
            return Ok(Held { issued, term: None });
        }
        // Still valid, though its authority may be another one now.
        let fits = |svid: &Svid| svid.id == id && now < svid.not_after;
        let usable = held.filter(|held| held.issued.identity == member.kri);
        let usable = usable.filter(|held| held.issued.svid().is_some_and(fits));
        let Some(authority) = &member.authority else {
            return usable.cloned().ok_or_else(|| NoSvid::NoAuthority(member.kri.clone()));
        };
        let current = |term: &Term| {
            Arc::ptr_eq(&term.authority, authority)
                && term.validity == member.validity
                && now < term.renew_at
        };
        if let Some(held) = usable.filter(|held| held.term.as_ref().is_some_and(current)) {
            return Ok(held.clone());
        }
        match authority.issue(&id, now, member.validity) {
            Ok(svid) => {
                let renew_at = spread(proxy, &svid).max(now.saturating_add(PAUSE).unwrap_or(now));
                let proof = Proof::Svid(svid);
                let issued = Arc::new(Issued { identity: member.kri.clone(), proof });
                let (authority, validity) = (authority.clone(), member.validity);
                Ok(Held { issued, term: Some(Term { authority, validity, renew_at }) })
            }
            Err(error) => usable.cloned().ok_or_else(|| NoSvid::Sign {
                identity: member.kri.clone(),
                reason: error.to_string(),
            }),
        }
    }

    /// Whether something is due earlier now.
    fn hold(&mut self, proxy: &ResourceKey, new: Result<Held, NoSvid>) -> bool {
        let first = self.due.first().map(|(when, _)| *when);
        let due = |held: &Held| held.term.as_ref().map(|term| term.renew_at);
        let when = new.as_ref().ok().and_then(due);
        let before = self.proxies.insert(proxy.clone(), new).and_then(Result::ok);
        if let Some(before) = before.as_ref().and_then(due) {
            self.due.remove(&(before, proxy.clone()));
        }
        let Some(when) = when else { return false };
        self.due.insert((when, proxy.clone()));
        first.is_none_or(|first| when < first)
    }
}

impl Member {
    fn needs_workload(&self) -> bool {
        self.spec.needs_workload(self.here.env == Env::Kubernetes)
    }

    fn spiffe_id(&self, labels: &Labels) -> Result<SpiffeId, NoSvid> {
        let identity = || self.kri.clone();
        let domain = self.domain.clone();
        let domain =
            domain.map_err(|reason| NoSvid::TrustDomain { identity: identity(), reason })?;
        let path = self.spec.path(self.here.place(&self.mesh, &self.here.zone), labels);
        let path = path.map_err(|source| NoSvid::Path { identity: identity(), source })?;
        SpiffeId::new(domain, &path)
            .map_err(|source| NoSvid::SpiffeId { identity: identity(), source })
    }
}

/// When a certificate is replaced: after four fifths of its life, or a little earlier, so that those
/// that were issued together are not all replaced together.
fn spread(proxy: &ResourceKey, svid: &Svid) -> Timestamp {
    const STEPS: u64 = 1000;
    let step = xxh3_64(proxy.to_string().as_bytes()) % STEPS;
    let renew_at = svid.renew_at();
    // A fourth of the last fifth.
    let most = renew_at.duration_until(svid.not_after).as_millis() / 4;
    let earlier = u64::try_from(most).unwrap_or(0).saturating_mul(step) / STEPS;
    renew_at.saturating_sub(Duration::from_millis(earlier)).unwrap_or(renew_at)
}
