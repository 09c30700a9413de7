use super::{Endpoint, MeshExternalService, Tls, Verification};
use crate::{DataSource, DataSourceType, rule};
use resource::Violations;
use std::net::IpAddr;

const PORTS: std::ops::RangeInclusive<i64> = 1..=65535;

pub(super) fn validate(service: &MeshExternalService, violations: &mut Violations) {
    rule::range("spec.match.port", service.r#match.port, PORTS, violations);
    if service.extension.as_ref().is_some_and(|extension| extension.r#type.is_empty()) {
        violations.add("spec.extension.type", "must not be empty");
    }
    // What is not an address may be one to an extension.
    let is_ours = service.extension.is_none();
    for (i, endpoint) in service.endpoints.iter().flatten().enumerate() {
        validate_endpoint(endpoint, is_ours, &format!("spec.endpoints[{i}]"), violations);
    }
    let Some(tls) = &service.tls else { return };
    if is_ours {
        validate_tls(tls, violations);
    }
    if let Some(verification) = &tls.verification {
        validate_sources(verification, violations);
    }
}

fn validate_endpoint(endpoint: &Endpoint, is_ours: bool, path: &str, violations: &mut Violations) {
    let Endpoint { address, port, priority } = endpoint;
    rule::length(format_args!("{path}.address"), address, 1..=usize::MAX, violations);
    let is_address = address.parse::<IpAddr>().is_ok() || rule::is_dns_name(address);
    if is_ours && !address.is_empty() && !is_address {
        let path = format_args!("{path}.address");
        violations.add(path, "address has to be a valid IP or hostname");
    }
    rule::range(format_args!("{path}.port"), *port, PORTS, violations);
    if let Some(priority) = priority {
        rule::range(format_args!("{path}.priority"), *priority, 0..=128, violations);
    }
}

fn validate_tls(tls: &Tls, violations: &mut Violations) {
    if let Some(version) = tls.version {
        version.check("spec.tls.version", violations);
    }
    let Some(verification) = &tls.verification else { return };
    const PATH: &str = "spec.tls.verification";
    if verification.server_name.as_ref().is_some_and(|name| !rule::is_dns_name(name)) {
        violations.add(format_args!("{PATH}.serverName"), "must be a valid DNS name");
    }
    match (&verification.client_cert, &verification.client_key) {
        (Some(_), None) => {
            let path = format_args!("{PATH}.clientKey");
            violations.add(path, "must be defined when clientCert is defined");
        }
        (None, Some(_)) => {
            let path = format_args!("{PATH}.clientCert");
            violations.add(path, "must be defined when clientKey is defined");
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
}

fn validate_sources(verification: &Verification, violations: &mut Violations) {
    let Verification { ca_cert, client_cert, client_key, .. } = verification;
    for (field, source) in
        [("caCert", ca_cert), ("clientCert", client_cert), ("clientKey", client_key)]
    {
        if let Some(source) = source {
            validate_source(source, &format!("spec.tls.verification.{field}"), violations);
        }
    }
}

/// Files and variables are those of the control plane, which are none of the author's business.
fn validate_source(source: &DataSource, path: &str, violations: &mut Violations) {
    match source.kind {
        DataSourceType::Secret | DataSourceType::InsecureInline => source.check(path, violations),
        DataSourceType::File | DataSourceType::EnvVar => {
            let path = format_args!("{path}.type");
            violations.add(path, "must be one of Secret, InsecureInline");
        }
    }
}
