use super::{Backend, BackendType, MeshMetric, SelectorType};
use crate::{TelemetryRef, regex, rule};
use resource::Violations;

pub(super) fn validate(policy: &MeshMetric, violations: &mut Violations) {
    if let Some(target) = &policy.target_ref {
        target.check(false, violations);
    }
    let conf = &policy.default;
    for (i, application) in conf.applications.iter().flatten().enumerate() {
        let path = format_args!("spec.default.applications[{i}].port");
        rule::port(path, application.port, violations);
    }
    let profiles = conf.sidecar.iter().filter_map(|sidecar| sidecar.profiles.as_ref());
    for profiles in profiles {
        for (field, selectors) in [("exclude", &profiles.exclude), ("include", &profiles.include)] {
            let selectors = selectors.iter().flatten().enumerate();
            for (i, selector) in selectors.filter(|(_, it)| it.r#type == SelectorType::Regex) {
                let path = format_args!("spec.default.sidecar.profiles.{field}[{i}].match");
                regex::check(path, &selector.r#match, violations);
            }
        }
    }
    for (i, backend) in conf.backends.iter().flatten().enumerate() {
        check_backend(backend, &format!("spec.default.backends[{i}]"), violations);
    }
}

fn check_backend(backend: &Backend, path: &str, violations: &mut Violations) {
    match backend.r#type {
        BackendType::Prometheus => {
            let path = format!("{path}.prometheus");
            if let Some(scraper) = rule::defined(&path, backend.prometheus.as_ref(), violations) {
                rule::port(format_args!("{path}.port"), scraper.port, violations);
            }
        }
        BackendType::OpenTelemetry => {
            let path = format!("{path}.openTelemetry");
            let collector = backend.open_telemetry.as_ref();
            let Some(collector) = rule::defined(&path, collector, violations) else { return };
            let place = format!("{path}.backendRef");
            TelemetryRef::check(collector.backend_ref.as_ref(), &place, violations);
            rule::all_positive(
                &path,
                [("refreshInterval", collector.refresh_interval)],
                violations,
            );
        }
    }
}
