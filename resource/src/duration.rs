//! Durations as users write them: `1h30m`, `250ms`.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{borrow::Cow, fmt, str::FromStr};

const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const SECOND: u64 = 1_000_000_000;

/// A length of time in the notation of Go, which the resource model uses. It may be negative, so
/// that a validation can say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(i64);

impl Duration {
    /// No time at all, which most settings take for "without a limit".
    pub const ZERO: Self = Self(0);

    /// A duration of whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds as i64 * SECOND as i64)
    }

    /// A duration of whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u32) -> Self {
        Self(millis as i64 * 1_000_000)
    }

    /// Whether it is below zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// The same length of time for the clock; nothing if it is negative.
    #[must_use]
    pub fn get(self) -> std::time::Duration {
        std::time::Duration::from_nanos(u64::try_from(self.0).unwrap_or_default())
    }
}

/// Why a text is not a duration.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidDuration {
    /// It is not made of numbers and units, or is too long.
    #[error("time: invalid duration {0:?}")]
    Malformed(String),
    /// A number stands without a unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// The unit of a number is none of those that exist.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// What stands where a unit should.
        unit: String,
        /// The whole text.
        text: String,
    },
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let malformed = || InvalidDuration::Malformed(text.into());
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        if rest.is_empty() {
            return Err(malformed());
        }
        let mut nanos = 0_i128;
        while !rest.is_empty() {
            let (whole, after) = split(rest, |c| !c.is_ascii_digit());
            let (fraction, after) = match after.strip_prefix('.') {
                Some(after) => split(after, |c| !c.is_ascii_digit()),
                None => ("", after),
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(malformed());
            }
            let (unit, next) = split(after, |c| c.is_ascii_digit() || c == '.');
            if unit.is_empty() {
                return Err(InvalidDuration::MissingUnit(text.into()));
            }
            let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
                let (unit, text) = (unit.into(), text.into());
                return Err(InvalidDuration::UnknownUnit { unit, text });
            };
            nanos += scaled(whole, fraction, *scale).ok_or_else(malformed)?;
            rest = next;
        }
        let nanos = if negative { -nanos } else { nanos };
        i64::try_from(nanos).map(Self).map_err(|_| malformed())
    }
}

fn split(text: &str, end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(end).unwrap_or(text.len()))
}

fn scaled(whole: &str, fraction: &str, scale: i64) -> Option<i128> {
    let scale = i128::from(scale);
    let whole: i128 = if whole.is_empty() { 0 } else { i64::from_str(whole).ok()?.into() };
    // Below a nanosecond nothing counts.
    let digits = fraction.chars().take(15);
    let part = digits.fold((0, 1), |(value, size), digit| {
        (value * 10 + i128::from(digit.to_digit(10).unwrap_or_default()), size * 10)
    });
    Some(whole * scale + part.0 * scale / part.1)
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", Decimal(nanos, 1_000)),
            1_000_000..SECOND => write!(f, "{}ms", Decimal(nanos, 1_000_000)),
            _ => {
                let (minutes, seconds) = (nanos / (60 * SECOND), nanos % (60 * SECOND));
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                write!(f, "{}s", Decimal(seconds, SECOND))
            }
        }
    }
}

/// A quotient without trailing zeros.
struct Decimal(u64, u64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, scale) = *self;
        write!(f, "{}", value / scale)?;
        let (mut rest, mut scale) = (value % scale, scale);
        if rest > 0 {
            f.write_str(".")?;
        }
        while rest > 0 {
            scale /= 10;
            write!(f, "{}", rest / scale)?;
            rest %= scale;
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Duration, InvalidDuration> {
        text.parse()
    }

    #[test]
    fn a_duration_is_written_as_go_writes_it() {
        let cases = [
            ("0", "0s"),
            ("-20s", "-20s"),
            ("90s", "1m30s"),
            ("2h", "2h0m0s"),
            ("1.5s", "1.5s"),
            (".25h", "15m0s"),
            ("1500us", "1.5ms"),
            ("3µs", "3µs"),
            ("+7ns", "7ns"),
            ("1h30m0.05s", "1h30m0.05s"),
        ];
        for (given, written) in cases {
            assert_eq!(read(given).unwrap().to_string(), written, "{given}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_duration_is_said_as_go_says_it() {
        let cases = [
            ("20 seconds", r#"time: unknown unit " seconds" in duration "20 seconds""#),
            ("1 day", r#"time: unknown unit " day" in duration "1 day""#),
            ("20", r#"time: missing unit in duration "20""#),
            ("", r#"time: invalid duration """#),
            ("-", r#"time: invalid duration "-""#),
            ("s", r#"time: invalid duration "s""#),
            (".s", r#"time: invalid duration ".s""#),
            ("1.2.3s", r#"time: missing unit in duration "1.2.3s""#),
            ("9999999h", r#"time: invalid duration "9999999h""#),
        ];
        for (given, said) in cases {
            assert_eq!(read(given).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn a_duration_is_text_in_json() {
        let read: Vec<Duration> = serde_json::from_str(r#"["5s","1\u0068"]"#).unwrap();
        assert_eq!(read, [Duration::from_secs(5), Duration::from_secs(3600)]);
        assert_eq!(serde_json::to_string(&read).unwrap(), r#"["5s","1h0m0s"]"#);
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(nanos: i64) {
            let duration = Duration(nanos);
            prop_assert_eq!(read(&duration.to_string()), Ok(duration));
        }

        #[test]
        fn what_can_be_read_is_written_so_that_it_reads_the_same(
            text in "[-+]?([0-9]{0,20}[.]?[0-9]{0,20}(h|m|s|ms|us|µs|ns| )?){0,4}",
        ) {
            if let Ok(duration) = read(&text) {
                prop_assert_eq!(read(&duration.to_string()), Ok(duration));
            }
        }
    }
}
