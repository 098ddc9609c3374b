//! Signals: which ones came.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

use crate::system::{is_ignored, on_signal};

/// What ends a wait for the lock, and is passed on to the command.
const PASSED_ON: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// What is passed on to the command while it runs, and has its usual effect on us before. To be continued goes last, so that a stop and what ended
/// it, seen together, leave the command running.
const WHILE_IT_RUNS: [Signal; 3] = [Signal::SIGWINCH, Signal::SIGTSTP, Signal::SIGCONT];

/// Where among them.
const CONTINUED: usize = 2;

/// All that may have a handler, ours or the standard library's.
pub(crate) const WITH_HANDLERS: [Signal; 13] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGCHLD,
    Signal::SIGPIPE,
    Signal::SIGSEGV,
    Signal::SIGBUS,
];

/// The watch over signals and over the end of children.
#[derive(Debug)]
pub(crate) struct Signals {
    bell: Arc<UnixStream>,
    /// In the order of [`PASSED_ON`].
    passed_on: Arc<[AtomicBool; PASSED_ON.len()]>,
    /// In the order of [`WHILE_IT_RUNS`].
    while_it_runs: Arc<[AtomicBool; WHILE_IT_RUNS.len()]>,
    /// The signals that our parent had blocked.
    inherited_mask: SigSet,
}

impl Signals {
    /// Begins to watch; every signal writes to `bell`. What our parent ignored stays ignored, as with nohup(1).
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    pub(crate) fn watch(bell: &Arc<UnixStream>) -> io::Result<Self> {
        let passed_on = watch(PASSED_ON, bell)?;
        // Even if our parent ignored or blocked it: without it nobody would learn of the command's end.
        let rung = Arc::clone(bell);
        on_signal(Signal::SIGCHLD, move || ring(&rung))?;
        let inherited_mask = SigSet::thread_get_mask()?;
        if inherited_mask.contains(Signal::SIGCHLD) {
            SigSet::from(Signal::SIGCHLD).thread_unblock()?;
        }
        let while_it_runs = Arc::new([const { AtomicBool::new(false) }; WHILE_IT_RUNS.len()]);
        Ok(Self { bell: Arc::clone(bell), passed_on, while_it_runs, inherited_mask })
    }

    /// From now on also watches what only concerns a command that runs.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    pub(crate) fn watch_job_control(&mut self) -> io::Result<()> {
        self.while_it_runs = watch(WHILE_IT_RUNS, &self.bell)?;
        Ok(())
    }

    /// The signals that came and were not asked for yet, in a fixed order; each is asked for when its turn comes.
    pub(crate) fn arrivals(&self) -> impl Iterator<Item = Signal> {
        taken(&*self.passed_on, PASSED_ON).chain(taken(&*self.while_it_runs, WHILE_IT_RUNS))
    }

    /// Whether we were continued, as if it had been asked for.
    pub(crate) fn take_continued(&self) -> bool {
        self.while_it_runs[CONTINUED].swap(false, Ordering::SeqCst)
    }

    /// The signal mask that we were started with, which the command gets too. Handlers end with exec by themselves.
    pub(crate) fn inherited_mask(&self) -> SigSet {
        self.inherited_mask
    }
}

fn watch<const N: usize>(signals: [Signal; N], bell: &Arc<UnixStream>) -> io::Result<Arc<[AtomicBool; N]>> {
    let arrived = Arc::new([const { AtomicBool::new(false) }; N]);
    for (index, signal) in signals.into_iter().enumerate() {
        if is_ignored(signal)? {
            continue;
        }
        let (arrived, bell) = (Arc::clone(&arrived), Arc::clone(bell));
        on_signal(signal, move || {
            arrived[index].store(true, Ordering::SeqCst);
            ring(&bell);
        })?;
    }
    Ok(arrived)
}

fn taken<'a>(
    slots: &'a [AtomicBool],
    signals: impl IntoIterator<Item = Signal> + 'a,
) -> impl Iterator<Item = Signal> + 'a {
    let arrived = slots.iter().zip(signals).filter(|(slot, _)| slot.swap(false, Ordering::SeqCst));
    arrived.map(|(_, signal)| signal)
}

/// Wakes whoever reads the other end of `bell`. A full bell rings already.
pub(crate) fn ring(mut bell: &UnixStream) {
    bell.write_all(&[1]).ok();
}
