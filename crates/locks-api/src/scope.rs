//! Which locks the code that is running now runs under.

use std::cell::{OnceCell, RefCell};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::Lease;
use crate::locks::Handle;
use crate::name::LockName;
use crate::token::FencingToken;

thread_local! {
    /// The locks of the bodies that run on this thread, outermost first. Those of an async body are here only while a poll lasts, so they
    /// follow the task and not the thread.
    static INSIDE: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

/// A lock that a body runs under. It goes when the body has ended, before the lock does.
pub(crate) struct Frame {
    pub(crate) handle: Arc<Handle>,
    pub(crate) name: LockName,
    pub(crate) token: FencingToken,
    pub(crate) lease: Arc<Lease>,
    /// Told to those who have asked for the frame and may outlive it.
    ended: OnceCell<Arc<AtomicBool>>,
}

impl Frame {
    pub(crate) fn new(
        handle: &Arc<Handle>,
        name: &LockName,
        token: FencingToken,
        lease: &Arc<Lease>,
    ) -> Self {
        Self {
            handle: Arc::clone(handle),
            name: name.clone(),
            token,
            lease: Arc::clone(lease),
            ended: OnceCell::new(),
        }
    }

    /// True once the body has ended.
    pub(crate) fn ended(&self) -> &Arc<AtomicBool> {
        self.ended.get_or_init(Arc::default)
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.get() {
            ended.store(true, Ordering::Release);
        }
    }
}

/// Whether the running code is inside a body that runs under this lock.
pub(crate) fn is_inside(handle: &Arc<Handle>, name: &LockName) -> bool {
    INSIDE.with_borrow(|inside| {
        inside.iter().any(|frame| Arc::ptr_eq(&frame.handle, handle) && frame.name == *name)
    })
}

/// What `read` says of the innermost lock that the running code runs under, if there is one.
pub(crate) fn innermost<T>(read: impl FnOnce(&Frame) -> T) -> Option<T> {
    // A thread that is about to end runs under nothing any more.
    INSIDE.try_with(|inside| inside.borrow().last().map(read)).ok().flatten()
}

/// Runs `body` as one that runs under these locks.
pub(crate) async fn inside<B: Future>(mut frames: impl AsMut<[Option<Frame>]>, body: B) -> B::Output {
    let mut body = pin!(body);
    std::future::poll_fn(|context| {
        let _inside = Inside::enter(frames.as_mut());
        body.as_mut().poll(context)
    })
    .await
}

/// While it lives, the thread runs under these locks. It leaves them even if the body panics.
struct Inside<'a> {
    frames: &'a mut [Option<Frame>],
    outside: usize,
}

impl<'a> Inside<'a> {
    /// The frames move to the thread and back: no count of theirs is touched for it.
    fn enter(frames: &'a mut [Option<Frame>]) -> Self {
        let outside = INSIDE.with_borrow_mut(|inside| {
            let outside = inside.len();
            inside.extend(frames.iter_mut().filter_map(Option::take));
            outside
        });
        Self { frames, outside }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        INSIDE.with_borrow_mut(|inside| {
            for (place, frame) in self.frames.iter_mut().zip(inside.drain(self.outside..)) {
                *place = Some(frame);
            }
        });
    }
}
