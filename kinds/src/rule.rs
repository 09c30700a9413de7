//! Rules that several kinds share.

use crate::GoDuration;
use resource::{NameRule, Violations};
use std::{fmt, net::IpAddr};

/// A port that can be dialled.
pub(crate) fn port(path: impl fmt::Display, port: u32, violations: &mut Violations) {
    if !(1..=65535).contains(&port) {
        violations.add(path, "port must be in the range [1, 65535]");
    }
}

/// An address that can be dialled: an IP or a DNS name.
pub(crate) fn address(path: impl fmt::Display, address: &str, violations: &mut Violations) {
    match address.parse::<IpAddr>() {
        _ if address.is_empty() => violations.add(path, "must not be empty"),
        Ok(ip) if ip.is_unspecified() => violations.add(path, "must not be 0.0.0.0 or ::"),
        Ok(_) => {}
        Err(_) if is_dns_name(address) => {}
        Err(_) => violations.add(path, "must be a valid IP address or domain name"),
    }
}

/// An IP address.
pub(crate) fn ip(path: impl fmt::Display, address: &str, violations: &mut Violations) {
    if address.parse::<IpAddr>().is_err() {
        violations.add(path, "must be a valid IP address");
    }
}

/// A duration that lasts.
pub(crate) fn positive(path: impl fmt::Display, value: GoDuration, violations: &mut Violations) {
    if value.is_negative() || value.is_zero() {
        violations.add(path, "must be greater than zero when defined");
    }
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        label.len() <= 63
            && label.bytes().all(inner)
            && !label.is_empty()
            && !label.starts_with('-')
    };
    name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(label)
}

/// What DNS allows as a host name.
pub(crate) fn is_host_name(name: &str) -> bool {
    NameRule::Subdomain.check(name).is_ok()
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(check: impl Fn(&mut Violations)) -> String {
        let mut violations = Violations::default();
        check(&mut violations);
        violations.to_string()
    }

    #[test]
    fn an_address_is_an_ip_or_a_name() {
        for (text, expected) in [
            ("10.0.0.1", ""),
            ("fd00::1", ""),
            ("db.example.com.", ""),
            ("my_host", ""),
            ("", "a: must not be empty"),
            ("0.0.0.0", "a: must not be 0.0.0.0 or ::"),
            ("::", "a: must not be 0.0.0.0 or ::"),
            ("a b", "a: must be a valid IP address or domain name"),
            ("..", "a: must be a valid IP address or domain name"),
        ] {
            assert_eq!(reason(|violations| address("a", text, violations)), expected, "{text}");
        }
    }

    #[test]
    fn a_host_name_has_no_empty_label() {
        for (name, ok) in
            [("a.b", true), ("a", true), ("a..b", false), ("a.-b", false), ("", false)]
        {
            assert_eq!(is_host_name(name), ok, "{name}");
        }
    }
}
