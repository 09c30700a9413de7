//! Durations as specs write them: `15s`, `1h0m0s`, `1.5h`, `100ms`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

/// A signed duration with the syntax of Go's `time.Duration`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration {
    nanoseconds: i64,
}

/// The text is not a duration.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidDuration {
    /// It has no number, or no unit where one is needed.
    #[error("{0:?} is not a duration such as \"1h30m\" or \"500ms\"")]
    Syntax(String),
    /// A unit that does not exist.
    #[error("unknown unit {unit:?} in duration {text:?}")]
    Unit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
    /// More than 292 years.
    #[error("duration {0:?} is too long")]
    TooLong(String),
}

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl GoDuration {
    /// A duration of whole seconds.
    #[must_use]
    pub const fn seconds(seconds: i32) -> Self {
        Self { nanoseconds: seconds as i64 * 1_000_000_000 }
    }

    /// The duration, or zero if it is negative.
    #[must_use]
    pub const fn to_std(self) -> Duration {
        let nanoseconds = if self.nanoseconds < 0 { 0 } else { self.nanoseconds };
        Duration::from_nanos(nanoseconds.unsigned_abs())
    }

    /// Whether it is less than zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.nanoseconds < 0
    }

    /// Whether it is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.nanoseconds == 0
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self { nanoseconds: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX) }
    }
}

impl FromStr for GoDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let syntax = || InvalidDuration::Syntax(text.into());
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() {
            return Err(syntax());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
            let (unit, after) = split(after, |c| !c.is_ascii_digit() && c != '.');
            let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
                let unit = unit.to_owned();
                return Err(if number.is_empty() || unit.is_empty() {
                    syntax()
                } else {
                    InvalidDuration::Unit { unit, text: text.into() }
                });
            };
            let part = scaled(number, *scale).ok_or_else(syntax)?;
            total = total.saturating_add(part);
            rest = after;
        }
        let total = if negative { -total } else { total };
        let nanoseconds =
            i64::try_from(total).map_err(|_| InvalidDuration::TooLong(text.into()))?;
        Ok(Self { nanoseconds })
    }
}

fn split(text: &str, inside: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !inside(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// A decimal number times `scale`, cut to whole units.
fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits = |text: &str| {
        text.bytes().fold(0_i128, |sum, digit| {
            sum.saturating_mul(10).saturating_add(i128::from(digit.saturating_sub(b'0')))
        })
    };
    // More digits of a fraction than this change no nanosecond.
    let fraction = fraction.get(..fraction.len().min(18)).unwrap_or_default();
    let places = u32::try_from(fraction.len()).ok()?;
    let fraction = digits(fraction).saturating_mul(scale) / 10_i128.pow(places);
    Some(digits(whole).saturating_mul(scale).saturating_add(fraction))
}

/// As Go prints it: the largest unit is hours, below a second the largest that leaves a whole part.
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.nanoseconds.unsigned_abs();
        if self.is_negative() {
            f.write_str("-")?;
        }
        match nanoseconds {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanoseconds}ns"),
            1_000..1_000_000 => decimal(f, nanoseconds, 1_000, "µs"),
            1_000_000..1_000_000_000 => decimal(f, nanoseconds, 1_000_000, "ms"),
            _ => {
                const MINUTE: u64 = 60_000_000_000;
                let minutes = nanoseconds / MINUTE;
                let (hours, rest) = (minutes / 60, minutes % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if minutes > 0 {
                    write!(f, "{rest}m")?;
                }
                decimal(f, nanoseconds % MINUTE, 1_000_000_000, "s")
            }
        }
    }
}

fn decimal(f: &mut fmt::Formatter<'_>, value: u64, unit: u64, name: &str) -> fmt::Result {
    let (whole, fraction) = (value / unit, value % unit);
    if fraction == 0 {
        return write!(f, "{whole}{name}");
    }
    let places = unit.ilog10() as usize;
    let fraction = format!("{fraction:0places$}");
    write!(f, "{whole}.{}{name}", fraction.trim_end_matches('0'))
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for GoDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<i64, InvalidDuration> {
        text.parse::<GoDuration>().map(|duration| duration.nanoseconds)
    }

    #[test]
    fn units_add_up() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("0s", 0),
            ("+5s", 5_000_000_000),
            ("1h0m0s", 3_600_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("-1m30s", -90_000_000_000),
            ("100ms", 100_000_000),
            ("1us2µs3μs4ns", 6_004),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("0.0000000019s", 1),
        ] {
            assert_eq!(parse(text), Ok(nanoseconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "-", "5", "s", ".s", "1..2s", "five", "1h2"] {
            assert_eq!(parse(text), Err(InvalidDuration::Syntax(text.into())), "{text}");
        }
        let unit = InvalidDuration::Unit { unit: " day".into(), text: "1 day".into() };
        assert_eq!(parse("1 day"), Err(unit));
        let long = "9".repeat(60) + "h";
        assert_eq!(parse(&long), Err(InvalidDuration::TooLong(long)));
    }

    #[test]
    fn prints_as_go_does() {
        for text in ["0s", "2h0m0s", "1m30s", "15s", "1.5s", "100ms", "1.05µs", "7ns", "-1h0m0.25s"]
        {
            assert_eq!(text.parse::<GoDuration>().unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(nanoseconds in -i64::MAX..i64::MAX) {
            let duration = GoDuration { nanoseconds };
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "[-+]?[0-9.a-zµ ]{0,12}") {
            if let Ok(duration) = text.parse::<GoDuration>() {
                prop_assert_eq!(duration.to_string().parse(), Ok(duration));
            }
        }
    }
}
