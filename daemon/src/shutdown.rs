//! How a program is stopped: the first signal asks, the second insists.

use std::{future::Future, io, time::Duration};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Why a program did not stop by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Aborted {
    #[error("not stopped within {}", crate::duration::print(*.0))]
    TooSlow(Duration),
    #[error("aborted by a second signal ({0})")]
    Insisted(&'static str),
}

/// The signals that stop a program.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Runs `program` until it ends. A signal cancels `shutdown`; from then on the program has `within`
/// to end, or until another signal.
pub(crate) async fn run_until(
    program: impl Future<Output = anyhow::Result<()>>,
    mut next_signal: impl AsyncFnMut() -> &'static str,
    shutdown: CancellationToken,
    within: Duration,
) -> anyhow::Result<()> {
    let mut program = std::pin::pin!(program);
    let signal = tokio::select! {
        biased;
        ended = &mut program => return ended,
        signal = next_signal() => signal,
    };
    tracing::info!(signal, "stopping");
    shutdown.cancel();
    tokio::select! {
        biased;
        ended = &mut program => ended,
        signal = next_signal() => Err(Aborted::Insisted(signal).into()),
        () = tokio::time::sleep_until(tokio::time::Instant::now() + within) => {
            Err(Aborted::TooSlow(within).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{sync::mpsc, time::Instant};

    const WITHIN: Duration = Duration::from_secs(30);

    async fn run(
        program: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>,
        signals: &[&'static str],
    ) -> String {
        let (sender, mut receiver) = mpsc::channel(2);
        for signal in signals {
            sender.try_send(*signal).unwrap();
        }
        let next = async || receiver.recv().await.unwrap();
        let shutdown = CancellationToken::new();
        match run_until(program(shutdown.clone()), next, shutdown, WITHIN).await {
            Ok(()) => "stopped".into(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_signal_lets_the_program_finish() {
        let graceful = async |shutdown: CancellationToken| {
            shutdown.cancelled().await;
            tokio::time::advance(Duration::from_secs(29)).await;
            Ok(())
        };
        assert_eq!(run(graceful, &["SIGTERM"]).await, "stopped");
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_and_a_second_signal_abort() {
        let deaf = async |_| std::future::pending().await;
        let began = Instant::now();
        assert_eq!(run(deaf, &["SIGTERM"]).await, "not stopped within 30s");
        assert_eq!(began.elapsed().as_secs(), 30);
        let aborted = run(deaf, &["SIGTERM", "SIGINT"]).await;
        assert_eq!(aborted, "aborted by a second signal (SIGINT)");
        assert_eq!(began.elapsed().as_secs(), 30, "a second signal is not waited with");
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_fails_says_why() {
        let failing = async |_| Err(anyhow::anyhow!("port taken").context("kds.listen"));
        assert_eq!(run(failing, &[]).await, "kds.listen: port taken");
    }
}
