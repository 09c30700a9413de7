//! Where and how a program logs.

use crate::config::Problems;
use serde::{Deserialize, Serialize};
use std::fmt;
use tracing::{field::Field, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::MakeExt as _,
    fmt::{MakeWriter, format, layer},
    layer::SubscriberExt as _,
};

/// How a program logs, on its standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`; also for single targets: `info,kds=debug`.
    pub level: String,
    /// One line of text, or one JSON object, an event.
    pub format: Format,
}

/// What a line of the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: Format::Text }
    }
}

impl Log {
    /// Adds every broken rule.
    pub fn check(&self, problems: &mut Problems) {
        if !self.level.split(',').all(is_directive) {
            problems.add(
                "level",
                format_args!("{:?} is not a level such as info or info,kds=debug", self.level),
            );
        }
    }

    /// Logs of the whole process go to its standard error from now on.
    pub(crate) fn install(&self) -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
        tracing::subscriber::set_global_default(self.subscriber(std::io::stderr))
    }

    fn subscriber<W>(&self, writer: W) -> impl tracing::Subscriber + Send + Sync + use<W>
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let lines = layer().with_writer(writer).with_ansi(false);
        let lines = match self.format {
            Format::Text => lines.fmt_fields(format::debug_fn(write).delimited(" ")).boxed(),
            Format::Json => lines.json().flatten_event(true).boxed(),
        };
        let filter = EnvFilter::try_new(&self.level).unwrap_or_default();
        tracing_subscriber::registry().with(filter).with(lines)
    }
}

/// Whether this is a level, or one for a target. The filter itself takes any other word for the name
/// of a target, and then nothing is logged.
fn is_directive(text: &str) -> bool {
    let (target, level) = text.split_once('=').unwrap_or(("all", text));
    let is_path = |c: char| c.is_ascii_alphanumeric() || "_:-".contains(c);
    let names_target = !target.is_empty() && target.chars().all(is_path);
    let names_level = !level.is_empty() && level.chars().all(|c| c.is_ascii_alphabetic());
    names_target && names_level && level.parse::<LevelFilter>().is_ok()
}

/// Writes one field. Text from outside can neither begin a line nor another field.
fn write(writer: &mut format::Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    let quoted = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
    if field.name() == "message" {
        return escape(writer, &text);
    }
    write!(writer, "{}=", field.name())?;
    if text.contains([' ', '=', '"']) && !quoted {
        write!(writer, "{text:?}")
    } else {
        escape(writer, &text)
    }
}

fn escape(writer: &mut format::Writer<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() {
            write!(writer, "{}", c.escape_default())?;
        } else {
            write!(writer, "{c}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::{io, sync::Arc};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: &Log, event: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = log.subscriber(move || writer.clone());
        tracing::subscriber::with_default(subscriber, event);
        String::from_utf8(written.0.lock().clone()).unwrap()
    }

    #[test]
    fn text_from_outside_stays_on_its_line_and_in_its_field() {
        let hostile = "east\n1970 INFO root: \u{1b}[2Jzone=west";
        let text = logged(&Log::default(), || {
            tracing::info!(zone = %hostile, peer = hostile, count = 3, "zone {hostile} subscribed");
        });
        let (_, event) = text.split_once("tests: ").unwrap();
        assert_eq!(
            event,
            concat!(
                r"zone east\n1970 INFO root: \u{1b}[2Jzone=west subscribed ",
                r#"zone="east\n1970 INFO root: \u{1b}[2Jzone=west" "#,
                r#"peer="east\n1970 INFO root: \u{1b}[2Jzone=west" "#,
                "count=3\n"
            )
        );
    }

    #[test]
    fn json_has_one_object_a_line() {
        let log = Log { format: Format::Json, ..Log::default() };
        let text = logged(&log, || tracing::info!(zone = %"a\nb", "zone subscribed"));
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["message"], "zone subscribed");
        assert_eq!(event["zone"], "a\nb");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn the_level_selects_by_target() {
        let log = Log { level: "warn,kds=debug".into(), ..Log::default() };
        let text = logged(&log, || {
            tracing::debug!(target: "kds", "seen");
            tracing::info!(target: "xds", "hidden");
        });
        assert!(text.ends_with("DEBUG kds: seen\n"), "{text}");
    }

    #[test]
    fn a_level_that_would_log_nothing_is_refused() {
        let problems = |level: &str| {
            let mut problems = Problems::default();
            Log { level: level.into(), ..Log::default() }.check(&mut problems);
            problems.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for good in ["info", "WARN", "off", "info,kds=debug", "kds::zone=trace,hyper-util=warn"] {
            assert_eq!(problems(good), [""; 0], "{good}");
        }
        for bad in ["loud", "", "x y=", "loud=very", "info,", "=info", "3", "kds=debug=info"] {
            let reason = format!("level: {bad:?} is not a level such as info or info,kds=debug");
            assert_eq!(problems(bad), [reason], "{bad}");
        }
    }
}
