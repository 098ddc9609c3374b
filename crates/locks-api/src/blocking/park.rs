//! Waiting for a future on the calling thread.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::task::coop::unconstrained;

use crate::clock::Boottime;

/// Waits for a future of this library. Parks the thread and needs no runtime, so it may be called inside one.
///
/// Not for futures of others: they may need the thread that it parks.
pub fn wait<F: Future>(future: F) -> F::Output {
    // A task of tokio has a budget, which nothing would ever fill up again while this waits.
    let mut future = pin!(unconstrained(future));
    let (parker, waker) = Parker::new();
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        // Others may unpark the thread for reasons of their own.
        while !parker.was_woken() {
            thread::park();
        }
    }
}

/// [`wait`] for so long at most. It looks once, however short that is.
pub(crate) fn wait_timeout<F: Future>(future: F, timeout: Duration) -> Option<F::Output> {
    let deadline = Boottime::now().after(timeout);
    let mut future = pin!(unconstrained(future));
    let (parker, waker) = Parker::new();
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        while !parker.was_woken() {
            let rest = deadline.since(Boottime::now());
            if rest.is_zero() {
                return None;
            }
            thread::park_timeout(rest);
        }
    }
}

/// Wakes one wait. There is one for each: the future may call back into this library, and no wake-up may go to the wrong one of two.
struct Parker {
    thread: Thread,
    woken: AtomicBool,
}

impl Parker {
    fn new() -> (Arc<Self>, Waker) {
        let parker = Arc::new(Self { thread: thread::current(), woken: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&parker));
        (parker, waker)
    }

    /// Whether it was, since this was asked last.
    fn was_woken(&self) -> bool {
        self.woken.swap(false, Ordering::Acquire)
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_wait_ends_with_its_future_or_its_time() {
        assert_eq!(wait(async { 7 }), 7);
        assert_eq!(wait_timeout(async { 7 }, Duration::ZERO), Some(7));
        assert_eq!(wait_timeout(std::future::pending::<u8>(), Duration::from_millis(10)), None);
        let (send, receive) = oneshot::channel();
        let sender = thread::spawn(move || send.send(7));
        assert_eq!(wait(receive), Ok(7));
        sender.join().unwrap().unwrap();
    }

    #[test]
    fn a_wait_inside_the_poll_of_another_takes_none_of_its_wake_ups() {
        let (send, mut receive) = oneshot::channel();
        let mut send = Some(send);
        let polled = std::future::poll_fn(|context| {
            let outer = pin!(&mut receive).poll(context);
            if let Some(send) = send.take() {
                // It wakes the outer one while the inner one waits.
                thread::spawn(move || send.send(7)).join().unwrap().unwrap();
                assert_eq!(wait_timeout(std::future::pending::<u8>(), Duration::from_millis(1)), None);
            }
            outer
        });
        assert_eq!(wait(polled), Ok(7));
    }
}
