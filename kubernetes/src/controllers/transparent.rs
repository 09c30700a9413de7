//! What the annotations of a pod say about its traffic.

use super::{
    cluster::Map,
    complaint::Complaint,
    names::{self, is_yes},
};
use proto::kuma::mesh::v1alpha1::{
    EnvoyAdmin,
    dataplane::networking::{
        TransparentProxying,
        transparent_proxying::{IpFamilyMode, ReachableBackendRef, ReachableBackends},
    },
};
use serde::Deserialize;
use std::{collections::BTreeMap, fmt};

fn invalid(annotation: &str, reason: impl fmt::Display) -> Complaint {
    Complaint::warning("InvalidAnnotation", format_args!("{annotation}: {reason}"))
}

/// How the traffic of a pod is intercepted, and what it may reach.
pub(super) fn section(annotations: &Map) -> Result<Option<TransparentProxying>, Complaint> {
    let redirected = annotations.get(names::REDIRECTED).is_some_and(|value| is_yes(value));
    let port = |annotation, default| {
        if !redirected {
            return Ok(0);
        }
        Ok(number(annotations, annotation)?.unwrap_or(default))
    };
    let section = TransparentProxying {
        redirect_port_inbound: port(names::REDIRECT_INBOUND, 15006)?,
        redirect_port_outbound: port(names::REDIRECT_OUTBOUND, 15001)?,
        direct_access_services: direct_access(annotations),
        ip_family_mode: families(annotations)?.into(),
        reachable_backends: reachable(annotations)?,
    };
    Ok((section != TransparentProxying::default()).then_some(section))
}

/// Where Envoy's own port is.
pub(super) fn admin(annotations: &Map) -> Result<Option<EnvoyAdmin>, Complaint> {
    Ok(number(annotations, names::ADMIN_PORT)?.map(|port| EnvoyAdmin { port }))
}

/// A port; 0 where that means none.
fn number(annotations: &Map, annotation: &str) -> Result<Option<u32>, Complaint> {
    let Some(text) = annotations.get(annotation) else { return Ok(None) };
    let port: Result<u16, _> = text.trim().parse();
    port.map(|port| Some(port.into()))
        .map_err(|_| invalid(annotation, format_args!("{text:?} is not a port")))
}

fn direct_access(annotations: &Map) -> Vec<String> {
    let text = annotations.get(names::DIRECT_ACCESS).map_or("", String::as_str);
    let each = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    each.map(str::to_owned).collect()
}

fn families(annotations: &Map) -> Result<IpFamilyMode, Complaint> {
    let Some(text) = annotations.get(names::IP_FAMILIES) else {
        return Ok(IpFamilyMode::UnSpecified);
    };
    match text.to_ascii_lowercase().as_str() {
        "dualstack" => Ok(IpFamilyMode::DualStack),
        "ipv4" => Ok(IpFamilyMode::IPv4),
        "ipv6" => Ok(IpFamilyMode::IPv6),
        _ => Err(invalid(names::IP_FAMILIES, "must be dualstack, ipv4 or ipv6")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Backends {
    #[serde(default)]
    refs: Vec<Backend>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Backend {
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

fn reachable(annotations: &Map) -> Result<Option<ReachableBackends>, Complaint> {
    let Some(text) = annotations.get(names::REACHABLE) else { return Ok(None) };
    let Backends { refs } =
        serde_json::from_str(text).map_err(|error| invalid(names::REACHABLE, error))?;
    let each = refs.into_iter().map(|Backend { kind, name, namespace, port, labels }| {
        ReachableBackendRef { kind, name, namespace, port: port.map(u32::from), labels }
    });
    Ok(Some(ReachableBackends { refs: each.collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(&str, &str)]) -> Map {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn what_is_not_intercepted_has_no_ports_but_may_be_limited() {
        assert_eq!(section(&said(&[])), Ok(None));
        let ports = [(names::REDIRECT_INBOUND, "1"), (names::REDIRECT_OUTBOUND, "2")];
        assert_eq!(section(&said(&ports)), Ok(None));
        let nothing = section(&said(&[(names::REACHABLE, r#"{"refs":[]}"#)])).unwrap().unwrap();
        assert_eq!(nothing.reachable_backends, Some(ReachableBackends::default()));
        assert_eq!((nothing.redirect_port_inbound, nothing.redirect_port_outbound), (0, 0));
    }

    #[test]
    fn annotations_say_how_it_is_intercepted() {
        let annotations = said(&[
            (names::REDIRECTED, "enabled"),
            (names::REDIRECT_OUTBOUND, "15011"),
            (names::IP_FAMILIES, "ipv4"),
            (names::DIRECT_ACCESS, "db.shop, cache.shop,"),
            (
                names::REACHABLE,
                r#"{"refs":[{"kind":"MeshService","name":"db","namespace":"shop","port":5432}]}"#,
            ),
        ]);
        let expected = TransparentProxying {
            redirect_port_inbound: 15006,
            redirect_port_outbound: 15011,
            direct_access_services: vec!["db.shop".into(), "cache.shop".into()],
            ip_family_mode: IpFamilyMode::IPv4.into(),
            reachable_backends: Some(ReachableBackends {
                refs: vec![ReachableBackendRef {
                    kind: "MeshService".into(),
                    name: "db".into(),
                    namespace: "shop".into(),
                    port: Some(5432),
                    labels: BTreeMap::new(),
                }],
            }),
        };
        assert_eq!(section(&annotations), Ok(Some(expected)));
    }

    #[test]
    fn a_wrong_annotation_is_named() {
        for (annotation, value, reason) in [
            (names::REDIRECT_INBOUND, "x", "\"x\" is not a port"),
            (names::IP_FAMILIES, "ipx", "must be dualstack, ipv4 or ipv6"),
            (names::REACHABLE, "[", "EOF while parsing a list at line 1 column 1"),
            (
                names::REACHABLE,
                r#"{"refs":[{"kind":"MeshService","nam":"db"}]}"#,
                "unknown field `nam`, expected one of `kind`, `name`, `namespace`, `port`, `labels` at line 1 column 36",
            ),
        ] {
            let annotations = said(&[(names::REDIRECTED, "enabled"), (annotation, value)]);
            let complaint = section(&annotations).unwrap_err();
            assert_eq!(complaint, invalid(annotation, reason));
        }
        assert!(admin(&said(&[(names::ADMIN_PORT, "70000")])).is_err());
    }
}
