//! Tells others what happens on streams.

use crate::{
    dialect::Introduction,
    ended::StreamEnded,
    memory::Held,
    refusal::{Refusal, Refusals},
};
use delta::Versions;
use resource::ZoneName;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use store::view::Revision;

/// Is told what happens. Called on the stream's task, so it must not block.
pub trait Observer: Send + Sync + 'static {
    /// Something happened on a stream of `zone`.
    fn observe(&self, stream: StreamId, zone: &ZoneName, event: Event<'_>);

    /// A call was not let in, so that nobody knows of which zone it is. Why, in a word.
    fn turned_away(&self, _reason: &'static str) {}
}

/// Ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn observe(&self, _stream: StreamId, _zone: &ZoneName, _event: Event<'_>) {}
}

/// Names a stream of this process: two of one zone are not the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

impl StreamId {
    /// Another one than all before.
    #[must_use]
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The calls between a zone and global.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// Resources of global, and of other zones, go to the zone.
    GlobalToZone,
    /// Resources of the zone go to global.
    ZoneToGlobal,
    /// Global asks for the configuration of a proxy.
    Config,
    /// Global asks for the statistics of a proxy.
    Stats,
    /// Global asks for the clusters of a proxy.
    Clusters,
    /// The zone asks whether global is there.
    Health,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The stream began.
    Opened {
        /// Which call.
        call: Call,
        /// Whether the zone presented a token.
        token: bool,
    },
    /// The peer that asks said who it is, in its first request.
    Introduced(&'a Introduction),
    /// A response was sent.
    Sent {
        /// Of this kind.
        kind: &'static str,
        /// With so many resources.
        resources: usize,
        /// With it the peer is where this store was then; `None` for a part of a state.
        until: Option<Revision>,
    },
    /// The peer took a response.
    Acked {
        /// Of this kind.
        kind: &'static str,
        /// It has everything of the kind that was committed here until this revision; `None` if it
        /// lacks some.
        until: Option<Revision>,
    },
    /// The peer refused some of a response.
    Refused {
        /// Of this kind.
        kind: &'static str,
        /// What it said.
        refusals: &'a Refusals,
    },
    /// Where the peer that asks is at the beginning of its stream, as it says.
    Begins {
        /// With this kind.
        kind: &'static str,
        /// As in [`Event::Stands`].
        until: Option<Revision>,
        /// What it refused on the stream before.
        refused: &'a Versions,
    },
    /// Where the peer that asks is now.
    Stands {
        /// With this kind.
        kind: &'static str,
        /// It has everything of the kind that was committed here until this revision, but for what
        /// it refused; `None` if that is not known.
        until: Option<Revision>,
        /// What it refused and has not taken since.
        refused: &'a Versions,
        /// What it said last, if it refused something just now.
        said: &'a Refusals,
    },
    /// The state of a kind cannot be sent: it is larger than the peer takes.
    TooLarge {
        /// The kind.
        kind: &'static str,
        /// So many bytes.
        bytes: usize,
    },
    /// A response of the peer was applied.
    Applied {
        /// Of this kind.
        kind: &'static str,
        /// With so many resources.
        resources: usize,
        /// Whether now one state of the peer has been complete on this stream.
        complete: bool,
        /// Everything of the kind that the peer committed until then is here; `None` if that is not
        /// known.
        until: Option<Revision>,
        /// What was not taken.
        refused: &'a [Refusal],
    },
    /// A response was refused as a whole: nothing of it was looked at.
    Declined {
        /// What is wrong with it.
        reason: &'a str,
    },
    /// What was applied until now is remembered in the store.
    Remembered,
    /// Nothing of the stream is applied until an operator says so.
    Held(&'a Held),
    /// The zone asked whether global is there.
    HealthChecked {
        /// Why it applies nothing of this global, if so. A plain one does not say.
        held: Option<&'a str>,
    },
    /// Why the stream ends. [`Event::Closed`] follows.
    Ended(&'a StreamEnded),
    /// The stream ended.
    Closed,
}

impl Event<'_> {
    /// The kind of resources that it is about, if it is about one.
    #[must_use]
    pub const fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Sent { kind, .. }
            | Self::Acked { kind, .. }
            | Self::Refused { kind, .. }
            | Self::Begins { kind, .. }
            | Self::Stands { kind, .. }
            | Self::TooLarge { kind, .. }
            | Self::Applied { kind, .. } => Some(kind),
            Self::Opened { .. }
            | Self::Introduced(_)
            | Self::Declined { .. }
            | Self::Remembered
            | Self::Held(_)
            | Self::HealthChecked { .. }
            | Self::Ended(_)
            | Self::Closed => None,
        }
    }
}

/// Tells an observer what happens on one stream.
#[derive(Clone)]
pub struct Report {
    observer: Arc<dyn Observer>,
    stream: StreamId,
    zone: ZoneName,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Report {
    /// Reports about a new stream of `zone`.
    #[must_use]
    pub fn new(observer: Arc<dyn Observer>, zone: ZoneName) -> Self {
        Self { observer, stream: StreamId::next(), zone }
    }

    /// Something happened.
    pub fn tell(&self, event: Event<'_>) {
        self.observer.observe(self.stream, &self.zone, event);
    }
}
