//! Futures that are polled so many times and then dropped.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How long a future that is to be polled again is given to ask for it.
const PATIENCE: Duration = Duration::from_millis(2);

/// Polls `future` at most `polls` times and drops it; its value, if it was ready by then.
///
/// It is polled again when it asks for it, and otherwise after a moment: polling too often is always allowed.
pub(crate) async fn poll_at_most<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(value) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Some(value);
        }
        // Running out of patience is as good as being woken.
        tokio::time::timeout(PATIENCE, woken()).await.unwrap_or_default();
    }
    None
}

/// The value of `future`, and how often it was polled: only when it asked for it, however long that took.
pub(crate) async fn counting_polls<F: Future>(future: F) -> (F::Output, usize) {
    let (mut future, mut polls) = (pin!(future), 0);
    let value = poll_fn(|cx| {
        polls += 1;
        future.as_mut().poll(cx)
    })
    .await;
    (value, polls)
}

/// Polls once, with nobody to wake.
pub(crate) fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Ready when the task is woken.
async fn woken() {
    let mut polled = false;
    poll_fn(|_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Polls a pinned future once, with the task's own waker.
pub(crate) async fn poll_now<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}
