//! The machine whose kernel hands its connections to the sidecar.

use daemon::config::Problems;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// What `atoll install transparent-proxy` redirects on the machine of a proxy, and where to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TransparentProxy {
    /// Whether it was installed.
    pub enabled: bool,
    /// Where Envoy takes what leaves.
    pub redirect_outbound_port: u16,
    /// Where Envoy takes what arrives; 0: that is not redirected.
    pub redirect_inbound_port: u16,
    /// Where questions for names are answered, by UDP and TCP; 0: they are not redirected.
    pub redirect_dns_port: u16,
    /// Which addresses are redirected.
    pub ip_family_mode: Families,
}

/// Families of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Families {
    /// IPv4 and IPv6.
    #[default]
    Dualstack,
    /// IPv4 only.
    Ipv4,
}

impl Default for TransparentProxy {
    fn default() -> Self {
        Self {
            enabled: false,
            redirect_outbound_port: 15001,
            redirect_inbound_port: 15006,
            redirect_dns_port: 15053,
            ip_family_mode: Families::default(),
        }
    }
}

impl TransparentProxy {
    pub(crate) fn check(&self, problems: &mut Problems) {
        if self.redirect_outbound_port == 0 {
            problems.add("redirectOutboundPort", "must be set");
        }
        if self.redirect_inbound_port == self.redirect_outbound_port {
            problems.add("redirectInboundPort", "must not be redirectOutboundPort");
        }
    }

    /// The same on a machine with or without IPv6: without it nothing of that can be redirected, and
    /// its ports cannot be bound.
    pub(crate) fn on_machine(self, has_ipv6: bool) -> Self {
        if !self.enabled || has_ipv6 || self.ip_family_mode == Families::Ipv4 {
            return self;
        }
        tracing::info!("this machine has no IPv6, so only IPv4 is redirected and answered");
        Self { ip_family_mode: Families::Ipv4, ..self }
    }

    /// Where questions for names come in. Not at any address: an answer must come from where the
    /// kernel sent the question.
    pub(crate) fn names(&self) -> Vec<SocketAddr> {
        let at = |port| {
            let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
            let v6 = (self.ip_family_mode == Families::Dualstack).then_some(v6);
            [SocketAddr::from((Ipv4Addr::LOCALHOST, port))].into_iter().chain(v6).collect()
        };
        match self.redirect_dns_port {
            port @ 1.. if self.enabled => at(port),
            _ => Vec::new(),
        }
    }

    /// Says it in a Dataplane, where that does not say something else.
    pub(crate) fn tell(&self, dataplane: &mut Value) {
        let Some(Value::Object(networking)) = dataplane.get_mut("networking") else { return };
        if !self.enabled {
            return;
        }
        let told = networking.entry("transparentProxying").or_insert_with(|| Map::new().into());
        let Value::Object(told) = told else { return };
        let families = match self.ip_family_mode {
            Families::Dualstack => "DualStack",
            Families::Ipv4 => "IPv4",
        };
        let inbound = self.redirect_inbound_port;
        for (field, value) in [
            ("redirectPortOutbound", Some(json!(self.redirect_outbound_port))),
            ("redirectPortInbound", (inbound != 0).then(|| json!(inbound))),
            ("ipFamilyMode", Some(families.into())),
        ] {
            if let Some(value) = value {
                told.entry(field).or_insert(value);
            }
        }
    }
}

/// Whether this machine can call itself by IPv6.
pub(crate) fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled() -> TransparentProxy {
        TransparentProxy { enabled: true, ..TransparentProxy::default() }
    }

    fn told(settings: &TransparentProxy, networking: Value) -> Value {
        let mut dataplane = json!({ "type": "Dataplane", "networking": networking });
        settings.tell(&mut dataplane);
        dataplane["networking"].take()
    }

    #[test]
    fn a_dataplane_says_where_its_machine_redirects() {
        let ports = json!({
            "redirectPortOutbound": 15001, "redirectPortInbound": 15006, "ipFamilyMode": "DualStack",
        });
        let address = json!({ "address": "10.0.0.1" });
        let expected = json!({ "address": "10.0.0.1", "transparentProxying": ports });
        assert_eq!(told(&enabled(), address.clone()), expected);
        assert_eq!(told(&TransparentProxy::default(), address.clone()), address);
        assert_eq!(told(&enabled(), "nonsense".into()), "nonsense", "left to who reads it");

        let only_out = TransparentProxy {
            redirect_inbound_port: 0,
            ip_family_mode: Families::Ipv4,
            ..enabled()
        };
        let expected = json!({ "redirectPortOutbound": 15001, "ipFamilyMode": "IPv4" });
        assert_eq!(told(&only_out, json!({})), json!({ "transparentProxying": expected }));
    }

    #[test]
    fn what_a_dataplane_says_itself_counts() {
        let own = json!({ "redirectPortOutbound": 25001, "reachableBackends": {} });
        let expected = json!({
            "redirectPortOutbound": 25001, "redirectPortInbound": 15006,
            "ipFamilyMode": "DualStack", "reachableBackends": {},
        });
        let networking = told(&enabled(), json!({ "transparentProxying": own }));
        assert_eq!(networking, json!({ "transparentProxying": expected }));
    }

    #[test]
    fn names_are_answered_on_the_machine_itself() {
        let names = |settings: &TransparentProxy| {
            settings.names().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(&enabled()), ["127.0.0.1:15053", "[::1]:15053"]);
        let ipv4 = TransparentProxy { ip_family_mode: Families::Ipv4, ..enabled() };
        assert_eq!(names(&ipv4), ["127.0.0.1:15053"]);
        assert_eq!(names(&enabled().on_machine(false)), ["127.0.0.1:15053"]);
        assert_eq!(names(&enabled().on_machine(true)), names(&enabled()));
        let none: [&str; 0] = [];
        assert_eq!(names(&TransparentProxy { redirect_dns_port: 0, ..enabled() }), none);
        assert_eq!(names(&TransparentProxy::default()), none);
    }

    #[test]
    fn mistakes_are_named() {
        let settings = TransparentProxy { redirect_outbound_port: 0, ..enabled() };
        let same = TransparentProxy { redirect_inbound_port: 15001, ..enabled() };
        let mut problems = Problems::default();
        settings.check(&mut problems);
        same.check(&mut problems);
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let expected = [
            "redirectOutboundPort: must be set",
            "redirectInboundPort: must not be redirectOutboundPort",
        ];
        assert_eq!(problems, expected);
    }
}
