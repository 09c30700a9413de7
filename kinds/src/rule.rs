//! Rules that several kinds share.

use crate::{GoDuration, IntOrString};
use resource::{NameRule, Violations};
use std::{fmt, net::IpAddr, ops::RangeInclusive};

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

/// A number within a range.
pub(crate) fn range(
    path: impl fmt::Display,
    number: impl Into<i64>,
    range: RangeInclusive<i64>,
    violations: &mut Violations,
) {
    let (number, least, most) = (number.into(), range.start(), range.end());
    if number < *least {
        let reason = format_args!("in body should be greater than or equal to {least}");
        violations.add(path, reason);
    } else if number > *most {
        violations.add(path, format_args!("in body should be less than or equal to {most}"));
    }
}

/// A text of some length.
pub(crate) fn length(
    path: impl fmt::Display,
    text: &str,
    range: RangeInclusive<usize>,
    violations: &mut Violations,
) {
    let (length, least, most) = (text.chars().count(), range.start(), range.end());
    if length < *least {
        violations.add(path, format_args!("in body should be at least {least} chars long"));
    } else if length > *most {
        violations.add(path, format_args!("in body should be at most {most} chars long"));
    }
}

/// A list with some number of items.
pub(crate) fn items(
    path: impl fmt::Display,
    items: usize,
    range: RangeInclusive<usize>,
    violations: &mut Violations,
) {
    let (least, most) = (range.start(), range.end());
    if items < *least {
        violations.add(path, format_args!("in body should have at least {least} items"));
    } else if items > *most {
        violations.add(path, format_args!("in body should have at most {most} items"));
    }
}

/// A share of a hundred.
pub(crate) fn percentage(
    path: impl fmt::Display,
    value: &IntOrString,
    violations: &mut Violations,
) {
    match value.to_f64() {
        None => violations.add(path, "string must be a valid number"),
        Some(share) if (0.0..=100.0).contains(&share) => {}
        Some(_) => violations.add(path, "must be in inclusive range [0.0, 100.0]"),
    }
}

/// What can be a DNS name.
pub(crate) fn is_dns_name(name: &str) -> bool {
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

/// A number above zero, where it is said.
pub(crate) fn above_zero<N: Into<i64>>(
    path: impl fmt::Display,
    number: Option<N>,
    violations: &mut Violations,
) {
    if number.is_some_and(|number| number.into() <= 0) {
        violations.add(path, "must be greater than 0");
    }
}

/// A whole number of parts of a hundred, where it is said.
pub(crate) fn percent<N: Into<i64>>(
    path: impl fmt::Display,
    number: Option<N>,
    violations: &mut Violations,
) {
    if number.is_some_and(|number| !(0..=100).contains(&number.into())) {
        violations.add(path, "must be in inclusive range [0, 100]");
    }
}

/// A status of HTTP.
pub(crate) fn status_code(path: impl fmt::Display, code: i32, violations: &mut Violations) {
    if !(100..=599).contains(&code) {
        violations.add(path, "must be in inclusive range [100, 599]");
    }
}

/// Durations that last, where they are said; each with its field below `path`.
pub(crate) fn all_positive<'a>(
    path: &str,
    fields: impl IntoIterator<Item = (&'a str, Option<GoDuration>)>,
    violations: &mut Violations,
) {
    for (field, value) in fields {
        if let Some(value) = value {
            positive(format_args!("{path}.{field}"), value, violations);
        }
    }
}

/// What has to be there.
pub(crate) fn defined<'a, T>(
    path: impl fmt::Display,
    value: Option<&'a T>,
    violations: &mut Violations,
) -> Option<&'a T> {
    if value.is_none() {
        violations.add(path, "must be defined");
    }
    value
}

/// A text that says something.
pub(crate) fn not_empty(path: impl fmt::Display, text: &str, violations: &mut Violations) {
    if text.is_empty() {
        violations.add(path, "must not be empty");
    }
}

/// Whether a file on the machine of a proxy can be called so.
pub(crate) fn is_file_path(path: &str) -> bool {
    path.starts_with('/') && !path.contains("//") && !path.contains('\0')
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
    fn numbers_texts_and_lists_have_bounds() {
        for (found, expected) in [
            (reason(|it| range("a", 1, 1..=3, it)), ""),
            (
                reason(|it| range("a", 0, 1..=3, it)),
                "a: in body should be greater than or equal to 1",
            ),
            (reason(|it| range("a", 4, 1..=3, it)), "a: in body should be less than or equal to 3"),
            (reason(|it| length("a", "éé", 2..=2, it)), ""),
            (
                reason(|it| length("a", "é", 2..=2, it)),
                "a: in body should be at least 2 chars long",
            ),
            (
                reason(|it| length("a", "ééé", 2..=2, it)),
                "a: in body should be at most 2 chars long",
            ),
            (reason(|it| items("a", 1, 1..=1, it)), ""),
            (reason(|it| items("a", 0, 1..=1, it)), "a: in body should have at least 1 items"),
            (reason(|it| items("a", 2, 1..=1, it)), "a: in body should have at most 1 items"),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_percentage_is_a_number_up_to_a_hundred() {
        let of = |value: IntOrString| reason(|violations| percentage("a", &value, violations));
        let text = |text: &str| of(IntOrString::String(text.into()));
        let number = "a: string must be a valid number";
        let range = "a: must be in inclusive range [0.0, 100.0]";
        assert_eq!([of(IntOrString::Int(0)), of(IntOrString::Int(101))], ["", range]);
        assert_eq!(
            [text("99.9"), text("-1"), text("x"), text("NaN"), text("")],
            ["", range, number, number, number]
        );
    }

    #[test]
    fn a_host_name_has_no_empty_label() {
        for (name, ok) in
            [("a.b", true), ("a", true), ("a..b", false), ("a.-b", false), ("", false)]
        {
            assert_eq!(is_host_name(name), ok, "{name}");
        }
    }

    #[test]
    fn what_is_said_is_above_zero() {
        for (found, expected) in [
            (reason(|it| above_zero("a", None::<u32>, it)), ""),
            (reason(|it| above_zero("a", Some(1_u32), it)), ""),
            (reason(|it| above_zero("a", Some(0_u32), it)), "a: must be greater than 0"),
            (reason(|it| percent("a", Some(100_u32), it)), ""),
            (reason(|it| percent("a", Some(-1), it)), "a: must be in inclusive range [0, 100]"),
            (reason(|it| status_code("a", 599, it)), ""),
            (reason(|it| status_code("a", 600, it)), "a: must be in inclusive range [100, 599]"),
            (reason(|it| not_empty("a", "", it)), "a: must not be empty"),
            (
                reason(|it| {
                    all_positive("a", [("b", Some(GoDuration::seconds(0))), ("c", None)], it)
                }),
                "a.b: must be greater than zero when defined",
            ),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_file_has_an_absolute_path() {
        let paths = ["/tmp/access.log", "/", "access.log", "", "/a//b", "/a\0"];
        assert_eq!(paths.map(is_file_path), [true, true, false, false, false, false]);
    }
}
