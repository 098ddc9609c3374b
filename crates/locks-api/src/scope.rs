//! Which locks the code that is running now runs under.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::locks::Handle;
use crate::name::LockName;

thread_local! {
    /// The locks of the bodies that are being polled on this thread, outermost first. Set only while a poll lasts, so it follows
    /// the task and not the thread.
    static INSIDE: RefCell<Vec<(usize, LockName)>> = const { RefCell::new(Vec::new()) };
}

/// Whether the running code is inside a body that runs under this lock.
pub(crate) fn is_inside(handle: &Arc<Handle>, name: &LockName) -> bool {
    INSIDE.with_borrow(|inside| inside.iter().any(|(locks, held)| *locks == id(handle) && held == name))
}

/// Runs `body` as one that runs under this lock.
pub(crate) async fn inside<B: Future>(handle: &Arc<Handle>, name: &LockName, body: B) -> B::Output {
    let mut body = pin!(body);
    std::future::poll_fn(|context| poll_inside(handle, name, body.as_mut(), context)).await
}

fn poll_inside<B: Future>(
    handle: &Arc<Handle>,
    name: &LockName,
    body: Pin<&mut B>,
    context: &mut Context<'_>,
) -> Poll<B::Output> {
    /// Leaves the scope even if the body panics.
    struct Leave;

    impl Drop for Leave {
        fn drop(&mut self) {
            INSIDE.with_borrow_mut(Vec::pop);
        }
    }

    INSIDE.with_borrow_mut(|inside| inside.push((id(handle), name.clone())));
    let _leave = Leave;
    body.poll(context)
}

fn id(handle: &Arc<Handle>) -> usize {
    Arc::as_ptr(handle).addr()
}
