//! The command as a process: started as it was given, in a process group of its own, signalled, waited for.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;

use nix::libc;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::{Pid, getpgrp, setpgid};
use rustix::process::{WaitOptions, WaitStatus};

use crate::exit;
use crate::guardian::Introduction;
use crate::image::Image;
use crate::signals;
use crate::system;
use crate::terminal::Terminal;

/// What is to be run, and with what.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) program: &'a OsStr,
    pub(crate) arguments: &'a [OsString],
    /// On top of our own environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// What it inherits and we let go.
    pub(crate) descriptor: Option<OwnedFd>,
    pub(crate) mask: SigSet,
    pub(crate) terminal: &'a Terminal,
    pub(crate) introduction: Option<Introduction>,
}

/// The command while it runs, the leader of its process group.
#[derive(Debug)]
pub(crate) struct Running {
    pid: Pid,
}

/// How the command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Runs,
    /// It was stopped by the signal with this number.
    Stopped(i32),
    Ended(Ended),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(u8),
    /// The signal's number.
    Killed(i32),
}

impl Ended {
    /// The exit code that tells of it.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => exit::signal(signal),
        }
    }
}

impl Running {
    /// Starts the command.
    ///
    /// # Errors
    ///
    /// If it can't be started. It did not run then.
    pub(crate) fn start(start: Start<'_>) -> io::Result<Self> {
        let Start { program, arguments, environment, descriptor, mask, terminal, introduction } = start;
        let image = Image::new(program, arguments, &environment)?;
        let us = Pid::this();
        let foreground = terminal.for_the_command();
        let prepare = || -> io::Result<()> {
            setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
            // Whoever kills us takes the command along. It tells of the death of the thread that forked, which is our main thread.
            #[cfg(target_os = "linux")]
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            if nix::unistd::getppid() != us {
                return Err(io::Error::from_raw_os_error(libc::EINTR));
            }
            if let Some(introduction) = &introduction {
                introduction.given()?;
            }
            if let Some(terminal) = foreground {
                // Who is not in the foreground yet is stopped for this, unless that is blocked.
                nix::unistd::tcsetpgrp(terminal, Pid::this()).ok();
            }
            system::without_handlers(signals::WITH_HANDLERS)?;
            Ok(mask.thread_set_mask()?)
        };
        let pid = system::spawn(|| match prepare() {
            Ok(()) => image.exec(),
            Err(error) => error,
        })?;
        drop(descriptor);
        Ok(Self { pid })
    }

    /// The process, which is also the number of its group.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// How it stands now. What has ended is gone after that.
    ///
    /// # Errors
    ///
    /// If the operating system doesn't tell.
    pub(crate) fn state(&self) -> io::Result<State> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        let answer = rustix::process::waitpid(Some(number(self.pid)?), options)?;
        Ok(answer.map_or(State::Runs, |(_, status)| state(status)))
    }

    /// Sends it to the command alone. It was not waited for yet, so the number is its own.
    pub(crate) fn send(&self, signal: Signal) {
        // If it became another user's it can't be reached, nor could it by whoever sent us the signal.
        kill(self.pid, signal).ok();
    }

    /// Sends it to the command's whole process group.
    pub(crate) fn send_to_group(&self, signal: Signal) {
        killpg(self.pid, signal).ok();
    }

    /// Whether the command, which has ended, left others in its group. Those that became children of ours are waited for.
    pub(crate) fn left_others(&self) -> bool {
        // Whom nobody waits for would count for ever: we may be the first process of a container.
        if let Ok(group) = number(self.pid) {
            while matches!(rustix::process::waitpgid(group, WaitOptions::NOHANG), Ok(Some(_))) {}
        }
        // The number can't be anybody else's while the group has members, and is not given away within moments after.
        killpg(self.pid, None).is_ok()
    }
}

/// Waits for children that ended and are none of `ours`: to the first process of a container come all those whose parents are gone, and nobody
/// else waits for them.
#[cfg(target_os = "linux")]
pub(crate) fn wait_for_strangers(ours: [Option<Pid>; 2]) {
    while let Some(stranger) = system::ended_child().filter(|ended| !ours.contains(&Some(*ended))) {
        if nix::sys::wait::waitpid(stranger, None).is_err() {
            return;
        }
    }
}

/// Containers are Linux's.
#[cfg(not(target_os = "linux"))]
pub(crate) fn wait_for_strangers(_: [Option<Pid>; 2]) {}

fn number(pid: Pid) -> io::Result<rustix::process::Pid> {
    rustix::process::Pid::from_raw(pid.as_raw()).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

fn state(status: WaitStatus) -> State {
    if let Some(code) = status.exit_status() {
        return State::Ended(Ended::Exited(code.to_le_bytes()[0]));
    }
    if let Some(signal) = status.terminating_signal() {
        return State::Ended(Ended::Killed(signal));
    }
    status.stopping_signal().map_or(State::Runs, State::Stopped)
}

/// Our own process group.
pub(crate) fn our_group() -> Pid {
    getpgrp()
}
