//! Delta ADS: one stream of one proxy.
//!
//! [`Session`] is the protocol as a value, [`serve`] its shell. What is sent in which order stands
//! in `session`.

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod law;
mod refusal;
mod retries;
mod session;
#[cfg(test)]
mod tests;

pub use self::{
    refusal::Refusal,
    session::{Event, Rejected, Session},
};

use self::retries::Retries;
use crate::snapshot::{Changes, Gone, Source, Type};
use delta::{Name, Update};
use futures::{Stream, StreamExt};
use proto::{envoy::service::discovery::v3::DeltaDiscoveryRequest, frame::Frame};
use std::pin::pin;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tonic::Status;

/// How many responses may wait to be sent: with one in flight per type, sending never waits.
pub const CAPACITY: usize = 8;

/// Why a stream ended, if not by its peer.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The peer sent what it may not.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The connection broke.
    #[error("the stream broke")]
    Broken(#[source] Status),
    /// There is nothing more to serve.
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl From<Ended> for Status {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Rejected(rejected @ Rejected::TooMany { .. }) => {
                Self::resource_exhausted(rejected.to_string())
            }
            Ended::Rejected(rejected) => Self::invalid_argument(rejected.to_string()),
            Ended::Broken(status) => status,
            Ended::Gone(gone) => Self::unavailable(gone.to_string()),
        }
    }
}

/// Serves one stream until its peer ends it. `requests` begins with the first one of the stream;
/// `responses` has a [`CAPACITY`]; `report` hears what was sent and what became of it.
pub async fn serve(
    source: &dyn Source,
    mut changes: Changes,
    requests: impl Stream<Item = Result<DeltaDiscoveryRequest, Status>>,
    responses: mpsc::Sender<Frame>,
    mut report: impl FnMut(Event),
) -> Result<(), Ended> {
    let mut requests = pin!(requests);
    let (mut session, mut retries) = (Session::default(), Retries::default());
    let mut report = |retries: &mut Retries, event: Event| {
        retries.hear(&event, Instant::now(), fastrand::f64());
        report(event);
    };
    loop {
        session.mark(changes.take());
        if let Some(beacon) = changes.take_beacon() {
            session.beacon(beacon);
        }
        while let Some((frame, event)) = session.next(source, &changes) {
            report(&mut retries, event);
            if let Some(passed) = session.passed() {
                report(&mut retries, passed);
            }
            if responses.send(frame).await.is_err() {
                return Ok(());
            }
            session.mark(changes.take());
        }
        if changes.settle(|kind| session.has_settled(kind), session.is_synced()) {
            report(&mut retries, Event::Settled);
        }
        tokio::select! {
            biased;
            request = requests.next() => match request {
                None => return Ok(()),
                Some(request) => {
                    let request = request.map_err(Ended::Broken)?;
                    if let Some(event) = session.request(request, source)? {
                        report(&mut retries, event);
                    }
                    if let Some(passed) = session.passed() {
                        report(&mut retries, passed);
                    }
                }
            },
            changed = changes.changed() => changed?,
            () = until(retries.deadline()) => {
                for name in retries.due(Instant::now()) {
                    session.try_again(Type::Listener, &name);
                }
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn names(update: &Update) -> impl Iterator<Item = &Name> {
    update.upserts.iter().map(|item| &item.name).chain(update.removals.iter())
}
