//! Everything that the main thread waits for, in one place: futures, signals and the command's end all ring
//! one bell, and waiting is one blocking read.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

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

impl Reactor {
    /// Begins to watch signals.
    ///
    /// # Errors
    ///
    /// If the operating system refuses, such as for want of descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let (rung, bell) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        let bell = Arc::new(bell);
        let signals = Signals::watch(&bell)?;
        Ok(Self { rung, waker: Waker::from(Arc::new(Bell(bell))), signals })
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Runs `future` to its end. Signals are kept.
    pub(crate) fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = self.poll(future.as_mut()) {
                return output;
            }
            self.sleep();
        }
    }

    /// Runs `future` to its end, or drops it when a signal comes first.
    pub(crate) fn run_unless_signalled<F: Future>(&self, future: F) -> Result<F::Output, Signal> {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = self.poll(future.as_mut()) {
                return Ok(output);
            }
            if let Some(arrival) = self.signals.arrivals().next() {
                return Err(arrival.signal);
            }
            self.sleep();
        }
    }

    /// Polls once; the bell rings when it is worth another try.
    pub(crate) fn poll<F: Future>(&self, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&self.waker))
    }

    /// Returns when the bell has rung since the last return.
    pub(crate) fn sleep(&self) {
        // The only trouble that a read from our own socket can have is to be interrupted.
        while (&self.rung).read(&mut [0; 64]).is_err() {}
    }
}
