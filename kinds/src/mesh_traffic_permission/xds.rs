use super::{Conf, MeshTrafficPermission};
use xds::{
    Match, Rule, TargetRef,
    draft::{Grant, InboundDraft},
    policy::{InboundRule, Phase, Policy},
};

impl Policy for MeshTrafficPermission {
    type Conf = Conf;
    const PHASE: Phase = Phase::Traffic;

    fn target_ref(&self) -> Option<&TargetRef> {
        self.target_ref.as_ref()
    }

    fn rules(&self) -> &[Rule<Conf>] {
        &self.rules
    }

    // Nothing is merged: a later policy adds to what earlier ones said.
    fn shape_inbound(rules: &[InboundRule<Conf>], draft: &mut InboundDraft) {
        for rule in rules {
            let grant = |callers: &[Match]| {
                let (policy, callers) = ((*rule.policy).clone(), callers.to_vec());
                (!callers.is_empty()).then_some(Grant { policy, callers })
            };
            let Conf { deny, allow, allow_with_shadow_deny } = &rule.conf;
            draft.permissions.deny.extend(grant(deny));
            draft.permissions.allow.extend(grant(allow));
            draft.permissions.allow.extend(grant(allow_with_shadow_deny));
        }
    }
}
