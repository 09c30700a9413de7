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

/// Shows how the proxy is. Ready while Envoy serves, and had a session once: a control plane that is away takes nothing
/// away from the application.
pub(crate) async fn show(
    ready: Ready,
    numbers: Numbers,
    mut connected: watch::Receiver<bool>,
    mut serving: watch::Receiver<bool>,
) {
    let mut envoy = Some(ready.guard("envoy"));
    let mut session = Some(ready.guard("session"));
    loop {
        let (serves, connects) = (*serving.borrow_and_update(), *connected.borrow_and_update());
        numbers.ready.set(i64::from(serves));
        numbers.connected.set(i64::from(connects));
        if connects {
            drop(session.take());
        }
        envoy = if serves { None } else { envoy.or_else(|| Some(ready.guard("envoy"))) };
        let changed = tokio::select! {
            biased;
            changed = serving.changed() => changed,
            changed = connected.changed() => changed,
        };
        // The process ends.
        if changed.is_err() {
            return;
        }
    }
}
