//! How a proxy is: told to its control plane, and shown.

use crate::numbers::Numbers;
use daemon::Ready;
use proto::atoll::proxy::v1::State;
use std::collections::BTreeMap;
use tokio::sync::watch;

/// Puts together what the control plane is told.
pub(crate) async fn tell(
    mut serving: watch::Receiver<bool>,
    mut inbounds: watch::Receiver<BTreeMap<String, bool>>,
    state: watch::Sender<State>,
) {
    loop {
        let now = State {
            ready: *serving.borrow_and_update(),
            inbounds: inbounds.borrow_and_update().clone(),
        };
        state.send_if_modified(|state| {
            let changed = *state != now;
            *state = now;
            changed
        });
        let changed = tokio::select! {
            biased;
            changed = serving.changed() => changed,
            changed = inbounds.changed() => changed,
        };
        // The process ends.
        if changed.is_err() {
            return;
        }
    }
}

/// How it stands with the control plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contact {
    /// Whether there is a session.
    pub(crate) connected: bool,
    /// Whether the proxy serves less than it should, as the control plane says.
    pub(crate) unready: bool,
}

/// Shows how the proxy is. Ready while Envoy serves all it should, and had a session once: a control
/// plane that is away takes nothing away from the application.
pub(crate) async fn show(
    ready: Ready,
    numbers: Numbers,
    mut contact: watch::Receiver<Contact>,
    mut serving: watch::Receiver<bool>,
) {
    let mut envoy = Some(ready.guard(ENVOY));
    let mut session = Some(ready.guard(SESSION));
    let mut listeners = None;
    loop {
        let (serves, now) = (*serving.borrow_and_update(), *contact.borrow_and_update());
        numbers.ready.set(i64::from(serves));
        numbers.connected.set(i64::from(now.connected));
        if now.connected {
            drop(session.take());
        }
        envoy = if serves { None } else { envoy.or_else(|| Some(ready.guard(ENVOY))) };
        let lacks = now.unready;
        listeners = if lacks { listeners.or_else(|| Some(ready.guard(LISTENERS))) } else { None };
        let changed = tokio::select! {
            biased;
            changed = serving.changed() => changed,
            changed = contact.changed() => changed,
        };
        // The process ends.
        if changed.is_err() {
            return;
        }
    }
}

const ENVOY: &str = "envoy";
const SESSION: &str = "session";
const LISTENERS: &str = "listeners";

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn it_is_ready_while_envoy_serves_all_it_should() {
        let ready = Ready::new(CancellationToken::new());
        let (contact, contacted) = watch::channel(Contact::default());
        let (serves, serving) = watch::channel(false);
        let show = show(ready.clone(), Numbers::default(), contacted, serving);
        let mut show = tokio_test::task::spawn(show);
        let mut missing = |connected, unready| {
            contact.send_replace(Contact { connected, unready });
            assert!(show.poll().is_pending());
            ready.missing()
        };
        assert_eq!(missing(false, false), ["envoy", "session"]);
        serves.send_replace(true);
        assert_eq!(missing(true, false), [""; 0]);
        assert_eq!(missing(true, true), ["listeners"]);
        assert_eq!(missing(true, false), [""; 0]);
        assert_eq!(missing(false, true), ["listeners"], "it is what it was");
        assert_eq!(missing(false, false), [""; 0], "a control plane may be away");
    }
}
