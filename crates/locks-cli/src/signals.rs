//! Signals: which ones came, and from whom.
//!
//! The only module that talks to the operating system without a safe wrapper: which signals our parent left ignored, who sent
//! one, and the signal mask of a child can't be had otherwise.
#![expect(
    unsafe_code,
    reason = "sigaction(2) and pre_exec have no safe form that tells the origin or keeps the mask"
)]

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::libc;
use nix::sys::signal::{SigSet, Signal};

/// What is passed on to the command. Stopping and continuing are not: the command shares our process group, so the terminal and
/// the shell reach it as they reach us.
const PASSED_ON: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

const BY_A_PROCESS: u8 = 1;
const BY_THE_TERMINAL: u8 = 2;

/// The watch over [`PASSED_ON`] and over the end of children.
#[derive(Debug)]
pub(crate) struct Signals {
    /// One slot per signal of [`PASSED_ON`]: a set of origins.
    arrived: Arc<[AtomicU8; PASSED_ON.len()]>,
    /// The signals that our parent had blocked.
    inherited_mask: SigSet,
}

/// A signal that came, once or more often, since it was last asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) signal: Signal,
    /// Only the terminal sent it (Ctrl-C, Ctrl-\, hang-up), and so to every process of the foreground group.
    pub(crate) from_terminal: bool,
}

impl Signals {
    /// Begins to watch; every signal writes to `bell`. What our parent ignored stays ignored, as with nohup(1).
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    pub(crate) fn watch(bell: &Arc<UnixStream>) -> io::Result<Self> {
        let arrived = Arc::new([const { AtomicU8::new(0) }; PASSED_ON.len()]);
        for (index, signal) in PASSED_ON.into_iter().enumerate() {
            if is_ignored(signal)? {
                continue;
            }
            let arrived = Arc::clone(&arrived);
            on_signal(signal, bell, move |info| {
                let origin = if is_from_terminal(info) { BY_THE_TERMINAL } else { BY_A_PROCESS };
                arrived[index].fetch_or(origin, Ordering::SeqCst);
            })?;
        }
        // Even if our parent ignored or blocked it: without it nobody would learn of the command's end.
        on_signal(Signal::SIGCHLD, bell, |_| {})?;
        let inherited_mask = SigSet::thread_get_mask()?;
        if inherited_mask.contains(Signal::SIGCHLD) {
            SigSet::from(Signal::SIGCHLD).thread_unblock()?;
        }
        Ok(Self { arrived, inherited_mask })
    }

    /// The signals that came and were not asked for yet, in the order of [`PASSED_ON`]; each is asked for when its turn comes.
    pub(crate) fn arrivals(&self) -> impl Iterator<Item = Arrival> {
        self.arrived.iter().zip(PASSED_ON).filter_map(|(slot, signal)| match slot.swap(0, Ordering::SeqCst) {
            0 => None,
            origins => Some(Arrival { signal, from_terminal: origins == BY_THE_TERMINAL }),
        })
    }

    /// Makes `command` start with the signal mask that we were started with. Handlers end with exec by themselves.
    pub(crate) fn restore_in(&self, command: &mut Command) {
        let mask = self.inherited_mask;
        if mask == SigSet::empty() {
            return;
        }
        // SAFETY: the closure makes one system call and touches no memory but its own.
        unsafe {
            command.pre_exec(move || Ok(mask.thread_set_mask()?));
        }
    }
}

fn on_signal(
    signal: Signal,
    bell: &Arc<UnixStream>,
    note: impl Fn(&libc::siginfo_t) + Send + Sync + 'static,
) -> io::Result<()> {
    let bell = Arc::clone(bell);
    let action = move |info: &libc::siginfo_t| {
        note(info);
        ring(&bell);
    };
    // SAFETY: the action stores to an atomic and sends one byte, both of which a signal handler may do; it allocates nothing,
    // takes no lock and can't panic. The registry keeps errno.
    unsafe { signal_hook_registry::register_sigaction(signal as libc::c_int, action) }?;
    Ok(())
}

/// Wakes whoever reads the other end of `bell`. A full bell rings already.
pub(crate) fn ring(mut bell: &UnixStream) {
    bell.write_all(&[1]).ok();
}

fn is_ignored(signal: Signal) -> io::Result<bool> {
    let mut present = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call only fills `present`, which is large enough.
    let present = unsafe {
        if libc::sigaction(signal as libc::c_int, std::ptr::null(), present.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        present.assume_init()
    };
    Ok(present.sa_sigaction == libc::SIG_IGN)
}

/// Keys of the terminal are signals of the kernel, everything else is sent by a process. Where the kernel doesn't tell,
/// a Ctrl-C reaches the command twice.
fn is_from_terminal(info: &libc::siginfo_t) -> bool {
    cfg!(any(target_os = "linux", target_os = "android")) && info.si_code == SI_KERNEL
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const SI_KERNEL: libc::c_int = libc::SI_KERNEL;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SI_KERNEL: libc::c_int = libc::c_int::MAX;
