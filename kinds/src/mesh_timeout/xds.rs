use super::{Conf, MeshTimeout};
use crate::GoDuration;
use xds::{
    Rule, TargetRef, To,
    draft::{ClusterDraft, InboundDraft, ListenerDraft, OutboundDraft, RouteDraft},
    policy::{InboundRule, Phase, Policy, for_callers, for_everybody},
};

impl Policy for MeshTimeout {
    type Conf = Conf;
    const PHASE: Phase = Phase::Traffic;

    fn target_ref(&self) -> Option<&TargetRef> {
        self.target_ref.as_ref()
    }

    fn to(&self) -> &[To<Conf>] {
        &self.to
    }

    fn rules(&self) -> &[Rule<Conf>] {
        &self.rules
    }

    fn shape_outbound(conf: &Conf, draft: &mut OutboundDraft) {
        let OutboundDraft { cluster, listener, route } = draft;
        shape(conf, cluster, listener, route);
        let longest = conf.http.as_ref().and_then(|http| http.max_connection_duration);
        set(&mut cluster.max_connection_duration, longest);
    }

    fn shape_inbound(rules: &[InboundRule<Conf>], draft: &mut InboundDraft) {
        let conf = for_everybody(rules);
        let InboundDraft { cluster, listener, route, .. } = draft;
        shape(&conf, cluster, listener, route);
        draft.callers = for_callers(rules)
            .into_iter()
            .map(|(caller, conf)| {
                let mut route = route.clone();
                shape_route(&conf, &mut route);
                (caller, route)
            })
            .collect();
        let longest = conf.http.as_ref().and_then(|http| http.max_connection_duration);
        set(&mut listener.max_connection_duration, longest);
    }
}

fn shape(
    conf: &Conf,
    cluster: &mut ClusterDraft,
    listener: &mut ListenerDraft,
    route: &mut RouteDraft,
) {
    // Envoy refuses a cluster that connects for ever.
    let connect = conf.connection_timeout.filter(|timeout| !timeout.to_std().is_zero());
    set(&mut cluster.connect_timeout, connect);
    set(&mut cluster.idle_timeout, conf.idle_timeout);
    set(&mut listener.idle_timeout, conf.idle_timeout);
    let headers = conf.http.as_ref().and_then(|http| http.request_headers_timeout);
    set(&mut listener.request_headers_timeout, headers);
    shape_route(conf, route);
}

fn shape_route(conf: &Conf, route: &mut RouteDraft) {
    let Some(http) = &conf.http else { return };
    set(&mut route.timeout, http.request_timeout);
    set(&mut route.stream_idle_timeout, http.stream_idle_timeout);
    set(&mut route.max_stream_duration, http.max_stream_duration);
}

fn set(slot: &mut std::time::Duration, timeout: Option<GoDuration>) {
    if let Some(timeout) = timeout {
        *slot = timeout.to_std();
    }
}
