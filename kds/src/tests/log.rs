//! What a test makes the program log.

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    sync::Once,
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::set_global_default,
};

thread_local! {
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// A line of the log, a warning or an error of this crate.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) text: String,
}

/// What is logged on the thread of this test, which is all that it does: its runtime has no other.
pub(crate) struct Log(());

impl Log {
    /// Listens from now on.
    pub(crate) fn listen() -> Self {
        // One for all tests, and no other ever: whether somebody listens is remembered for each
        // place that logs, whatever thread came there first.
        static ONCE: Once = Once::new();
        ONCE.call_once(|| set_global_default(OfThread).unwrap());
        let this = Self(());
        this.clear();
        this
    }

    /// Forgets what was logged so far.
    pub(crate) fn clear(&self) {
        LINES.with_borrow_mut(Vec::clear);
    }

    /// Whether a warning names `who` and `reason`.
    pub(crate) fn said(&self, who: &str, reason: &str) -> bool {
        let says = |line: &Line| line.text.contains(who) && line.text.contains(reason);
        LINES.with_borrow(|lines| lines.iter().any(says))
    }

    /// Exactly these reasons were logged, as warnings that name `who`.
    pub(crate) fn warned(&self, who: &str, reasons: &[&str]) {
        let lines = LINES.with_borrow(Clone::clone);
        assert_eq!(lines.len(), reasons.len(), "{lines:#?}");
        for (Line { level, text }, reason) in lines.iter().zip(reasons) {
            let says = *level == Level::WARN && text.contains(who) && text.contains(reason);
            assert!(says, "{lines:#?} has no {reason:?} about {who}");
        }
    }
}

struct OfThread;

impl Subscriber for OfThread {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN && metadata.target().starts_with("kds")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let line = Line { level: *event.metadata().level(), text: text.0 };
        LINES.with_borrow_mut(|lines| lines.push(line));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let gap = if self.0.is_empty() { "" } else { " " };
        let name = field.name();
        let written = match name {
            "message" => write!(self.0, "{gap}{value:?}"),
            _ => write!(self.0, "{gap}{name}={value:?}"),
        };
        written.unwrap();
    }
}
