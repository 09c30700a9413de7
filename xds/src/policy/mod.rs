//! Policies: which of them concern a proxy and what it calls, in which order, and what all of them
//! together say.
//!
//! A policy fills slots of a [draft](crate::draft); it never sees what is generated from it. Kinds
//! are known by a table of functions, so that nothing here depends on one.

mod applied;
mod order;
#[cfg(test)]
mod tests;

pub use self::{
    applied::{Applied, DestinationFacts, InboundFacts, ProxyFacts},
    order::Order,
};

use crate::{
    draft::{InboundDraft, OutboundDraft, ProxyDraft},
    merge,
    target::{Match, Rule, TargetRef, To, ToRef},
};
use resource::{AnySpec, Kind, Kri, RejectedSpec, Resource, Spec};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    cmp::{Ordering, Reverse},
    sync::Arc,
};

/// Decides the order in which policies shape a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Chooses where traffic goes.
    Routing,
    /// Changes how it gets there.
    Traffic,
    /// Has the last word.
    Patch,
}

/// A kind whose resources shape what a proxy does.
pub trait Policy: Spec {
    /// The settings of one item or rule.
    type Conf: Serialize + DeserializeOwned + Default;
    /// When this policy runs.
    const PHASE: Phase;

    /// Which proxies it is for; `None` is all of the mesh.
    fn target_ref(&self) -> Option<&TargetRef>;

    /// What it says about outgoing traffic.
    fn to(&self) -> &[To<Self::Conf>] {
        &[]
    }

    /// What it says about incoming traffic.
    fn rules(&self) -> &[Rule<Self::Conf>] {
        &[]
    }

    /// What it says about the proxy as a whole.
    fn conf(&self) -> Option<&Self::Conf> {
        None
    }

    /// Writes what all policies together say about the proxy as a whole into the draft.
    fn shape_proxy(_conf: &Self::Conf, _draft: &mut ProxyDraft) {}

    /// Writes what all policies together say about a destination into the draft.
    fn shape_outbound(_conf: &Self::Conf, _draft: &mut OutboundDraft) {}

    /// Writes what rules say about an inbound into the draft. Later rules win over earlier ones.
    fn shape_inbound(_rules: &[InboundRule<Self::Conf>], _draft: &mut InboundDraft) {}
}

/// A rule of a policy that concerns an inbound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundRule<C> {
    /// Where it comes from.
    pub policy: Arc<Kri>,
    /// From whom: any of these, or everybody where there are none.
    pub matches: Vec<Match>,
    /// The settings.
    pub conf: C,
}

/// What `rules` together say about everybody: those that ask who calls are left out.
#[must_use]
pub fn for_everybody<C>(rules: &[InboundRule<C>]) -> C
where
    C: Serialize + DeserializeOwned + Default,
{
    let general = rules.iter().filter(|rule| rule.matches.is_empty());
    let confs: Vec<Value> = general.map(|rule| merge::json(&rule.conf)).collect();
    merge::merged(&confs)
}

/// What `rules` together say about each caller that some of them ask for: what they say about
/// everybody, then what they say about him. Whoever is asked for most closely comes first.
#[must_use]
pub fn for_callers<C>(rules: &[InboundRule<C>]) -> Vec<(Match, C)>
where
    C: Serialize + DeserializeOwned + Default,
{
    let mut callers: Vec<&Match> = rules.iter().flat_map(|rule| &rule.matches).collect();
    callers.sort_by_key(|caller| Reverse(caller.closeness()));
    callers.dedup();
    let said = callers.into_iter().map(|caller| {
        let general = rules.iter().filter(|rule| rule.matches.is_empty());
        let special = rules.iter().filter(|rule| rule.matches.contains(caller));
        let confs: Vec<Value> =
            general.chain(special).map(|rule| merge::json(&rule.conf)).collect();
        (caller.clone(), merge::merged(&confs))
    });
    said.collect()
}

/// A [`Policy`] without its type.
#[derive(Clone, Copy, Debug)]
pub struct PolicyKind {
    /// The kind.
    pub kind: Kind,
    /// When it runs.
    pub phase: Phase,
    parts: fn(&AnySpec) -> Parts,
    outbound: fn(&[&Value], &mut OutboundDraft),
    inbound: fn(&[InboundRule<Value>], &mut InboundDraft),
    proxy: fn(&[&Value], &mut ProxyDraft),
}

/// What a spec says, with settings as JSON, in which they are merged.
#[derive(Debug, Default)]
struct Parts {
    target: Option<TargetRef>,
    to: Vec<(ToRef, Value)>,
    rules: Vec<(Vec<Match>, Value)>,
    conf: Option<Value>,
}

impl PolicyKind {
    /// The descriptor of `P`.
    #[must_use]
    pub const fn of<P: Policy>() -> Self {
        Self {
            kind: Kind::of::<P>(),
            phase: P::PHASE,
            parts: parts::<P>,
            outbound: outbound_of::<P>,
            inbound: inbound_of::<P>,
            proxy: proxy_of::<P>,
        }
    }

    /// Reads a resource of this kind.
    pub fn read(&self, resource: &Resource) -> Result<Applied, RejectedSpec> {
        let parts = (self.parts)(&self.kind.decode(&resource.spec)?);
        Ok(Applied::new(*self, &resource.head, parts))
    }
}

fn parts<P: Policy>(spec: &AnySpec) -> Parts {
    let spec = spec.downcast_ref::<P>().expect("a kind's table holds only specs of that kind");
    let to = spec.to().iter().map(|to| (to.target_ref.clone(), merge::json(&to.default)));
    let rules = spec.rules().iter().map(|rule| (rule.matches.clone(), merge::json(&rule.default)));
    Parts {
        target: spec.target_ref().cloned(),
        to: to.collect(),
        rules: rules.collect(),
        conf: spec.conf().map(merge::json),
    }
}

fn proxy_of<P: Policy>(confs: &[&Value], draft: &mut ProxyDraft) {
    P::shape_proxy(&merge::merged(confs.iter().copied()), draft);
}

fn outbound_of<P: Policy>(confs: &[&Value], draft: &mut OutboundDraft) {
    P::shape_outbound(&merge::merged(confs.iter().copied()), draft);
}

fn inbound_of<P: Policy>(rules: &[InboundRule<Value>], draft: &mut InboundDraft) {
    let typed = |rule: &InboundRule<Value>| InboundRule {
        policy: rule.policy.clone(),
        matches: rule.matches.clone(),
        conf: merge::merged([&rule.conf]),
    };
    let rules: Vec<InboundRule<P::Conf>> = rules.iter().map(typed).collect();
    P::shape_inbound(&rules, draft);
}

/// Sorts policies as they apply. The result does not depend on the order they came in.
pub fn sort(policies: &mut [Arc<Applied>]) {
    policies.sort_unstable_by(|a, b| a.order.cmp(&b.order));
}

/// What `policies` say about a destination, for a proxy that all of them select. They must be
/// [sorted](sort).
#[must_use]
pub fn outbound(policies: &[Arc<Applied>], facts: &DestinationFacts<'_>) -> OutboundDraft {
    let mut draft = OutboundDraft::default();
    for same_kind in by_kind(policies) {
        let mut items: Vec<_> = same_kind.iter().flat_map(|policy| policy.items(facts)).collect();
        // The display name decides last, after what each item selects: stable.
        items.sort_by(|a, b| a.0.attributes().cmp(&b.0.attributes()).then(a.1.cmp(&b.1)));
        let confs: Vec<&Value> = items.into_iter().map(|(_, _, conf)| conf).collect();
        if let (Some(policy), false) = (same_kind.first(), confs.is_empty()) {
            (policy.kind.outbound)(&confs, &mut draft);
        }
    }
    draft
}

/// What `policies` say about an inbound, of a proxy that all of them select. They must be
/// [sorted](sort).
#[must_use]
pub fn inbound(policies: &[Arc<Applied>], facts: &InboundFacts<'_>) -> InboundDraft {
    let mut draft = InboundDraft::default();
    for same_kind in by_kind(policies) {
        let rules: Vec<_> = same_kind.iter().flat_map(|policy| policy.rules(facts)).collect();
        if let (Some(policy), false) = (same_kind.first(), rules.is_empty()) {
            (policy.kind.inbound)(&rules, &mut draft);
        }
    }
    draft
}

/// What `policies` say about a proxy as a whole, if all of them select it. They must be
/// [sorted](sort).
#[must_use]
pub fn proxy(policies: &[Arc<Applied>]) -> ProxyDraft {
    let mut draft = ProxyDraft::default();
    for same_kind in by_kind(policies) {
        let confs: Vec<&Value> = same_kind.iter().filter_map(|policy| policy.conf()).collect();
        if let (Some(policy), false) = (same_kind.first(), confs.is_empty()) {
            (policy.kind.proxy)(&confs, &mut draft);
        }
    }
    draft
}

fn by_kind(policies: &[Arc<Applied>]) -> impl Iterator<Item = &[Arc<Applied>]> {
    policies.chunk_by(|a, b| a.kind.kind.name.cmp(b.kind.kind.name) == Ordering::Equal)
}
