//! fork() without exec: what a lock library must survive, and what no safe function offers.
#![expect(unsafe_code, reason = "there is no other way to fork without exec")]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// Runs `body` in a forked child, in which only the calling thread goes on, and returns its exit code; `None` if it died otherwise.
///
/// The child ends without running any destructor but the body's own.
pub(crate) fn in_forked_child(body: impl FnOnce() -> u8) -> io::Result<Option<u8>> {
    // SAFETY: the child runs `body` and then leaves by `_exit`. `body` comes from the kit's own cases: it allocates, which
    // glibc and musl allow after fork, and takes no lock that another thread of the parent may have held, which is
    // what the case using it is about.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, code) => Ok(u8::try_from(code).ok()),
            _ => Ok(None),
        },
        ForkResult::Child => {
            let guarded = || {
                // A child that hangs goes when its parent is killed for it.
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
                    .map_or(u8::MAX, |()| body())
            };
            let code = catch_unwind(AssertUnwindSafe(guarded)).unwrap_or(u8::MAX);
            // SAFETY: `_exit` ends the process at once; nothing is left to be sound.
            unsafe { nix::libc::_exit(i32::from(code)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_childs_code_comes_back() {
        assert_eq!(in_forked_child(|| 7).unwrap(), Some(7));
    }
}
