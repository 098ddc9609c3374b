//! What the operating system offers without a safe wrapper. All `unsafe` of the commands is here and in `unwinder`.
#![expect(
    unsafe_code,
    reason = "sigaction(2), fork(2), exec(2), and descriptors that kill a process group have no safe form"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicI32, Ordering};

use nix::libc;
#[cfg(target_os = "linux")]
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{ForkResult, Pid};

/// Does `work` in the handler of `signal`, beside what others do there. It must do nothing but store to atomics and make system calls.
///
/// # Errors
///
/// If the operating system refuses.
pub(crate) fn on_signal(signal: Signal, work: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
    // SAFETY: the callers store to an atomic and send one byte, both of which a signal handler may do; they allocate nothing, take no
    // lock and can't panic. The registry keeps errno.
    unsafe { signal_hook_registry::register(signal as libc::c_int, work) }?;
    Ok(())
}

/// Whether our parent left `signal` ignored.
///
/// # Errors
///
/// If the operating system refuses.
pub(crate) fn is_ignored(signal: Signal) -> io::Result<bool> {
    Ok(action_of(signal)?.sa_sigaction == libc::SIG_IGN)
}

/// Stops our whole process group, ourselves included, as the terminal's key does; returns when we are continued, and at once if nobody could
/// continue us.
///
/// # Errors
///
/// If the operating system refuses.
pub(crate) fn stop_our_group() -> io::Result<()> {
    let ours = action_of(Signal::SIGTSTP)?;
    let mut default = ours;
    default.sa_sigaction = libc::SIG_DFL;
    // SAFETY: both actions are whole, and `default` needs no handler. kill(2) takes any numbers.
    unsafe {
        checked(libc::sigaction(libc::SIGTSTP, &raw const default, std::ptr::null_mut()))?;
        let stopped = checked(libc::kill(0, libc::SIGTSTP));
        checked(libc::sigaction(libc::SIGTSTP, &raw const ours, std::ptr::null_mut()))?;
        stopped
    }
}

/// Sends SIGINT to our whole process group and ends by it ourselves, as if the terminal had sent it. Returns if our parent wants it ignored.
pub(crate) fn interrupt_our_group() {
    if is_ignored(Signal::SIGINT).unwrap_or(true) {
        return;
    }
    // SAFETY: the default action needs no handler; kill(2) takes any numbers.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_DFL);
        libc::kill(0, libc::SIGINT);
    }
}

/// Makes a process that does `work`, which becomes another program or returns why it can't; it may only make system calls. All
/// signals are blocked in it.
///
/// # Errors
///
/// What `work` returned, or that there can't be another process.
#[cfg(target_os = "linux")]
pub(crate) fn spawn(work: impl Fn() -> io::Error) -> io::Result<Pid> {
    let failed = AtomicI32::new(0);
    let child = || {
        failed.store(work().raw_os_error().unwrap_or(libc::EINVAL), Ordering::SeqCst);
        1
    };
    // So large that it is memory of its own, of which only what is used costs anything.
    let mut stack = vec![0; 256 * 1_024];
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // A handler must not run in the child, whose memory is ours.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    // SAFETY: as with posix_spawn(3): the child has a stack of its own, and we wait until it has become another program or is gone. Copying
    // our memory, as fork(2) does, costs a start more than all else.
    let pid = unsafe { nix::sched::clone(Box::new(child), &mut stack, flags, Some(libc::SIGCHLD)) };
    before.thread_set_mask()?;
    let pid = pid?;
    match failed.load(Ordering::SeqCst) {
        0 => Ok(pid),
        error => {
            nix::sys::wait::waitpid(pid, None).ok();
            Err(io::Error::from_raw_os_error(error))
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn spawn(work: impl Fn() -> io::Error) -> io::Result<Pid> {
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let pid = fork(|| {
        let error = work().raw_os_error().unwrap_or(libc::EINVAL);
        io::Write::write_all(&mut &theirs, &error.to_le_bytes()).ok();
    });
    before.thread_set_mask()?;
    let pid = pid?;
    drop(theirs);
    let mut error = [0; 4];
    // It is closed by whoever becomes another program.
    if io::Read::read_exact(&mut ours, &mut error).is_err() {
        return Ok(pid);
    }
    nix::sys::wait::waitpid(pid, None).ok();
    Err(io::Error::from_raw_os_error(i32::from_le_bytes(error)))
}

/// Takes the handlers away, as exec does, from those of these signals that have one.
///
/// # Errors
///
/// If the operating system refuses.
pub(crate) fn without_handlers(signals: impl IntoIterator<Item = Signal>) -> io::Result<()> {
    for signal in signals {
        let mut action = action_of(signal)?;
        // The standard library ignores this one for us alone.
        if action.sa_sigaction != libc::SIG_IGN || signal == Signal::SIGPIPE {
            action.sa_sigaction = libc::SIG_DFL;
            // SAFETY: the action is whole, and the default needs no handler.
            checked(unsafe {
                libc::sigaction(signal as libc::c_int, &raw const action, std::ptr::null_mut())
            })?;
        }
    }
    Ok(())
}

/// What exec takes a list of.
#[derive(Debug)]
pub(crate) struct Strings {
    /// Keeps alive what `addresses` points to, which stays where it is.
    _strings: Vec<CString>,
    /// Of each string, and a zero at the end.
    addresses: Vec<usize>,
}

impl Strings {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let mut addresses: Vec<usize> =
            strings.iter().map(|string| string.as_ptr().expose_provenance()).collect();
        addresses.push(0);
        Self { _strings: strings, addresses }
    }
}

/// Becomes the program at `path`; returns why it can't. Makes one system call only.
pub(crate) fn exec(path: &CStr, arguments: &Strings, environment: &Strings) -> io::Error {
    // SAFETY: both lists end with a null pointer, and all that they point to is alive and ends with a NUL.
    unsafe {
        libc::execve(
            path.as_ptr(),
            arguments.addresses.as_ptr().cast(),
            environment.addresses.as_ptr().cast(),
        );
    }
    io::Error::last_os_error()
}

/// Makes a process that does `work`, without another program, and ends when it returns.
///
/// # Errors
///
/// If there can't be another process.
pub(crate) fn fork(work: impl FnOnce()) -> io::Result<Pid> {
    // SAFETY: other threads may have held locks. The one caller's work only makes system calls, and the process ends without
    // destructors.
    unsafe {
        match nix::unistd::fork()? {
            ForkResult::Parent { child } => Ok(child),
            ForkResult::Child => {
                work();
                libc::_exit(0)
            }
        }
    }
}

/// A child of ours, whichever, that has ended and still waits to be waited for.
#[cfg(target_os = "linux")]
pub(crate) fn ended_child() -> Option<Pid> {
    let mut ended = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the call fills `ended`, which is large enough, or leaves it zero.
    let pid = unsafe {
        checked(libc::waitid(libc::P_ALL, 0, ended.as_mut_ptr(), options)).ok()?;
        ended.assume_init().si_pid()
    };
    (pid != 0).then(|| Pid::from_raw(pid))
}

/// Has the kernel kill the process group `group` as soon as the other end of this socket is closed, for whatever reason. The group must exist.
///
/// # Errors
///
/// If the operating system refuses.
#[cfg(target_os = "linux")]
pub(crate) fn kill_on_hang_up(socket: BorrowedFd<'_>, group: Pid) -> io::Result<()> {
    let socket = socket.as_raw_fd();
    // SAFETY: the descriptor is open, and these commands take integers.
    unsafe {
        checked(libc::fcntl(socket, F_SETSIG, libc::SIGKILL))?;
        checked(libc::fcntl(socket, libc::F_SETOWN, -group.as_raw()))?;
        let flags = libc::fcntl(socket, libc::F_GETFL);
        checked(flags)?;
        checked(libc::fcntl(socket, libc::F_SETFL, flags | libc::O_ASYNC))
    }
}

/// Takes [`kill_on_hang_up`] back.
///
/// # Errors
///
/// If the operating system refuses.
#[cfg(target_os = "linux")]
pub(crate) fn spare_on_hang_up(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the command takes an integer.
    checked(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETOWN, 0) })
}

#[cfg(target_os = "linux")]
const F_SETSIG: libc::c_int = 10;

/// Other systems can send only SIGIO, which a command may ignore.
#[cfg(not(target_os = "linux"))]
pub(crate) fn kill_on_hang_up(_: BorrowedFd<'_>, _: Pid) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn spare_on_hang_up(_: &OwnedFd) -> io::Result<()> {
    Ok(())
}

/// Closes all descriptors but these two. Only for a process that uses no others.
pub(crate) fn close_all_but(mut kept: [RawFd; 3]) {
    kept.sort_unstable();
    let [low, middle, high] = kept;
    for (first, last) in [(0, low - 1), (low + 1, middle - 1), (middle + 1, high - 1), (high + 1, RawFd::MAX)]
    {
        if first <= last {
            close_range(first, last);
        }
    }
}

fn close_range(first: RawFd, last: RawFd) {
    #[cfg(target_os = "linux")]
    // SAFETY: nobody in this process uses these descriptors any more.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    // SAFETY: takes any number.
    let most = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    for descriptor in first..=last.min(RawFd::try_from(most).unwrap_or(1_024).min(65_536)) {
        // SAFETY: nobody in this process uses this descriptor any more.
        unsafe { libc::close(descriptor) };
    }
}

/// A copy of the descriptor with this number, which our parent left open for us. Unless it is a standard stream, the command does not
/// inherit it.
///
/// # Errors
///
/// If it is not open.
pub(crate) fn inherited(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor > 2 {
        // SAFETY: sets a flag of a descriptor, or is an error if there is none.
        checked(unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    }
    // SAFETY: it is only duplicated; should it not be open, that is the error.
    unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()
}

fn action_of(signal: Signal) -> io::Result<libc::sigaction> {
    let mut present = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call only fills `present`, which is large enough.
    unsafe {
        checked(libc::sigaction(signal as libc::c_int, std::ptr::null(), present.as_mut_ptr()))?;
        Ok(present.assume_init())
    }
}

fn checked(answer: libc::c_int) -> io::Result<()> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
