use super::{
    Attribute, Backend, BackendType, Conf, Field, File, Format, FormatType, MeshAccessLog,
};
use crate::{
    TelemetryRef,
    policy::{DESTINATIONS_AND_ROUTES, check_direction},
    rule,
    url::Url,
};
use resource::Violations;
use serde::de::IgnoredAny;
use xds::target::{check_rules, check_to};

pub(super) fn validate(policy: &MeshAccessLog, violations: &mut Violations) {
    let MeshAccessLog { target_ref, to, rules } = policy;
    check_direction(target_ref.as_ref(), to, rules, violations);
    check_to(to, &DESTINATIONS_AND_ROUTES, violations, check_conf);
    check_rules(rules, violations, |rule, path, violations| {
        check_conf(&rule.default, path, violations);
    });
}

fn check_conf(conf: &Conf, path: &str, violations: &mut Violations) {
    let path = format!("{path}.backends");
    let Some(backends) = rule::defined(&path, conf.backends.as_ref(), violations) else { return };
    for (i, backend) in backends.iter().enumerate() {
        check_backend(backend, &format!("{path}[{i}]"), violations);
    }
}

fn check_backend(backend: &Backend, path: &str, violations: &mut Violations) {
    match backend.r#type {
        BackendType::File => {
            let path = format!("{path}.file");
            let Some(file) = rule::defined(&path, backend.file.as_ref(), violations) else {
                return;
            };
            let File { path: name, format } = file;
            check_format(format.as_ref(), &format!("{path}.format"), violations);
            if !rule::is_file_path(name) {
                violations.add(format_args!("{path}.path"), "must be an absolute path");
            }
        }
        BackendType::Tcp => {
            let path = format!("{path}.tcp");
            let Some(tcp) = rule::defined(&path, backend.tcp.as_ref(), violations) else { return };
            check_format(tcp.format.as_ref(), &format!("{path}.format"), violations);
            if !is_address(&tcp.address) {
                violations.add(format_args!("{path}.address"), "must be a host and a port");
            }
        }
        BackendType::OpenTelemetry => {
            let path = format!("{path}.openTelemetry");
            let collector = backend.open_telemetry.as_ref();
            let Some(collector) = rule::defined(&path, collector, violations) else { return };
            let place = format!("{path}.backendRef");
            TelemetryRef::check(collector.backend_ref.as_ref(), &place, violations);
            for (i, Attribute { key, .. }) in collector.attributes.iter().flatten().enumerate() {
                check_attribute(&format!("{path}.attributes[{i}].key"), key, violations);
            }
        }
    }
}

fn is_address(address: &str) -> bool {
    Url::parse(address).is_some_and(|url| {
        let mut violations = Violations::default();
        rule::address("", url.host, &mut violations);
        let plain = url.scheme.is_empty() && url.user.is_empty() && url.rest.is_empty();
        violations.is_empty() && plain && url.port().is_some()
    })
}

fn check_attribute(path: &str, name: &str, violations: &mut Violations) {
    if name.is_empty() {
        violations.add(path, "must be defined");
    } else if name.starts_with("otel.") {
        violations.add(path, "must not begin with 'otel.', which OpenTelemetry keeps for itself");
    } else if !is_attribute(name) {
        violations.add(
            path,
            "must begin with a lower case letter, have lower case letters, digits and single dots or underscores between them, and not end with one",
        );
    }
}

fn is_attribute(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split(['.', '_']).all(|part| !part.is_empty() && part.bytes().all(inner))
}

fn check_format(format: Option<&Format>, path: &str, violations: &mut Violations) {
    let Some(format) = format else { return };
    match format.r#type {
        FormatType::Plain => {
            let path = format!("{path}.plain");
            if let Some(text) = rule::defined(&path, format.plain.as_ref(), violations) {
                rule::not_empty(path, text, violations);
            }
        }
        FormatType::Json => {
            let path = format!("{path}.json");
            let Some(fields) = rule::defined(&path, format.json.as_ref(), violations) else {
                return;
            };
            if fields.is_empty() {
                violations.add(&path, "must not be empty");
            }
            for (i, Field { key, value }) in fields.iter().enumerate() {
                let path = format!("{path}[{i}]");
                rule::not_empty(format_args!("{path}.key"), key, violations);
                rule::not_empty(format_args!("{path}.value"), value, violations);
                // Both are written between quotation marks as they are.
                let object = format!(r#"{{"{key}": "{value}"}}"#);
                if serde_json::from_str::<IgnoredAny>(&object).is_err() {
                    violations.add(path, "is not a valid JSON object");
                }
            }
        }
    }
}
