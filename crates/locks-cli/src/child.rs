//! The command: started as it was given, told of signals, waited for.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{Child, Command, ExitStatus};
use std::task::Poll;

use locks::{LockGuard, LossReason};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid, getpgrp};

use crate::exit;
use crate::reactor::Reactor;
use crate::signals::Arrival;

/// The command while it runs.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    child: Child,
    reactor: &'a Reactor,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Why the lock was lost meanwhile, if it was.
    pub(crate) loss: Option<LossReason>,
}

impl<'a> Running<'a> {
    /// Starts `program` with our own environment and `environment` on top, in our process group, with our standard streams.
    /// It inherits `descriptor`, which we let go.
    ///
    /// # Errors
    ///
    /// If it can't be started. It did not run then.
    pub(crate) fn start(
        program: &OsStr,
        arguments: &[OsString],
        environment: [(&str, String); 3],
        descriptor: Option<OwnedFd>,
        reactor: &'a Reactor,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).envs(environment);
        reactor.signals().restore_in(&mut command);
        let running = Self { child: command.spawn()?, reactor };
        drop(descriptor);
        // A key of the terminal that was pressed just before may have come too early for the child. Better twice than never.
        for arrival in reactor.signals().arrivals() {
            running.send(arrival.signal);
        }
        Ok(running)
    }

    /// Waits until the command is gone and passes signals on meanwhile. Ends it with TERM if the lock is lost.
    ///
    /// # Errors
    ///
    /// If the operating system doesn't let us wait.
    pub(crate) fn wait(mut self, guard: &LockGuard) -> io::Result<Ended> {
        let mut loss = None;
        let mut lost = pin!(guard.lost());
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Ended { status, loss });
            }
            for arrival in self.reactor.signals().arrivals() {
                self.pass_on(arrival);
            }
            if loss.is_none()
                && let Poll::Ready(reason) = self.reactor.poll(lost.as_mut())
            {
                loss = Some(reason);
                self.send(Signal::SIGTERM);
            }
            self.reactor.sleep();
        }
    }

    /// What the terminal sent went to our whole process group: the command has it already, unless it moved to another.
    fn pass_on(&self, arrival: Arrival) {
        let in_our_group = getpgid(Some(self.pid())) == Ok(getpgrp());
        if !(arrival.from_terminal && in_our_group) {
            self.send(arrival.signal);
        }
    }

    fn send(&self, signal: Signal) {
        // It was not waited for yet, so the pid is still its own. If it became another user's it can't be reached, nor could
        // it by whoever sent us the signal.
        kill(self.pid(), signal).ok();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

/// The exit code that tells of `status`.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(exit::BUG),
        (None, Some(signal)) => exit::signal(signal),
        // Neither can't be: only stopped processes have neither, and they are not waited for.
        (None, None) => exit::BUG,
    }
}
