//! The Dataplane that the proxy stands beside, read from its file.

use crate::{
    config::Existing,
    probe::{Probe, Thresholds},
};
use prost::Message;
use prost_reflect::DynamicMessage;
use proto::kuma::mesh::v1alpha1::{
    Dataplane as Spec,
    dataplane::networking::{Inbound, listener},
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

/// What the file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataplane {
    /// Its mesh.
    pub mesh: String,
    /// Its name.
    pub name: String,
    /// All of it, as the control plane reads it; empty if that has it already.
    pub json: String,
    /// How the application behind each inbound is asked whether it is there, by the inbound's name.
    pub probes: BTreeMap<String, Probe>,
    /// Whether it is where other zones come in.
    pub is_zone_ingress: bool,
}

/// Why a Dataplane cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// Not YAML.
    #[error("not YAML")]
    Yaml(#[source] Box<serde_saphyr::Error>),
    /// Not an object with fields.
    #[error("not a resource")]
    NotAResource,
    /// Another kind.
    #[error("type: must be Dataplane, is {0:?}")]
    Kind(String),
    /// Missing or not a name.
    #[error("{field}: {value:?} is not a name: at most 253 of a-z, 0-9, '-' and '.'")]
    Name {
        /// `mesh` or `name`.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// A field that is not there, or has another type.
    #[error("not a Dataplane")]
    Spec(#[source] serde_json::Error),
    /// An inbound whose application cannot be asked.
    #[error(
        "networking.inbound[{index}]: {address:?} is not an IP address, so it cannot be probed"
    )]
    Address {
        /// Which one.
        index: usize,
        /// What stands there.
        address: String,
    },
}

impl Dataplane {
    /// What stands in a YAML file.
    pub fn parse(yaml: &str) -> Result<Value, DataplaneError> {
        serde_saphyr::from_str(yaml).map_err(|error| DataplaneError::Yaml(Box::new(error)))
    }

    /// Reads a resource. What only the control plane can judge is left to it.
    pub fn read(value: Value) -> Result<Self, DataplaneError> {
        let Value::Object(fields) = &value else { return Err(DataplaneError::NotAResource) };
        match fields.get("type").and_then(Value::as_str) {
            Some("Dataplane") => {}
            other => return Err(DataplaneError::Kind(other.unwrap_or_default().into())),
        }
        let text = |field| fields.get(field).and_then(Value::as_str).unwrap_or_default();
        let (mesh, name) = (named("mesh", text("mesh"))?, named("name", text("name"))?);
        let spec = spec(fields)?;
        let networking = spec.networking.unwrap_or_default();
        let mut probes = BTreeMap::new();
        for (index, inbound) in networking.inbound.iter().enumerate() {
            if let Some(probe) = probe(inbound, &networking.address, index)? {
                probes.insert(section(inbound), probe);
            }
        }
        let zone_ingress = i32::from(listener::Type::ZoneIngress);
        let is_zone_ingress = networking.listeners.iter().any(|l| l.r#type == zone_ingress);
        Ok(Self { mesh, name, json: value.to_string(), probes, is_zone_ingress })
    }

    /// One that the control plane has, of which only that knows more.
    pub fn existing(existing: &Existing) -> Result<Self, DataplaneError> {
        let mesh = named("mesh", &existing.mesh)?;
        let name = named("name", &existing.name)?;
        Ok(Self {
            mesh,
            name,
            json: String::new(),
            probes: BTreeMap::new(),
            is_zone_ingress: false,
        })
    }
}

fn named(field: &'static str, value: &str) -> Result<String, DataplaneError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    let good = bytes.len() <= 253 && edge(bytes.first()) && edge(bytes.last());
    if good && value.bytes().all(plain) {
        Ok(value.into())
    } else {
        Err(DataplaneError::Name { field, value: value.into() })
    }
}

fn spec(fields: &Map<String, Value>) -> Result<Spec, DataplaneError> {
    let spec: Map<String, Value> = fields
        .iter()
        .filter(|(key, _)| *key == "networking")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let message = proto::descriptors()
        .get_message_by_name("kuma.mesh.v1alpha1.Dataplane")
        .expect("the message is ours");
    let dynamic = DynamicMessage::deserialize(message, Value::Object(spec));
    let dynamic = dynamic.map_err(DataplaneError::Spec)?;
    Ok(Spec::decode(dynamic.encode_to_vec().as_slice()).expect("both are the same message"))
}

fn section(inbound: &Inbound) -> String {
    if inbound.name.is_empty() { inbound.port.to_string() } else { inbound.name.clone() }
}

fn probe(inbound: &Inbound, own: &str, index: usize) -> Result<Option<Probe>, DataplaneError> {
    let Some(probe) = inbound.service_probe.as_ref().filter(|probe| probe.tcp.is_some()) else {
        return Ok(None);
    };
    let host = [&inbound.service_address, &inbound.address].into_iter().find(|a| !a.is_empty());
    let host = host.map_or(own, String::as_str);
    let refused = || DataplaneError::Address { index, address: host.into() };
    let port = if inbound.service_port == 0 { inbound.port } else { inbound.service_port };
    let port = u16::try_from(port).map_err(|_| refused())?;
    let address = SocketAddr::new(host.parse().map_err(|_| refused())?, port);
    let time = |given: Option<&prost_types::Duration>, default| {
        given
            .and_then(|given| Duration::try_from(*given).ok())
            .filter(|d| !d.is_zero())
            .unwrap_or(default)
    };
    let count = |given: Option<u32>| given.unwrap_or(1).max(1);
    Ok(Some(Probe {
        address,
        interval: time(probe.interval.as_ref(), Duration::from_secs(1)),
        timeout: time(probe.timeout.as_ref(), Duration::from_secs(2)),
        thresholds: Thresholds {
            healthy: count(probe.healthy_threshold),
            unhealthy: count(probe.unhealthy_threshold),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CART: &str = "
type: Dataplane
mesh: shop
name: cart-1
labels: {kuma.io/workload: cart}
networking:
  address: 127.1.0.7
  inbound:
  - {name: http, port: 8080, servicePort: 18080, protocol: http, serviceProbe: {interval: 2s, tcp: {}}}
  - {port: 9000, serviceAddress: 127.0.0.1, serviceProbe: {timeout: 0.5s, healthyThreshold: 2, tcp: {}}}
  - {port: 9001}
";

    #[test]
    fn probes_are_those_of_the_inbounds() {
        let dataplane = Dataplane::read(Dataplane::parse(CART).unwrap()).unwrap();
        let probe = |address: &str, interval, timeout, healthy| Probe {
            address: address.parse().unwrap(),
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
            thresholds: Thresholds { healthy, unhealthy: 1 },
        };
        let expected = [
            ("9000".to_owned(), probe("127.0.0.1:9000", 1000, 500, 2)),
            ("http".to_owned(), probe("127.1.0.7:18080", 2000, 2000, 1)),
        ];
        assert_eq!(dataplane.probes, BTreeMap::from(expected));
        assert_eq!((dataplane.mesh.as_str(), dataplane.name.as_str()), ("shop", "cart-1"));
        assert!(!dataplane.is_zone_ingress);
        let json: Value = serde_json::from_str(&dataplane.json).unwrap();
        assert_eq!(json.pointer("/labels/kuma.io~1workload"), Some(&Value::from("cart")));
    }

    #[test]
    fn a_zone_ingress_has_such_a_listener() {
        let listener = "{type: ZoneIngress, address: 127.1.0.9, port: 10001}";
        let yaml = format!(
            "{{type: Dataplane, mesh: shop, name: ingress, networking: {{listeners: [{listener}]}}}}"
        );
        assert!(Dataplane::read(Dataplane::parse(&yaml).unwrap()).unwrap().is_zone_ingress);
    }

    #[test]
    fn what_is_no_dataplane_is_refused_by_field() {
        let error =
            |yaml: &str| Dataplane::parse(yaml).and_then(Dataplane::read).unwrap_err().to_string();
        assert_eq!(error("["), "not YAML");
        assert_eq!(error("[]"), "not a resource");
        assert_eq!(error("{type: Mesh}"), r#"type: must be Dataplane, is "Mesh""#);
        let name = r#"name: "../x" is not a name: at most 253 of a-z, 0-9, '-' and '.'"#;
        assert_eq!(error("{type: Dataplane, mesh: shop, name: ../x}"), name);
        let wrong = "{type: Dataplane, mesh: a, name: b, networking: {adress: 127.0.0.1}}";
        assert_eq!(error(wrong), "not a Dataplane");
        let inbound = "{address: cart.example, inbound: [{port: 80, serviceProbe: {tcp: {}}}]}";
        let yaml = format!("{{type: Dataplane, mesh: a, name: b, networking: {inbound}}}");
        let named =
            r#"networking.inbound[0]: "cart.example" is not an IP address, so it cannot be probed"#;
        assert_eq!(error(&yaml), named);
    }
}
