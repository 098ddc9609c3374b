//! Who asks for a lock: on which thread, and whether that thread does anything else meanwhile.

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread::{self, ThreadId};

use tokio::runtime::{Handle, RuntimeFlavor};

/// Who asks for a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The thread whose tasks have to get on before the lock is given back: the one that polled the request first. `None` for a blocking
    /// caller that keeps no tasks from anything; what it holds may go to any thread.
    pub(crate) thread: Option<ThreadId>,
    pub(crate) manner: Manner,
}

/// What a caller does until it has the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It awaits it.
    #[default]
    Awaits,
    /// It blocks its thread.
    Blocks,
    /// It asks again some time, and blocks its thread never or not at the moment.
    Looks,
}

impl Caller {
    /// The caller that runs on this thread now.
    pub(crate) fn here(manner: Manner) -> Self {
        let thread = (manner == Manner::Awaits || runs_tasks()).then(this_thread);
        Self { thread, manner }
    }

    /// The thread whose tasks all stand still while this caller waits.
    pub(crate) fn stops(self) -> Option<ThreadId> {
        self.thread.filter(|_| self.manner == Manner::Blocks)
    }
}

/// [`thread::current`]'s id, without counting a reference on every request.
fn this_thread() -> ThreadId {
    thread_local! {
        static ID: Cell<Option<ThreadId>> = const { Cell::new(None) };
    }
    ID.get().unwrap_or_else(|| {
        let id = thread::current().id();
        ID.set(Some(id));
        id
    })
}

/// Whether this thread drives a current-thread runtime at this moment.
fn runs_tasks() -> bool {
    let Ok(runtime) = Handle::try_current() else { return false };
    if runtime.runtime_flavor() != RuntimeFlavor::CurrentThread {
        return false;
    }
    // The threads of `spawn_blocking` have the same handle. What yields there is woken on the spot, since nobody else would
    // do it; a scheduler does so when it gets on.
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let yields = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
    yields.is_pending() && !woken.0.load(Ordering::Acquire)
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn only_the_thread_that_drives_a_current_thread_runtime_runs_tasks() {
        assert!(!runs_tasks());
        let runtime = Builder::new_current_thread().build().unwrap();
        let handle = runtime.handle().clone();
        runtime.block_on(async {
            assert!(runs_tasks());
            assert!(tokio::spawn(async { runs_tasks() }).await.unwrap());
            assert!(tokio::task::unconstrained(async { runs_tasks() }).await);
            assert!(!tokio::task::spawn_blocking(runs_tasks).await.unwrap());
            let entered = move || {
                let _entered = handle.enter();
                runs_tasks()
            };
            assert!(!thread::spawn(entered).join().unwrap());
        });
        let local = tokio::task::LocalSet::new();
        assert!(
            local.block_on(&runtime, async {
                tokio::task::spawn_local(async { runs_tasks() }).await.unwrap()
            })
        );
        let many = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        assert!(!many.block_on(async { runs_tasks() }));
        assert!(!many.block_on(async { tokio::spawn(async { runs_tasks() }).await.unwrap() }));
        assert!(!runs_tasks());
    }
}
