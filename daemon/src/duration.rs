//! Durations as people write them: `5s`, `1h30m`. A module for `#[serde(with = "daemon::duration")]`.

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};
use std::time::Duration;

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// A number has no unit behind it.
    #[error("{0:?} has no unit (ms, s, m, h, d)")]
    NoUnit(String),
    /// There is no number, or an unknown unit.
    #[error("{0:?} is not a duration such as 250ms, 5s or 1h30m")]
    Malformed(String),
    /// It does not fit.
    #[error("{0:?} is too long")]
    TooLong(String),
}

const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a duration.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let malformed = || InvalidDuration::Malformed(text.into());
    let too_long = || InvalidDuration::TooLong(text.into());
    let mut rest = text;
    let mut total = 0_u64;
    if rest.is_empty() {
        return Err(malformed());
    }
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit());
        let (unit, after) = split(after, |c| c.is_ascii_alphabetic());
        if number.is_empty() {
            return Err(malformed());
        }
        if unit.is_empty() && after.is_empty() {
            return Err(InvalidDuration::NoUnit(text.into()));
        }
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?;
        let number: u64 = number.parse().map_err(|_| too_long())?;
        let part = number.checked_mul(*millis).ok_or_else(too_long)?;
        total = total.checked_add(part).ok_or_else(too_long)?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// Prints a duration so that [`parse`] reads it again, to the millisecond.
#[must_use]
pub fn print(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, size) in UNITS {
        if millis >= size {
            text.push_str(&(millis / size).to_string());
            text.push_str(unit);
            millis %= size;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// For serde.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&print(*duration))
}

/// For serde.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_again() {
        for (text, millis) in
            [("0s", 0), ("250ms", 250), ("5s", 5000), ("1h30m", 5_400_000), ("2d1ms", 172_800_001)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)));
            assert_eq!(print(Duration::from_millis(millis)), text);
        }
        assert_eq!(parse("90m"), Ok(Duration::from_secs(5400)));
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        let reason = |text| parse(text).unwrap_err().to_string();
        assert_eq!(reason("30"), r#""30" has no unit (ms, s, m, h, d)"#);
        for text in ["", "s", "5 s", "-5s", "1.5s", "5y", "5s3", "五s"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(reason("99999999999999999999s"), r#""99999999999999999999s" is too long"#);
        assert_eq!(reason("999999999999999999d"), r#""999999999999999999d" is too long"#);
    }
}
