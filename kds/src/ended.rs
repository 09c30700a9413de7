//! Why a stream ended, and what its other end is told.

use crate::{dialect::Broken, limit};
use store::{StoreError, view::Closed};
use tonic::{Code, Status};

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamEnded {
    /// The peer went away.
    #[error("the peer closed the stream")]
    ByPeer,
    /// The peer, or the connection, ended it with a status.
    #[error("the stream failed")]
    Failed(#[source] Status),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol")]
    Broken(#[from] Broken),
    /// The peer fell too far behind; it gets everything on its next stream.
    #[error("the peer fell behind")]
    Behind,
    /// The peer owes an answer.
    #[error("the peer did not answer in time")]
    Silent,
    /// The zone does not ask any more whether global is there.
    #[error("the zone has not been heard of for too long")]
    Unheard,
    /// Others write the same resources all the time.
    #[error("what the peer sent conflicts with other writers")]
    Contended,
    /// The store failed: it may have done what it was asked, or not.
    #[error("storing what the peer sent failed")]
    Store(#[from] StoreError),
    /// We are shutting down.
    #[error("this control plane is stopping")]
    Stopping,
    /// The zone connected once more, or another control plane of it did.
    #[error("a newer stream of the zone took over")]
    Superseded,
    /// Global does not say which one it is.
    #[error("global has no id yet")]
    Unidentified,
    /// The peer may not speak any more.
    #[error("the peer's admission was withdrawn")]
    Withdrawn,
}

impl From<Closed> for StreamEnded {
    fn from(Closed: Closed) -> Self {
        Self::Stopping
    }
}

/// Why a call failed, in a word.
fn of_code(code: Code) -> &'static str {
    if matches!(code, Code::OutOfRange | Code::ResourceExhausted) {
        "too-large"
    } else if matches!(code, Code::Internal | Code::InvalidArgument) {
        "unreadable"
    } else {
        "failed"
    }
}

impl StreamEnded {
    /// Why, in a word, for those who count.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ByPeer => "closed",
            Self::Failed(status) => of_code(status.code()),
            Self::Broken(Broken::Flood) => "flood",
            Self::Broken(Broken::Idle) => "idle",
            Self::Broken(Broken::TooMuch { .. }) => "too-much",
            Self::Broken(_) => "broken",
            Self::Behind => "behind",
            Self::Silent => "silent",
            Self::Unheard => "unheard",
            Self::Contended => "contended",
            Self::Store(_) => "store",
            Self::Stopping => "stopping",
            Self::Superseded => "superseded",
            Self::Unidentified => "unidentified",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// Whether the peer did what no peer does.
    #[must_use]
    pub fn is_fault_of_peer(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Silent)
            || ["too-large", "unreadable"].contains(&self.reason())
    }

    /// How a server ends the stream. Never with OK: a plain zone takes that for a reason to leave
    /// the stream closed.
    #[must_use]
    pub fn to_status(&self) -> Status {
        match self {
            Self::ByPeer => Status::cancelled("stream closed by the zone"),
            Self::Failed(status) => status.clone(),
            Self::Broken(broken) => {
                Status::invalid_argument(limit::cut(&broken.to_string(), limit::REASON))
            }
            // What a plain zone is told when its health checks stay away.
            Self::Unheard => Status::cancelled(self.to_string()),
            Self::Silent => Status::deadline_exceeded(self.to_string()),
            Self::Behind | Self::Contended | Self::Superseded | Self::Unidentified => {
                Status::aborted(self.to_string())
            }
            Self::Store(_) => Status::internal("stream failed"),
            Self::Stopping => Status::unavailable("stream unavailable"),
            Self::Withdrawn => Status::permission_denied(self.to_string()),
        }
    }
}
