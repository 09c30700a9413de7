//! What is redirected in a pod, and the container that sets it up.

use daemon::config::Problems;
use k8s_openapi::api::core::v1::Container;
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr};

const INBOUND: u16 = 15006;
const OUTBOUND: u16 = 15001;

/// What is redirected to the sidecar of a pod. The names are those of Kuma's configuration of
/// transparent proxying, so that a part of one can be given in an annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TransparentProxy {
    /// Whether anything is.
    pub enabled: bool,
    /// Which addresses are.
    pub ip_family_mode: Families,
    /// What is, and where to.
    pub redirect: Redirect,
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

impl Families {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Dualstack => "dualstack",
            Self::Ipv4 => "ipv4",
        }
    }
}

/// By direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Redirect {
    /// What comes to the pod.
    pub inbound: Direction,
    /// What the pod opens.
    pub outbound: Direction,
    /// Questions for names.
    pub dns: Dns,
}

/// One direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Direction {
    /// Whether it is redirected. What a pod opens always is.
    pub enabled: bool,
    /// Where Envoy takes it; 0: at the usual port, 15006 for what comes in and 15001 for the rest.
    pub port: u16,
    /// Ports, such as `22` or `9000-9100`, that are called directly.
    pub exclude_ports: Vec<PortRange>,
    /// Addresses or networks at the other end that are called, or call, directly.
    #[serde(rename = "excludePortsForIPs")]
    pub exclude_networks: Vec<Network>,
    /// Ports that programs of some users call directly, such as `tcp:9000:1000`.
    #[serde(rename = "excludePortsForUIDs")]
    pub exclude_for_users: Vec<ForUsers>,
}

/// Questions for names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Dns {
    /// Whether they are redirected.
    pub enabled: bool,
    /// Where the sidecar answers them.
    pub port: u16,
}

impl Default for TransparentProxy {
    fn default() -> Self {
        let (ip_family_mode, redirect) = (Families::default(), Redirect::default());
        Self { enabled: true, ip_family_mode, redirect }
    }
}

impl Default for Redirect {
    fn default() -> Self {
        let to = |port| Direction { port, ..Direction::default() };
        Self { inbound: to(INBOUND), outbound: to(OUTBOUND), dns: Dns::default() }
    }
}

impl Default for Direction {
    fn default() -> Self {
        Self {
            enabled: true,
            port: 0,
            exclude_ports: Vec::new(),
            exclude_networks: Vec::new(),
            exclude_for_users: Vec::new(),
        }
    }
}

impl Redirect {
    /// Where Envoy takes what comes to the pod; 0 if that is not redirected.
    #[must_use]
    pub const fn inbound_port(&self) -> u16 {
        match (self.inbound.enabled, self.inbound.port) {
            (false, _) => 0,
            (true, 0) => INBOUND,
            (true, port) => port,
        }
    }

    /// Where Envoy takes what the pod opens.
    #[must_use]
    pub const fn outbound_port(&self) -> u16 {
        if self.outbound.port == 0 { OUTBOUND } else { self.outbound.port }
    }

    /// Where the sidecar answers questions for names; 0 if they are not redirected.
    #[must_use]
    pub const fn dns_port(&self) -> u16 {
        if self.dns.enabled { self.dns.port } else { 0 }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self { enabled: true, port: 15053 }
    }
}

/// One port, or all from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// An address, or a network such as `10.0.0.0/8`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(String);

/// Ports that programs of some users call directly: `[tcp|udp:][ports:]users`, where `*` is each of
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "String")]
pub struct ForUsers(String);

/// Numbers stand in YAML with quotes or without.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Number(u64),
    Text(String),
}

impl Text {
    fn into_string(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl PortRange {
    /// Reads `80` or `8000-8100`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let port = |text: &str| match text.trim().parse() {
            Ok(port @ 1..) => Ok(port),
            _ => Err(format!("{text:?} is no port from 1 to 65535")),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(format!("{text:?} ends before it begins"));
        }
        Ok(Self { first, last })
    }

    /// Only this port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Whether the port is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

impl Network {
    /// Reads `10.0.0.1` or `10.0.0.0/8`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (address, bits) = text.split_once('/').unwrap_or((text, "0"));
        let most = match address.parse() {
            Ok(IpAddr::V4(_)) => Some(32),
            Ok(IpAddr::V6(_)) => Some(128),
            Err(_) => None,
        };
        let good = most.is_some_and(|most| bits.parse::<u8>().is_ok_and(|bits| bits <= most));
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("{text:?} is no address, and no network such as 10.0.0.0/8"))
        }
    }
}

impl ForUsers {
    /// Reads `tcp:80:1000`, `80:1000` or `1000`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let parts: Vec<&str> = text.split(':').collect();
        let (protocol, ports, users) = match parts[..] {
            [users] => ("*", "*", users),
            [ports, users] => ("*", ports, users),
            [protocol, ports, users] => (protocol, ports, users),
            _ => return Err(format!("{text:?} is not of the form tcp:ports:users")),
        };
        if !matches!(protocol, "" | "*" | "tcp" | "udp") {
            return Err(format!("{protocol:?} is neither tcp nor udp"));
        }
        if !matches!(ports, "" | "*") {
            for range in ports.split(',') {
                PortRange::parse(range)?;
            }
        }
        let user = |text: &str| text.parse::<u32>().is_ok();
        for range in users.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            if !user(first) || !user(last) {
                return Err(format!("{range:?} is no number of a user"));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<Text> for PortRange {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        Self::parse(&text.into_string())
    }
}

impl TryFrom<Text> for ForUsers {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        Self::parse(&text.into_string())
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.0
    }
}

impl From<ForUsers> for String {
    fn from(users: ForUsers) -> Self {
        users.0
    }
}

impl TransparentProxy {
    /// Reports every mistake, with its path.
    pub fn check(&self, problems: &mut Problems) {
        let Redirect { inbound, outbound, dns } = &self.redirect;
        if !outbound.enabled {
            problems.add("redirect.outbound.enabled", "must be true, or enabled false");
        }
        if !inbound.exclude_for_users.is_empty() {
            let reason = "who calls from elsewhere is no user of the pod";
            problems.add("redirect.inbound.excludePortsForUIDs", reason);
        }
        if dns.enabled && dns.port == 0 {
            problems.add("redirect.dns.port", "must be set");
        }
        let ports = [
            ("redirect.outbound.port", self.redirect.outbound_port()),
            ("redirect.inbound.port", self.redirect.inbound_port()),
            ("redirect.dns.port", self.redirect.dns_port()),
        ];
        for (i, (field, port)) in ports.iter().enumerate().filter(|(_, (_, port))| *port != 0) {
            if let Some((other, _)) = ports.iter().take(i).find(|(_, other)| other == port) {
                problems.add(field, format_args!("must not be that of {other}"));
            }
        }
    }

    /// The ports that the sidecar takes for it.
    pub(super) fn ports(&self) -> Vec<u16> {
        let redirect = &self.redirect;
        let all = [redirect.outbound_port(), redirect.inbound_port(), redirect.dns_port()];
        all.into_iter().filter(|port| *port != 0 && self.enabled).collect()
    }

    /// Whether what comes to a port of the pod comes to Envoy first.
    pub(super) fn takes(&self, port: u16) -> bool {
        let inbound = &self.redirect.inbound;
        let excluded = inbound.exclude_ports.iter().any(|range| range.contains(port));
        self.enabled && inbound.enabled && !excluded
    }

    /// What the program `atoll` is told to do in the pod.
    fn arguments(&self, uid: u32, direct: &[u16]) -> Vec<String> {
        let Redirect { inbound, outbound, dns } = &self.redirect;
        let mut arguments: Vec<String> = ["install", "transparent-proxy"].map(Into::into).into();
        let mut say = |flag: &str, value: Option<String>| {
            arguments.push(format!("--{flag}"));
            arguments.extend(value);
        };
        say("proxy-user", Some(uid.to_string()));
        say("ip-family-mode", Some(self.ip_family_mode.as_str().into()));
        say("redirect-outbound-port", Some(self.redirect.outbound_port().to_string()));
        if inbound.enabled {
            say("redirect-inbound-port", Some(self.redirect.inbound_port().to_string()));
        } else {
            say("no-redirect-inbound", None);
        }
        if dns.enabled {
            say("redirect-dns-port", Some(dns.port.to_string()));
        } else {
            say("no-redirect-dns", None);
        }
        let own = direct.iter().map(|port| PortRange::one(*port));
        let ports = own.chain(inbound.exclude_ports.iter().copied());
        for (flag, list) in [
            ("exclude-inbound-ports", joined(ports)),
            ("exclude-inbound-ips", joined(inbound.exclude_networks.iter().cloned())),
            ("exclude-outbound-ports", joined(outbound.exclude_ports.iter().copied())),
            ("exclude-outbound-ips", joined(outbound.exclude_networks.iter().cloned())),
        ] {
            if !list.is_empty() {
                say(flag, Some(list));
            }
        }
        for users in &outbound.exclude_for_users {
            say("exclude-outbound-ports-for-uids", Some(users.0.clone()));
        }
        arguments
    }

    /// The container that sets it up. `direct` are ports of the sidecar that kubelets call.
    pub(super) fn container(&self, settings: &super::Config, direct: &[u16]) -> Container {
        Container {
            name: super::INIT.into(),
            image: Some(settings.init_image.clone()),
            image_pull_policy: super::sidecar::pull_policy(settings),
            args: Some(self.arguments(settings.uid, direct)),
            resources: super::sidecar::resources(&settings.init_resources),
            // Of what root may do, only to change the rules of this pod's network.
            security_context: Some(super::sidecar::confined(0, &["NET_ADMIN"])),
            termination_message_policy: Some("FallbackToLogsOnError".into()),
            ..Container::default()
        }
    }
}

fn joined<T: Into<String>>(list: impl Iterator<Item = T>) -> String {
    list.map(Into::into).collect::<Vec<String>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_no_port_no_network_and_no_user_is_refused() {
        for text in ["0", "a", "65536", "9-8", "", "1-"] {
            assert!(PortRange::parse(text).is_err(), "{text}");
        }
        for text in ["10.0.0.0/33", "cart", "", "::1/129", "10.0.0.0/8; flush ruleset"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
        for text in ["icmp:1:1", "0:1", "tcp:80:root", "a:b:c:d", "", "tcp:80:"] {
            assert!(ForUsers::parse(text).is_err(), "{text}");
        }
        for text in ["1000", "*:1000", "tcp:80,90-99:1000-2000,7", "udp:*:0", "::5"] {
            assert!(ForUsers::parse(text).is_ok(), "{text}");
        }
        assert!(Network::parse("fd00::/8").is_ok() && Network::parse(" 10.0.0.1 ").is_ok());
    }

    #[test]
    fn ports_of_the_sidecar_differ() {
        let settings = json!({ "redirect": {
            "inbound": { "enabled": true, "port": 15001, "excludePorts": [22, "80-90"] },
            "outbound": { "enabled": false, "port": 15001 }, "dns": { "port": 0 },
        } });
        let settings: TransparentProxy = serde_json::from_value(settings).unwrap();
        let mut problems = Problems::default();
        TransparentProxy::default().check(&mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        settings.check(&mut problems);
        let found: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let expected = [
            "redirect.outbound.enabled: must be true, or enabled false",
            "redirect.dns.port: must be set",
            "redirect.inbound.port: must not be that of redirect.outbound.port",
        ];
        assert_eq!(found, expected);
        assert!(settings.takes(91) && !settings.takes(85));
    }
}
