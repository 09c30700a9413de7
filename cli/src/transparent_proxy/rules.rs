//! The rules of nftables that hand the connections of this machine to its sidecar.
//!
//! One table for both address families, replaced as a whole in one transaction: there is no moment
//! with half of the rules, and to install twice is to install once.

use ipnet::IpNet;
use std::{fmt, net::IpAddr, str::FromStr};

/// The table that holds every rule of ours, and nothing else.
const TABLE: &str = "inet atoll";

/// What is open when the rules come: the kernel may not have kept track of it until now, and would take
/// its next packet for the first one.
const OPEN: &str = "tcp flags & (fin | syn | rst | ack) != syn return";

/// Which addresses are redirected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Families {
    /// IPv4 and IPv6.
    #[default]
    Dualstack,
    /// IPv4 only.
    Ipv4,
}

/// One port, or all from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    first: u16,
    last: u16,
}

/// What is redirected, and where to.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The user id of the sidecar and its Envoy.
    pub(crate) proxy: u32,
    pub(crate) families: Families,
    /// Where Envoy takes what leaves.
    pub(crate) outbound: u16,
    /// Where it takes what arrives.
    pub(crate) inbound: Option<u16>,
    /// Where the sidecar answers questions for names.
    pub(crate) dns: Option<u16>,
    pub(crate) leaving: Excluded,
    pub(crate) arriving: Excluded,
    /// User ids of programs that are left alone.
    pub(crate) users: Vec<u32>,
    /// And those who are only for some ports.
    pub(crate) for_users: Vec<ForUsers>,
}

/// What programs of some users call directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForUsers {
    /// As a rule says it; empty: each protocol.
    protocol: &'static str,
    /// None: all.
    ports: Vec<Ports>,
    /// First and last of each range.
    users: Vec<(u32, u32)>,
}

/// What is not redirected in one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Excluded {
    pub(crate) ports: Vec<Ports>,
    /// Those whom a connection goes to if it leaves, and comes from if it arrives.
    pub(crate) networks: Vec<IpNet>,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
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
}

impl FromStr for ForUsers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').map(str::trim).collect();
        let (protocol, ports, users) = match parts[..] {
            [users] => ("*", "*", users),
            [ports, users] => ("*", ports, users),
            [protocol, ports, users] => (protocol, ports, users),
            _ => return Err(format!("{text:?} is not of the form tcp:ports:users")),
        };
        let protocol = match protocol {
            "" | "*" => "",
            "tcp" => "tcp",
            "udp" => "udp",
            other => return Err(format!("{other:?} is neither tcp nor udp")),
        };
        let ports = match ports {
            "" | "*" => Vec::new(),
            ports => ports.split(',').map(str::parse).collect::<Result<_, _>>()?,
        };
        let user = |text: &str| text.parse().map_err(|_| format!("{text:?} is no user's number"));
        let users = users.split(',').map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (user(first)?, user(last)?);
            if first > last {
                Err(format!("{range:?} ends before it begins"))
            } else {
                Ok((first, last))
            }
        });
        Ok(Self { protocol, ports, users: users.collect::<Result<_, _>>()? })
    }
}

impl ForUsers {
    fn rules(&self) -> Vec<String> {
        let Self { protocol, ports, users } = self;
        let of = users.iter().map(|(first, last)| match first == last {
            true => format!("meta skuid {first}"),
            false => format!("meta skuid {first}-{last}"),
        });
        let what = match (*protocol, ports.is_empty()) {
            ("", true) => vec![String::new()],
            (protocol, true) => vec![format!(" meta l4proto {protocol}")],
            ("", false) => {
                let any = " meta l4proto { tcp, udp } th dport";
                ports.iter().map(|ports| format!("{any} {ports}")).collect()
            }
            (protocol, false) => {
                ports.iter().map(|ports| format!(" {protocol} dport {ports}")).collect()
            }
        };
        of.flat_map(|of| what.iter().map(move |what| format!("{of}{what} return"))).collect()
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

/// An address, or a network such as `10.0.0.0/8`.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse());
    network.map_err(|_| format!("{text:?} is no address, and no network such as 10.0.0.0/8"))
}

impl Excluded {
    /// Rules of their own: elements of a set must not overlap.
    fn rules(&self, end: &str) -> impl Iterator<Item = String> {
        let networks = self.networks.iter().map(move |network| {
            let family = if network.addr().is_ipv4() { "ip" } else { "ip6" };
            format!("{family} {end} {} return", network.trunc())
        });
        networks.chain(self.ports.iter().map(|ports| format!("tcp dport {ports} return")))
    }
}

impl Plan {
    /// The script for `nft -f`, with what each chain is for.
    pub(crate) fn script(&self) -> String {
        let chains =
            [Some(self.leaving()), Some(self.of_proxy()), self.arriving(), Some(self.guard())];
        let chains: Vec<String> = chains.into_iter().flatten().collect();
        format!("{}table {TABLE} {{\n{}}}\n", removal(), chains.join("\n"))
    }

    /// Leaves the other family alone.
    fn family(&self) -> Option<String> {
        (self.families == Families::Ipv4).then(|| "meta nfproto ipv6 return".into())
    }

    /// Whether the sidecar calls its application from an address that the machine must have.
    pub(crate) fn needs_source(&self) -> bool {
        self.inbound.is_some() && self.families == Families::Dualstack
    }

    fn leaving(&self) -> String {
        let Self { proxy, outbound, .. } = self;
        let head = [
            "type nat hook output priority -100; policy accept;".into(),
            OPEN.into(),
            format!("meta skuid {proxy} goto of_proxy"),
        ];
        let users = self.users.iter().map(|user| format!("meta skuid {user} return"));
        let users = users.chain(self.for_users.iter().flat_map(ForUsers::rules));
        // Before what is local is left alone: the resolver of a machine often is.
        let dns = self
            .dns
            .map(|port| format!("meta l4proto {{ tcp, udp }} th dport 53 redirect to :{port}"));
        let local = ["meta l4proto != tcp return".into(), "oifname \"lo\" return".into()];
        let rest = [format!("meta l4proto tcp redirect to :{outbound}")];
        let rules = head.into_iter().chain(users).chain(self.family()).chain(dns).chain(local);
        let rules = rules.chain(self.leaving.rules("daddr")).chain(rest);
        chain("leaving", "What programs of this machine open.", rules)
    }

    /// Envoy calls its own workload from an address of its own; who else it calls here is a service of
    /// the mesh on this machine, and its policies count.
    fn of_proxy(&self) -> String {
        let to_itself = [("ip", "127.0.0.0/8", "127.0.0.6"), ("ip6", "::1", "::6")];
        let rules = self.inbound.into_iter().flat_map(|inbound| {
            to_itself.map(|(family, local, own)| {
                format!(
                    "oifname \"lo\" {family} daddr != {local} {family} saddr != {own} \
                     meta l4proto tcp redirect to :{inbound}"
                )
            })
        });
        chain("of_proxy", "What the sidecar opens.", self.family().into_iter().chain(rules))
    }

    fn arriving(&self) -> Option<String> {
        let inbound = self.inbound?;
        let head = [
            "type nat hook prerouting priority -100; policy accept;".into(),
            "meta l4proto != tcp return".into(),
            OPEN.into(),
            "iifname \"lo\" return".into(),
            // What is only routed here.
            "fib daddr type != local return".into(),
        ];
        let rest = [format!("meta l4proto tcp redirect to :{inbound}")];
        let rules = head.into_iter().chain(self.family()).chain(self.arriving.rules("saddr"));
        let about = "What comes to this machine.";
        Some(chain("arriving", about, rules.chain(rest)))
    }

    /// Who calls Envoy's ports by themselves would be handed on to them, again and again.
    fn guard(&self) -> String {
        let ports = [Some(self.outbound), self.inbound].into_iter().flatten();
        let rules = ports.map(|port| {
            format!("tcp dport {port} ct state new ct status & dnat == 0 reject with tcp reset")
        });
        let head = ["type filter hook input priority 0; policy accept;".into()];
        let about = "Envoy's ports are for what was redirected.";
        chain("guard", about, head.into_iter().chain(rules))
    }
}

fn chain(name: &str, about: &str, rules: impl Iterator<Item = String>) -> String {
    let rules: String = rules.map(|rule| format!("    {rule}\n")).collect();
    format!("  # {about}\n  chain {name} {{\n{rules}  }}\n")
}

/// The script for `nft -f` that takes away every rule, whether there are any or not.
pub(crate) fn removal() -> String {
    // To delete what is not there is an error; to make what is there is none.
    format!("table {TABLE}\ndelete table {TABLE}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            proxy: 5678,
            families: Families::Dualstack,
            outbound: 15001,
            inbound: Some(15006),
            dns: Some(15053),
            leaving: Excluded::default(),
            arriving: Excluded { ports: vec!["22".parse().unwrap()], networks: Vec::new() },
            users: Vec::new(),
            for_users: Vec::new(),
        }
    }

    #[test]
    fn some_users_call_some_ports_directly() {
        let rules = |text: &str| text.parse::<ForUsers>().map(|it| it.rules());
        assert_eq!(rules("7").unwrap(), ["meta skuid 7 return"]);
        assert_eq!(rules("udp:*:7").unwrap(), ["meta skuid 7 meta l4proto udp return"]);
        let expected = ["meta skuid 7 meta l4proto { tcp, udp } th dport 53 return"];
        assert_eq!(rules("53:7").unwrap(), expected);
        let expected = [
            "meta skuid 7 tcp dport 80 return",
            "meta skuid 7 tcp dport 90-99 return",
            "meta skuid 1000-2000 tcp dport 80 return",
            "meta skuid 1000-2000 tcp dport 90-99 return",
        ];
        assert_eq!(rules("tcp:80,90-99:7,1000-2000").unwrap(), expected);
        for text in ["icmp:1:1", "0:1", "tcp:80:root", "a:b:c:d", "", "tcp:80:", "9-8"] {
            assert!(rules(text).is_err(), "{text}");
        }
        let plan = Plan { for_users: vec!["tcp:80:7".parse().unwrap()], ..plan() };
        let script = plan.script();
        let at = |rule: &str| script.find(rule).unwrap();
        assert!(at("meta skuid 7 tcp dport 80 return") < at("th dport 53 redirect"), "{script}");
    }

    #[test]
    fn everything_is_redirected_but_the_proxy_and_what_is_local() {
        let expected = "\
table inet atoll
delete table inet atoll
table inet atoll {
  # What programs of this machine open.
  chain leaving {
    type nat hook output priority -100; policy accept;
    tcp flags & (fin | syn | rst | ack) != syn return
    meta skuid 5678 goto of_proxy
    meta l4proto { tcp, udp } th dport 53 redirect to :15053
    meta l4proto != tcp return
    oifname \"lo\" return
    meta l4proto tcp redirect to :15001
  }

  # What the sidecar opens.
  chain of_proxy {
    oifname \"lo\" ip daddr != 127.0.0.0/8 ip saddr != 127.0.0.6 meta l4proto tcp redirect to :15006
    oifname \"lo\" ip6 daddr != ::1 ip6 saddr != ::6 meta l4proto tcp redirect to :15006
  }

  # What comes to this machine.
  chain arriving {
    type nat hook prerouting priority -100; policy accept;
    meta l4proto != tcp return
    tcp flags & (fin | syn | rst | ack) != syn return
    iifname \"lo\" return
    fib daddr type != local return
    tcp dport 22 return
    meta l4proto tcp redirect to :15006
  }

  # Envoy's ports are for what was redirected.
  chain guard {
    type filter hook input priority 0; policy accept;
    tcp dport 15001 ct state new ct status & dnat == 0 reject with tcp reset
    tcp dport 15006 ct state new ct status & dnat == 0 reject with tcp reset
  }
}
";
        assert_eq!(plan().script(), expected);
    }

    #[test]
    fn what_is_excluded_comes_before_what_is_redirected() {
        let networks = ["10.1.2.3/8", "fd00::/8", "192.0.2.1"].map(|it| network(it).unwrap());
        let leaving = Excluded {
            ports: vec!["443".parse().unwrap(), "8000-8100".parse().unwrap()],
            networks: networks.to_vec(),
        };
        let all = Plan { leaving, users: vec![101], families: Families::Ipv4, ..plan() };
        let rules: Vec<String> = all.leaving().lines().map(|line| line.trim().to_owned()).collect();
        let at = |rule: &str| rules.iter().position(|it| it == rule).expect(rule);
        let redirect = at("meta l4proto tcp redirect to :15001");
        for rule in [
            "ip daddr 10.0.0.0/8 return",
            "ip6 daddr fd00::/8 return",
            "ip daddr 192.0.2.1/32 return",
            "tcp dport 443 return",
            "tcp dport 8000-8100 return",
        ] {
            assert!(at(rule) < redirect, "{rule}");
        }
        let dns = at("meta l4proto { tcp, udp } th dport 53 redirect to :15053");
        assert!(at("meta skuid 101 return") < dns);
        assert!(at("meta nfproto ipv6 return") < dns);
    }

    #[test]
    fn what_is_not_asked_for_has_no_rule() {
        let script = Plan { inbound: None, dns: None, ..plan() }.script();
        assert!(!script.contains("arriving") && !script.contains("dport 53"), "{script}");
        assert!(!script.contains("15006"), "{script}");
        // What the proxy opens still goes somewhere.
        assert!(script.contains("chain of_proxy {\n  }"), "{script}");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("0", "\"0\" is no port from 1 to 65535"),
            ("65536", "\"65536\" is no port from 1 to 65535"),
            ("http", "\"http\" is no port from 1 to 65535"),
            ("80-", "\"\" is no port from 1 to 65535"),
            ("90-80", "\"90-80\" ends before it begins"),
        ] {
            assert_eq!(text.parse::<Ports>().unwrap_err(), why);
        }
        for text in ["10.0.0.0/33", "cart", "", "::1/129", "10.0.0.0/8; flush ruleset"] {
            assert!(network(text).unwrap_err().contains("is no address"), "{text}");
        }
    }
}
