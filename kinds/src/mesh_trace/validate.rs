use super::{Backend, BackendType, MeshTrace, Sampling};
use crate::{TelemetryRef, rule, url::Url};
use resource::Violations;

pub(super) fn validate(policy: &MeshTrace, violations: &mut Violations) {
    if let Some(target) = &policy.target_ref {
        target.check(false, violations);
    }
    let (conf, path) = (&policy.default, "spec.default.backends");
    if let Some(backends) = rule::defined(path, conf.backends.as_ref(), violations) {
        if backends.len() > 1 {
            violations.add(path, "must have zero or one backend defined");
        }
        for (i, backend) in backends.iter().enumerate() {
            check_backend(backend, &format!("{path}[{i}]"), violations);
        }
    }
    for (i, tag) in conf.tags.iter().flatten().enumerate() {
        let path = format!("spec.default.tags[{i}]");
        rule::not_empty(format_args!("{path}.name"), &tag.name, violations);
        if tag.header.is_some() == tag.literal.is_some() {
            violations.add(path, "tag must have only one type defined: header, literal");
        }
    }
    let Some(Sampling { overall, client, random }) = &conf.sampling else { return };
    for (field, share) in [("client", client), ("random", random), ("overall", overall)] {
        if let Some(share) = share {
            rule::percentage(format_args!("spec.default.sampling.{field}"), share, violations);
        }
    }
}

fn check_backend(backend: &Backend, path: &str, violations: &mut Violations) {
    match backend.r#type {
        BackendType::Zipkin => {
            let path = format!("{path}.zipkin");
            let Some(zipkin) = rule::defined(&path, backend.zipkin.as_ref(), violations) else {
                return;
            };
            if zipkin.url.is_empty() {
                violations.add(format_args!("{path}.url"), "must not be empty");
            } else if Url::parse(&zipkin.url).is_none() {
                violations.add(format_args!("{path}.url"), "must be a valid url");
            }
        }
        BackendType::Datadog => {
            let path = format!("{path}.datadog");
            if let Some(agent) = rule::defined(&path, backend.datadog.as_ref(), violations) {
                check_agent(&agent.url, &format!("{path}.url"), violations);
            }
        }
        BackendType::OpenTelemetry => {
            let path = format!("{path}.openTelemetry");
            let collector = backend.open_telemetry.as_ref();
            if let Some(collector) = rule::defined(&path, collector, violations) {
                let path = format!("{path}.backendRef");
                TelemetryRef::check(collector.backend_ref.as_ref(), &path, violations);
            }
        }
    }
}

/// A Datadog agent is a host and a port.
fn check_agent(url: &str, path: &str, violations: &mut Violations) {
    let Some(url) = Url::parse(url) else { return violations.add(path, "must be a valid url") };
    if url.scheme != "http" {
        violations.add(path, "scheme must be http");
    }
    if url.port.is_empty() {
        violations.add(path, "port must be defined");
    } else if url.port().is_none() {
        violations.add(path, "port must be in the range [1, 65535]");
    }
    for (part, text) in [("user", url.user), ("path", url.rest)] {
        if !text.is_empty() {
            violations.add(path, format_args!("{part} must not be defined"));
        }
    }
}
