use super::{Bundled, Ca, MeshIdentity, NoSpiffeId, Place, Provider, ProviderType};
use crate::{
    rule,
    template::{NotRendered, Template},
};
use resource::{Labels, Violations, label};
use std::fmt;

pub(super) fn validate(identity: &MeshIdentity, violations: &mut Violations) {
    let templates = identity.spiffe_id.as_ref();
    if let Some(text) = templates.and_then(|templates| templates.trust_domain.as_deref()) {
        trust_domain(identity, text, violations);
    }
    if let Some(text) = templates.and_then(|templates| templates.path.as_deref()) {
        path(identity, text, violations);
    }
    if let Some(given) = &identity.provider {
        provider(given, violations);
    }
}

const PLACE: Place<'_> = Place { mesh: "sample", zone: "sample", kubernetes: true };

fn trust_domain(identity: &MeshIdentity, text: &str, violations: &mut Violations) {
    const PATH: &str = "spec.spiffeID.trustDomain";
    match identity.trust_domain(PLACE, &Labels::default()) {
        // It may be there. A trust domain is one for all proxies, so it is the identity's label.
        Err(NoSpiffeId::Values(NotRendered::Label(_))) => {}
        Err(error) => violations.add(PATH, error),
        Ok(domain) if rule::is_host_name(&domain) => {}
        Ok(_) => violations.add(PATH, format_args!("{text:?} makes no trust domain")),
    }
}

fn path(identity: &MeshIdentity, text: &str, violations: &mut Violations) {
    const PATH: &str = "spec.spiffeID.path";
    let template = match text.parse::<Template>() {
        Ok(template) => template,
        Err(error) => return violations.add(PATH, error),
    };
    let mut labels = vec![(label::NAMESPACE, "x"), (label::SERVICE_ACCOUNT, "x")];
    labels.push((label::WORKLOAD, "x"));
    let keys = template.labels();
    labels.extend(keys.map(|key| (key, "x")));
    match identity.path(PLACE, &labels.into_iter().collect()) {
        Ok(path) if is_path(&path) => {}
        Ok(_) => violations.add(
            PATH,
            "must begin with a slash, and between slashes have letters, digits, '.', '-' and '_'",
        ),
        Err(error) => violations.add(PATH, error),
    }
}

fn is_path(path: &str) -> bool {
    let segment = |segment: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        !matches!(segment, "" | "." | "..") && segment.bytes().all(inner)
    };
    path.strip_prefix('/').is_some_and(|path| path.split('/').all(segment))
}

fn provider(provider: &Provider, violations: &mut Violations) {
    const PATH: &str = "spec.provider";
    match provider.kind {
        ProviderType::Bundled => match &provider.bundled {
            Some(settings) => bundled(settings, violations),
            None => must_be_set(format_args!("{PATH}.bundled"), "type is Bundled", violations),
        },
        ProviderType::Spire => {
            let agent = provider.spire.as_ref().and_then(|spire| spire.agent.as_ref());
            if let Some(timeout) = agent.and_then(|agent| agent.timeout) {
                rule::positive(format_args!("{PATH}.spire.agent.timeout"), timeout, violations);
            }
        }
        ProviderType::Extension => match &provider.extension {
            Some(extension) if extension.name.is_empty() => {
                violations.add(format_args!("{PATH}.extension.name"), "must not be empty");
            }
            Some(_) => {}
            None => must_be_set(format_args!("{PATH}.extension"), "type is Extension", violations),
        },
    }
}

fn bundled(bundled: &Bundled, violations: &mut Violations) {
    const PATH: &str = "spec.provider.bundled";
    let expiry = bundled.certificate_parameters.as_ref().and_then(|it| it.expiry);
    if let Some(expiry) = expiry {
        rule::positive(format_args!("{PATH}.certificateParameters.expiry"), expiry, violations);
    }
    match &bundled.ca {
        Some(_) if bundled.autogenerates() => {
            violations
                .add(format_args!("{PATH}.ca"), "must not be set when autogenerate is enabled");
        }
        Some(Ca { certificate, private_key }) => {
            for (name, source) in [("certificate", certificate), ("privateKey", private_key)] {
                let path = format!("{PATH}.ca.{name}");
                match source {
                    Some(source) => source.check(&path, violations),
                    None => violations.add(path, "must be set"),
                }
            }
        }
        None if !bundled.autogenerates() => {
            let path = format_args!("{PATH}.ca");
            must_be_set(path, "autogenerate is not enabled", violations);
        }
        None => {}
    }
}

fn must_be_set(path: impl fmt::Display, when: impl fmt::Display, violations: &mut Violations) {
    violations.add(path, format_args!("must be set when {when}"));
}
