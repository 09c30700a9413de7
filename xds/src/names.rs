//! Names of Envoy's resources and of servers in TLS.
//!
//! What belongs to a service is named by its KRI with the port as section, and by [`direct`] and
//! [`direct_listener`] what belongs to its replicas one by one; what belongs to the proxy itself by
//! [`inbound`], [`ingress`], [`passthrough_outbound`] and [`passthrough_inbound`].

use resource::Kri;
use std::{fmt, net::SocketAddr, sync::Arc};

/// The secret that says which certificates of others count.
pub const TRUST_BUNDLE: &str = "system_trust_bundle";
/// The cluster that is the SPIRE agent beside a proxy. It stands in the bootstrap: Envoy takes secrets
/// from no cluster that came later.
pub const SPIRE_AGENT: &str = "system_identity_sds-spire-agent";
/// The runtime layer by which open connections are cut.
pub const RUNTIME: &str = "system_runtime";

/// Where a connection goes that arrives and is for nobody: a cluster that there never is.
pub const NO_DESTINATION: &str = "self_transparentproxy_no_destination_inbound";

const DIRECT: &str = "direct_access_";

const LABEL: usize = 63;
const HOST: usize = 253;
const WITH_SNI: [&str; 3] = ["msvc", "mzsvc", "extsvc"];

/// Listener, route, cluster, secret and permissions of an inbound.
#[must_use]
pub fn inbound(section: &str) -> String {
    format!("self_inbound_dp_{section}")
}

/// Listener and cluster of what the kernel redirects on its way out, by the version of IP.
#[must_use]
pub fn passthrough_outbound(version: u8) -> String {
    format!("self_transparentproxy_passthrough_outbound_ipv{version}")
}

/// Listener and cluster of what the kernel redirects on its way in, by the version of IP.
#[must_use]
pub fn passthrough_inbound(version: u8) -> String {
    format!("self_transparentproxy_passthrough_inbound_ipv{version}")
}

/// The listener of a zone ingress.
#[must_use]
pub fn ingress(section: &str) -> String {
    format!("self_zoneingress_dp_{section}")
}

/// Cluster and route of a port of a service whose replicas are called at their own addresses.
#[must_use]
pub fn direct(destination: &str) -> String {
    format!("{DIRECT}{destination}")
}

/// The listener of a replica that is called at its own address.
#[must_use]
pub fn direct_listener(address: SocketAddr) -> String {
    direct(&address.to_string())
}

/// The destination of [`direct`], or the address of [`direct_listener`].
#[must_use]
pub fn directed(name: &str) -> Option<&str> {
    name.strip_prefix(DIRECT)
}

/// The server name by which a port of a service is asked for, `sni.msvc.shop.east.cart.http`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sni(Arc<str>);

impl Sni {
    /// What every server name of a service begins with.
    pub const PREFIX: &str = "sni.";

    /// The server name of a port, whose name or number is the KRI's section.
    pub fn of(kri: &Kri) -> Result<Self, InvalidSni> {
        let Kri { short, mesh, zone, namespace, name, section } = kri;
        if !WITH_SNI.contains(&&**short) {
            return Err(InvalidSni::Kind(short.clone()));
        }
        if !namespace.is_empty() && zone.is_empty() {
            return Err(InvalidSni::NamespaceWithoutZone(namespace.clone()));
        }
        let optional = [zone, namespace].into_iter().filter(|part| !part.is_empty());
        let labels: Vec<&String> = [mesh].into_iter().chain(optional).chain([name]).collect();
        if let Some(bad) = labels.iter().find(|part| !is_label(part)) {
            return Err(InvalidSni::Part((**bad).clone()));
        }
        if !is_label(section) && !is_port(section) {
            return Err(InvalidSni::Part(section.clone()));
        }
        let mut text = format!("{}{short}", Self::PREFIX);
        for part in labels.into_iter().chain([section]) {
            text.push('.');
            text.push_str(part);
        }
        if text.len() > HOST {
            return Err(InvalidSni::TooLong(text));
        }
        Ok(Self(text.into()))
    }

    /// The name as it stands in a TLS handshake.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Sni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(part: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    part.len() <= LABEL
        && part.starts_with(|c: char| c.is_ascii_lowercase())
        && !part.ends_with('-')
        && part.bytes().all(inner)
}

fn is_port(part: &str) -> bool {
    (1..=5).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
}

/// Why a port of a service has no server name.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidSni {
    /// Only services have one.
    #[error("{0:?} is no kind of service")]
    Kind(String),
    /// A part of it cannot stand in a host name.
    #[error(
        "{0:?} cannot be part of a server name: at most 63 of a-z, 0-9 and '-', starting with a letter and not ending with '-'"
    )]
    Part(String),
    /// It would read like that of another service.
    #[error("namespace {0:?} without a zone")]
    NamespaceWithoutZone(String),
    /// It is longer than a host name may be.
    #[error("{0:?} is longer than 253 characters")]
    TooLong(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sni(kri: &str) -> Result<String, InvalidSni> {
        Sni::of(&kri.parse().unwrap()).map(|sni| sni.to_string())
    }

    #[test]
    fn a_server_name_says_where_its_service_comes_from() {
        let cases = [
            ("kri_mzsvc_shop___cart_http", "sni.mzsvc.shop.cart.http"),
            ("kri_msvc_shop_east__cart_http", "sni.msvc.shop.east.cart.http"),
            ("kri_msvc_shop_k1_web_cart_80", "sni.msvc.shop.k1.web.cart.80"),
            ("kri_extsvc_shop___psp_443", "sni.extsvc.shop.psp.443"),
        ];
        for (kri, name) in cases {
            assert_eq!(sni(kri).as_deref(), Ok(name));
        }
    }

    #[test]
    fn what_is_called_directly_is_named_by_what_it_is_and_where() {
        let kri = "kri_msvc_shop_east__cart_http";
        assert_eq!(direct(kri), "direct_access_kri_msvc_shop_east__cart_http");
        assert_eq!(directed(&direct(kri)), Some(kri));
        assert_eq!(directed(kri), None);
        for (address, name) in [
            ("10.0.0.1:5432", "direct_access_10.0.0.1:5432"),
            ("[fd00::1]:5432", "direct_access_[fd00::1]:5432"),
        ] {
            assert_eq!(direct_listener(address.parse().unwrap()), name);
            assert_eq!(directed(name), Some(address));
        }
    }

    #[test]
    fn what_cannot_be_a_host_name_is_no_server_name() {
        let part = |part: &str| Err(InvalidSni::Part(part.into()));
        assert_eq!(sni("kri_msvc_shop_east__cart_Http"), part("Http"));
        assert_eq!(sni("kri_msvc_shop_east__cart_a_b"), part("a_b"));
        assert_eq!(sni("kri_msvc_shop_east__cart_"), part(""));
        assert_eq!(sni("kri_msvc_shop_east__cart_123456"), part("123456"));
        assert_eq!(sni("kri_msvc_shop_east__a.b_http"), part("a.b"));
        assert_eq!(sni("kri_msvc__east__cart_http"), part(""));
        assert_eq!(sni("kri_dp_shop_east__cart_http"), Err(InvalidSni::Kind("dp".into())));
        let without_zone = Err(InvalidSni::NamespaceWithoutZone("web".into()));
        assert_eq!(sni("kri_msvc_shop__web_cart_http"), without_zone);
        let x = "x".repeat(63);
        let long = sni(&format!("kri_msvc_{x}_{x}_{x}_{x}_http"));
        assert!(matches!(long, Err(InvalidSni::TooLong(_))), "{long:?}");
    }
}
