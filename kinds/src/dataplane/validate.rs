use super::{Dataplane, section};
use crate::rule;
use prost_types::Duration;
use proto::kuma::mesh::v1alpha1::dataplane::networking::{
    Gateway, Inbound, Listener, Outbound, TransparentProxying, inbound::ServiceProbe, listener,
    outbound::BackendRef, transparent_proxying::ReachableBackendRef,
};
use resource::Violations;
use std::{collections::BTreeSet, fmt, net::IpAddr};

const PROTOCOLS: [&str; 6] = ["tcp", "http", "http2", "grpc", "tls", "mysql"];
const SERVICES: [&str; 3] = ["MeshService", "MeshExternalService", "MeshMultiZoneService"];

pub(super) fn validate(dataplane: &Dataplane, violations: &mut Violations) {
    let Some(networking) = &dataplane.0.networking else {
        violations.add("networking", "must be set");
        return;
    };
    rule::address("networking.address", &networking.address, violations);
    if let Some(admin) = networking.admin.as_ref().filter(|admin| admin.port != 0) {
        rule::port("networking.admin.port", admin.port, violations);
    }
    if let Some(gateway) = &networking.gateway {
        validate_gateway(dataplane, gateway, violations);
    }
    let mut taken = Taken::default();
    for (i, inbound) in networking.inbound.iter().enumerate() {
        let path = format!("networking.inbound[{i}]");
        validate_inbound(&path, inbound, &networking.address, violations);
        taken.inbound(&path, inbound, &networking.address, violations);
    }
    for (i, listener) in networking.listeners.iter().enumerate() {
        let path = format!("networking.listeners[{i}]");
        validate_listener(&path, listener, violations);
        taken.listener(&path, listener, violations);
    }
    for (i, outbound) in networking.outbound.iter().enumerate() {
        validate_outbound(&format!("networking.outbound[{i}]"), outbound, violations);
    }
    if let Some(settings) = &networking.transparent_proxying {
        validate_transparent_proxying(settings, violations);
    }
}

fn validate_gateway(dataplane: &Dataplane, _gateway: &Gateway, violations: &mut Violations) {
    for (field, empty) in [
        ("inbound", dataplane.inbounds().is_empty()),
        ("listeners", dataplane.listeners().is_empty()),
    ] {
        if !empty {
            let path = format_args!("networking.{field}");
            violations.add(path, "must not be set for a gateway");
        }
    }
}

/// The names and addresses of what a proxy listens on.
#[derive(Default)]
struct Taken {
    sections: BTreeSet<String>,
    addresses: BTreeSet<(String, u32)>,
}

impl Taken {
    fn inbound(&mut self, path: &str, inbound: &Inbound, own: &str, violations: &mut Violations) {
        let address = if inbound.address.is_empty() { own } else { &inbound.address };
        self.section(path, &section(inbound), violations);
        self.address(path, address, inbound.port, violations);
    }

    fn listener(&mut self, path: &str, listener: &Listener, violations: &mut Violations) {
        let port = listener.port.to_string();
        let section = if listener.name.is_empty() { &port } else { &listener.name };
        self.section(path, section, violations);
        self.address(path, &listener.address, listener.port, violations);
    }

    fn section(&mut self, path: &str, section: &str, violations: &mut Violations) {
        if !self.sections.insert(section.to_owned()) {
            let path = format_args!("{path}.name");
            violations.add(
                path,
                format_args!(
                    "{section:?} is used twice: each inbound and listener needs a name of its own"
                ),
            );
        }
    }

    fn address(&mut self, path: &str, address: &str, port: u32, violations: &mut Violations) {
        // An address that is wrong by itself is reported elsewhere.
        let address =
            address.parse::<IpAddr>().map_or_else(|_| address.into(), |ip| ip.to_string());
        if port != 0 && !self.addresses.insert((address.clone(), port)) {
            let path = format_args!("{path}.port");
            violations.add(path, format_args!("{address} port {port} is used twice"));
        }
    }
}

fn validate_inbound(path: &str, inbound: &Inbound, own: &str, violations: &mut Violations) {
    rule::port(format_args!("{path}.port"), inbound.port, violations);
    if inbound.service_port != 0 {
        rule::port(format_args!("{path}.servicePort"), inbound.service_port, violations);
    }
    if !inbound.address.is_empty() {
        rule::ip(format_args!("{path}.address"), &inbound.address, violations);
    }
    if !inbound.service_address.is_empty() {
        let service = format!("{path}.serviceAddress");
        rule::ip(&service, &inbound.service_address, violations);
        let address = if inbound.address.is_empty() { own } else { &inbound.address };
        let port = if inbound.service_port == 0 { inbound.port } else { inbound.service_port };
        if inbound.service_address == address && port == inbound.port {
            violations
                .add(service, "serviceAddress and servicePort must differ from address and port");
        }
    }
    if !inbound.protocol.is_empty() && !PROTOCOLS.contains(&&*inbound.protocol) {
        let known = PROTOCOLS.join(", ");
        violations.add(format_args!("{path}.protocol"), format_args!("must be one of {known}"));
    }
    if let Some(probe) = &inbound.service_probe {
        validate_probe(&format!("{path}.serviceProbe"), probe, violations);
    }
}

fn validate_probe(path: &str, probe: &ServiceProbe, violations: &mut Violations) {
    for (field, duration) in [("interval", &probe.interval), ("timeout", &probe.timeout)] {
        let lasts = |it: &Duration| {
            it.seconds >= 0 && it.nanos >= 0 && it.seconds + i64::from(it.nanos) > 0
        };
        if duration.as_ref().is_some_and(|duration| !lasts(duration)) {
            must_be_positive(format_args!("{path}.{field}"), violations);
        }
    }
    for (field, threshold) in [
        ("unhealthyThreshold", probe.unhealthy_threshold),
        ("healthyThreshold", probe.healthy_threshold),
    ] {
        if threshold == Some(0) {
            must_be_positive(format_args!("{path}.{field}"), violations);
        }
    }
}

fn must_be_positive(path: impl fmt::Display, violations: &mut Violations) {
    violations.add(path, "must be greater than zero when defined");
}

fn validate_listener(path: &str, listener: &Listener, violations: &mut Violations) {
    if !matches!(listener.r#type(), listener::Type::ZoneIngress | listener::Type::ZoneEgress) {
        violations.add(format_args!("{path}.type"), "must be ZoneIngress or ZoneEgress");
    }
    rule::address(format_args!("{path}.address"), &listener.address, violations);
    rule::port(format_args!("{path}.port"), listener.port, violations);
}

fn validate_outbound(path: &str, outbound: &Outbound, violations: &mut Violations) {
    rule::port(format_args!("{path}.port"), outbound.port, violations);
    if !outbound.address.is_empty() {
        rule::ip(format_args!("{path}.address"), &outbound.address, violations);
    }
    let path = format!("{path}.backendRef");
    let Some(BackendRef { kind, name, port, labels }) = &outbound.backend_ref else {
        violations.add(path, "must be set");
        return;
    };
    validate_service(&path, kind, violations);
    if name.is_empty() == labels.is_empty() {
        violations.add(&path, "either name or labels must be set");
    }
    if kind != "MeshExternalService" || *port != 0 {
        rule::port(format_args!("{path}.port"), *port, violations);
    }
}

fn validate_service(path: &str, kind: &str, violations: &mut Violations) {
    if !SERVICES.contains(&kind) {
        let known = SERVICES.join(", ");
        violations.add(format_args!("{path}.kind"), format_args!("must be one of {known}"));
    }
}

fn validate_transparent_proxying(settings: &TransparentProxying, violations: &mut Violations) {
    const PATH: &str = "networking.transparentProxying";
    for (field, port) in [
        ("redirectPortInbound", settings.redirect_port_inbound),
        ("redirectPortOutbound", settings.redirect_port_outbound),
    ] {
        if port != 0 {
            rule::port(format_args!("{PATH}.{field}"), port, violations);
        }
    }
    let refs = settings.reachable_backends.as_ref().map_or(&[][..], |backends| &backends.refs);
    for (i, backend) in refs.iter().enumerate() {
        validate_reachable(&format!("{PATH}.reachableBackends.refs[{i}]"), backend, violations);
    }
}

fn validate_reachable(path: &str, backend: &ReachableBackendRef, violations: &mut Violations) {
    let ReachableBackendRef { kind, name, namespace, port, labels } = backend;
    validate_service(path, kind, violations);
    if name.is_empty() == labels.is_empty() {
        violations.add(path, "either name or labels must be set");
    }
    if name.is_empty() && !namespace.is_empty() {
        violations.add(format_args!("{path}.namespace"), "must not be set without a name");
    }
    if let Some(port) = port {
        rule::port(format_args!("{path}.port"), *port, violations);
    }
}
