//! A response stream that does the work of its call itself.
//!
//! No task to own: the work goes on while somebody reads, and is dropped with the stream.

use futures::Stream;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc;
use tonic::Status;

type Work = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// What the work puts into a channel, until the work ends.
pub(super) struct Driven<T> {
    items: mpsc::Receiver<T>,
    work: Option<Work>,
    failed: Option<Status>,
}

impl<T> Driven<T> {
    /// `work` puts its messages into the other end of `items`.
    pub(super) fn new(
        items: mpsc::Receiver<T>,
        work: impl Future<Output = Result<(), Status>> + Send + 'static,
    ) -> Self {
        Self { items, work: Some(Box::pin(work)), failed: None }
    }
}

impl<T> fmt::Debug for Driven<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Driven")
    }
}

impl<T> Stream for Driven<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // What was put there leaves before anything new is done: a slow reader slows the work.
        if let Poll::Ready(Some(item)) = self.items.poll_recv(cx) {
            return Poll::Ready(Some(Ok(item)));
        }
        if let Some(work) = &mut self.work
            && let Poll::Ready(result) = work.as_mut().poll(cx)
        {
            self.work = None;
            self.failed = result.err();
        }
        if let Poll::Ready(Some(item)) = self.items.poll_recv(cx) {
            return Poll::Ready(Some(Ok(item)));
        }
        match self.work {
            Some(_) => Poll::Pending,
            None => Poll::Ready(self.failed.take().map(Err)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_comes_before_why_it_ended() {
        let (sender, items) = mpsc::channel(1);
        let work = async move {
            for number in 0..3 {
                sender.send(number).await.map_err(|_| Status::cancelled(""))?;
            }
            Err(Status::aborted("enough"))
        };
        let all: Vec<_> = Driven::new(items, work)
            .map(|item| item.map_err(|status| status.message().to_owned()))
            .collect()
            .await;
        assert_eq!(all, [Ok(0), Ok(1), Ok(2), Err("enough".into())]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_work_is_dropped_with_the_stream() {
        let (sender, items) = mpsc::channel(1);
        let held = sender.clone();
        let work = async move {
            sender.send(1).await.map_err(|_| Status::cancelled(""))?;
            let never: () = std::future::pending().await;
            drop(sender);
            Ok(never)
        };
        let mut driven = Driven::new(items, work);
        assert_eq!(driven.next().await.unwrap().unwrap(), 1);
        drop(driven);
        assert!(held.is_closed());
    }
}
