//! Recognises a forked child.
//!
//! A child of `fork` has a copy of everything but the threads, and its mutexes are as they were in mid-flight: it may not
//! touch an engine of its parent. Asking for the process id costs a system call, more than all else on the way to a free lock, so
//! the C library is asked to count forks instead.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many forks lie between the first process of the library and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// A process's place in a line of forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u32);

impl Generation {
    /// The present process's. Later forks are counted from the first call on.
    pub(crate) fn current() -> Self {
        static COUNT_FORKS: Once = Once::new();
        COUNT_FORKS.call_once(count_forks);
        Self::seen()
    }

    /// Whether the present process is a child that was forked since.
    pub(crate) fn is_over(self) -> bool {
        Self::seen() != self
    }

    fn seen() -> Self {
        Self(GENERATION.load(Ordering::Relaxed))
    }
}

#[expect(unsafe_code, reason = "there is no other way to hear of a fork than pthread_atfork")]
fn count_forks() {
    extern "C" fn in_child() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the handler is a static function that only adds to an atomic, which is async-signal-safe, as a
    // child of a process with threads requires. If there is no memory to register it, forks go unnoticed, as with a raw `clone`.
    let _registered = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}
