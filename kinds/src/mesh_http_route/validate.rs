use super::{
    Filter, FilterType, Match, MeshHTTPRoute, PathMatch, PathMatchType, PathRewrite,
    PathRewriteType, QueryParamMatch, QueryParamMatchType, RequestMirror, RequestRedirect, Rule,
    UrlRewrite, spec::HOST,
};
use crate::{BackendKind, regex, rule};
use resource::Violations;
use std::{collections::BTreeSet, net::IpAddr};
use xds::ToKind;

/// What routes can be for.
pub(crate) const DESTINATIONS: [ToKind; 3] =
    [ToKind::MeshService, ToKind::MeshExternalService, ToKind::MeshMultiZoneService];

pub(super) fn validate(route: &MeshHTTPRoute, violations: &mut Violations) {
    if let Some(target) = &route.target_ref {
        target.check(false, violations);
    }
    for (i, to) in route.to.iter().enumerate() {
        let path = format!("spec.to[{i}]");
        to.target_ref.check(&DESTINATIONS, &format!("{path}.targetRef"), violations);
        for (i, one) in to.rules.iter().enumerate() {
            validate_rule(one, &format!("{path}.rules[{i}]"), violations);
        }
        if !to.hostnames.is_empty() {
            violations.add(format_args!("{path}.hostnames"), "must not be defined");
        }
    }
}

fn validate_rule(rule: &Rule, path: &str, violations: &mut Violations) {
    let matches = format!("{path}.matches");
    rule::items(&matches, rule.matches.len(), 1..=usize::MAX, violations);
    for (i, one) in rule.matches.iter().enumerate() {
        validate_match(one, &format!("{matches}[{i}]"), violations);
    }
    for (i, filter) in rule.default.filters.iter().flatten().enumerate() {
        let path = format!("{path}.default.filters[{i}]");
        validate_filter(filter, &rule.matches, &path, violations);
    }
    for (i, backend) in rule.default.backend_refs.iter().flatten().enumerate() {
        let path = format!("{path}.default.backendRefs[{i}]");
        backend.check(&BackendKind::DESTINATIONS, &path, violations);
    }
}

fn validate_match(one: &Match, path: &str, violations: &mut Violations) {
    if let Some(compared) = &one.path {
        validate_path(compared, &format!("{path}.path.value"), violations);
    }
    let mut taken = BTreeSet::new();
    for (i, QueryParamMatch { name, r#type, value }) in one.query_params.iter().enumerate() {
        let path = format!("{path}.queryParams[{i}]");
        rule::length(format_args!("{path}.name"), name, 1..=usize::MAX, violations);
        if !taken.insert(name) {
            let reason = format_args!("multiple entries for name {name}");
            violations.add(format_args!("{path}.name"), reason);
        }
        if *r#type == QueryParamMatchType::RegularExpression {
            regex::check(format_args!("{path}.value"), value, violations);
        }
    }
    for (i, header) in one.headers.iter().enumerate() {
        header.check(&format!("{path}.headers[{i}]"), violations);
    }
}

fn validate_path(compared: &PathMatch, path: &str, violations: &mut Violations) {
    let value = &*compared.value;
    rule::length(path, value, 1..=usize::MAX, violations);
    if compared.r#type == PathMatchType::RegularExpression {
        return regex::check(path, value, violations);
    }
    if value.is_empty() {
        return;
    }
    if compared.r#type == PathMatchType::PathPrefix && value != "/" && value.ends_with('/') {
        let reason = "does not need a trailing slash because only a `/`-separated prefix or an \
                      entire path is matched";
        violations.add(path, reason);
    }
    if !value.starts_with('/') {
        violations.add(path, "must be an absolute path");
    }
}

fn validate_filter(filter: &Filter, matches: &[Match], path: &str, violations: &mut Violations) {
    let (field, there) = match filter.r#type {
        FilterType::RequestHeaderModifier => {
            ("requestHeaderModifier", filter.request_header_modifier.is_some())
        }
        FilterType::ResponseHeaderModifier => {
            ("responseHeaderModifier", filter.response_header_modifier.is_some())
        }
        FilterType::RequestRedirect => ("requestRedirect", filter.request_redirect.is_some()),
        FilterType::UrlRewrite => ("urlRewrite", filter.url_rewrite.is_some()),
        FilterType::RequestMirror => ("requestMirror", filter.request_mirror.is_some()),
    };
    if !there {
        violations.add(format_args!("{path}.{field}"), "must be defined");
    }
    if let Some(modifier) = &filter.request_header_modifier {
        modifier.check(&format!("{path}.requestHeaderModifier"), violations);
    }
    if let Some(modifier) = &filter.response_header_modifier {
        modifier.check(&format!("{path}.responseHeaderModifier"), violations);
    }
    if let Some(redirect) = &filter.request_redirect {
        validate_redirect(redirect, matches, &format!("{path}.requestRedirect"), violations);
    }
    if let Some(rewrite) = &filter.url_rewrite {
        validate_rewrite(rewrite, matches, &format!("{path}.urlRewrite"), violations);
    }
    if let Some(RequestMirror { percentage, backend_ref }) = &filter.request_mirror {
        let path = format!("{path}.requestMirror");
        if let Some(percentage) = percentage {
            rule::percentage(format_args!("{path}.percentage"), percentage, violations);
        }
        let kinds = [BackendKind::MeshService];
        backend_ref.check(&kinds, &format!("{path}.backendRef"), violations);
    }
}

fn validate_redirect(
    redirect: &RequestRedirect,
    matches: &[Match],
    path: &str,
    violations: &mut Violations,
) {
    validate_path_rewrite(redirect.path.as_ref(), matches, path, violations);
    validate_hostname(redirect.hostname.as_deref(), path, violations);
    if let Some(port) = redirect.port {
        rule::range(format_args!("{path}.port"), port, 1..=65535, violations);
    }
}

fn validate_rewrite(
    rewrite: &UrlRewrite,
    matches: &[Match],
    path: &str,
    violations: &mut Violations,
) {
    validate_path_rewrite(rewrite.path.as_ref(), matches, path, violations);
    validate_hostname(rewrite.hostname.as_deref(), path, violations);
    if rewrite.host_to_backend_hostname == Some(true) {
        let path = format_args!("{path}.hostToBackendHostname");
        violations.add(path, "can only be set for gateways of the mesh, of which there are none");
    }
}

fn validate_path_rewrite(
    rewrite: Option<&PathRewrite>,
    matches: &[Match],
    path: &str,
    violations: &mut Violations,
) {
    let Some(rewrite) = rewrite else { return };
    let (field, there, kind) = match rewrite.r#type {
        PathRewriteType::ReplaceFullPath => {
            ("replaceFullPath", rewrite.replace_full_path.is_some(), "ReplaceFullPath")
        }
        PathRewriteType::ReplacePrefixMatch => {
            ("replacePrefixMatch", rewrite.replace_prefix_match.is_some(), "ReplacePrefixMatch")
        }
    };
    if !there {
        let path = format_args!("{path}.path.{field}");
        violations.add(path, format_args!("must be defined when type is {kind}"));
    }
    let is_prefix = |one: &Match| {
        one.path.as_ref().is_some_and(|path| path.r#type == PathMatchType::PathPrefix)
    };
    if rewrite.replace_prefix_match.is_some() && !matches.iter().all(is_prefix) {
        let path = format_args!("{path}.path.replacePrefixMatch");
        violations.add(path, "can only appear if all matches match a path prefix");
    }
}

fn validate_hostname(hostname: Option<&str>, path: &str, violations: &mut Violations) {
    let Some(hostname) = hostname else { return };
    let path = format!("{path}.hostname");
    if hostname.parse::<IpAddr>().is_ok() {
        return violations.add(path, "cannot be an IP address");
    }
    rule::length(&path, hostname, 1..=253, violations);
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(inner)
    };
    if !hostname.is_empty() && !hostname.split('.').all(label) {
        violations.add(path, format_args!("in body should match '{HOST}'"));
    }
}
