//! Why there is no session, and whether there can be one.

use super::{DialError, PATIENCE};
use crate::workdir::WorkdirError;
use std::path::PathBuf;
use tonic::{Code, Status};

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionEnded {
    #[error("{}", path.display())]
    Token {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} holds no token", .0.display())]
    NotAToken(PathBuf),
    #[error("cannot connect")]
    Connect(#[source] DialError),
    #[error("the control plane took longer than {PATIENCE:?}")]
    Late,
    #[error("{:?}: {}", .0.code(), .0.message())]
    Refused(Status),
    #[error("the first message was no welcome")]
    NoWelcome,
    #[error("the control plane ended the session")]
    Ended,
    #[error("the control plane does not read")]
    Stuck,
    #[error("working directory")]
    Workdir(#[from] WorkdirError),
}

impl SessionEnded {
    /// Whether the program ends by it. What is wrong with its own settings stays wrong, so whoever
    /// starts it is told at once. One that `began` serves an application, and goes on serving it
    /// whatever the control plane says later: it may have another one by then, or its token file.
    pub(super) fn is_final(&self, began: bool) -> bool {
        !began && self.is_our_fault()
    }

    fn is_our_fault(&self) -> bool {
        match self {
            Self::Token { .. } | Self::NotAToken(_) => true,
            Self::Refused(status) => is_our_fault(status.code()),
            // The control plane is away, is another one for now, or does not speak as it should.
            Self::Connect(_) | Self::Late | Self::NoWelcome | Self::Ended | Self::Stuck => false,
            // A disk may be full.
            Self::Workdir(_) => false,
        }
    }
}

const fn is_our_fault(code: Code) -> bool {
    match code {
        // The Dataplane, or another thing that we say of ourselves, is not valid.
        Code::InvalidArgument => true,
        // The token is none, is not signed as it should be, expired, or is revoked.
        Code::Unauthenticated => true,
        // The token is good, and for somebody else.
        Code::PermissionDenied => true,
        // Another one has the name, and may leave.
        Code::AlreadyExists => false,
        // The mesh may come.
        Code::NotFound => false,
        // The zone does not know everything yet: the keys of the mesh, for one.
        Code::Unavailable | Code::FailedPrecondition => false,
        // What answers there now may be somebody who stands in for a control plane that is away.
        Code::Unimplemented | Code::Internal | Code::Unknown | Code::DataLoss => false,
        // It has too much to do.
        Code::ResourceExhausted | Code::DeadlineExceeded => false,
        // A session ended that was one.
        Code::Ok | Code::Cancelled | Code::Aborted | Code::OutOfRange => false,
    }
}
