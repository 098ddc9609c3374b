//! Everything that the main thread waits for, in one place: futures, signals, the command's end, the guardian and the time.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use locks::Boottime;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::signals::{Signals, ring};

#[derive(Debug)]
pub(crate) struct Reactor {
    rung: UnixStream,
    waker: Waker,
    signals: Signals,
}

struct Bell(Arc<UnixStream>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        ring(&self.0);
    }
}

/// The longest sleep while something is to happen at a certain time: the clock that leases are measured on goes on while the machine is
/// suspended, the one that wakes us does not.
const NAP: Duration = Duration::from_secs(1);

impl Reactor {
    /// Begins to watch signals.
    ///
    /// # Errors
    ///
    /// If the operating system refuses, such as for want of descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let (rung, bell) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        rung.set_nonblocking(true)?;
        let bell = Arc::new(bell);
        let signals = Signals::watch(&bell)?;
        Ok(Self { rung, waker: Waker::from(Arc::new(Bell(bell))), signals })
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.signals
    }

    pub(crate) fn signals_mut(&mut self) -> &mut Signals {
        &mut self.signals
    }

    /// Runs `future` to its end. Signals are kept.
    pub(crate) fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = self.poll(future.as_mut()) {
                return output;
            }
            self.sleep(None, None);
        }
    }

    /// Runs `future` to its end, or drops it when a signal comes first.
    pub(crate) fn run_unless_signalled<F: Future>(&self, future: F) -> Result<F::Output, Signal> {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = self.poll(future.as_mut()) {
                return Ok(output);
            }
            if let Some(signal) = self.signals.arrivals().next() {
                return Err(signal);
            }
            self.sleep(None, None);
        }
    }

    /// Polls once; the bell rings when it is worth another try.
    pub(crate) fn poll<F: Future + ?Sized>(&self, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&self.waker))
    }

    /// Returns when the bell has rung since the last return, when `other` has something to read, at `until`, or before.
    pub(crate) fn sleep(&self, until: Option<Boottime>, other: Option<BorrowedFd<'_>>) {
        let limit = match until {
            None => PollTimeout::NONE,
            Some(until) => {
                let rest = until.since(Boottime::now()).min(NAP);
                // Rounded up, so that the time has come when we are back.
                let millis = u16::try_from(rest.as_micros().div_ceil(1_000)).unwrap_or(u16::MAX);
                PollTimeout::from(millis)
            }
        };
        let bell = PollFd::new(self.rung.as_fd(), PollFlags::POLLIN);
        let other = PollFd::new(other.unwrap_or(self.rung.as_fd()), PollFlags::POLLIN);
        // Interrupted is as good as woken: whoever sleeps looks around and sleeps again.
        if poll(&mut [bell, other], limit).is_ok() {
            let mut rung = &self.rung;
            while rung.read(&mut [0; 64]).is_ok_and(|read| read == 64) {}
        }
    }
}
