//! The terminal, when we have one: whose turn it is to use it.
//!
//! The command's process group is not ours, so the shell's job control sees only us. Whoever uses the terminal alone is put into its foreground at
//! once; in a pipeline only when it wants to read, since the others of the pipeline may read, too.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{Pid, tcgetpgrp, tcsetpgrp};

use crate::child::{Running, our_group};
use crate::signals::Signals;
use crate::system;

#[derive(Debug)]
pub(crate) struct Terminal {
    /// The terminal that controls our session, if one of our standard streams is it.
    device: Option<OwnedFd>,
    /// Whether the command is to have the foreground from its start.
    at_once: bool,
}

impl Terminal {
    /// Looks at our standard streams.
    pub(crate) fn find() -> Self {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        // Only of the controlling terminal can the foreground be told.
        let device = streams.into_iter().find_map(|stream| Some((stream, tcgetpgrp(stream).ok()?)));
        let Some((device, foreground)) = device else { return Self { device: None, at_once: false } };
        Self {
            device: device.try_clone_to_owned().ok(),
            at_once: foreground == our_group() && stdin.is_terminal() && stdout.is_terminal(),
        }
    }

    /// The terminal, if the command is to have its foreground from the start.
    pub(crate) fn for_the_command(&self) -> Option<BorrowedFd<'_>> {
        self.device.as_ref().filter(|_| self.at_once).map(AsFd::as_fd)
    }

    /// The command was stopped by the signal with this number. Gives it the foreground if that is what it stopped for, else stops us and whoever is in
    /// our group, as the terminal would, until we are continued.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    pub(crate) fn stopped(&mut self, signal: i32, command: &Running, signals: &Signals) -> io::Result<()> {
        let Some(device) = &self.device else { return Ok(()) };
        let wants_it = signal == libc::SIGTTIN || signal == libc::SIGTTOU;
        let foreground = tcgetpgrp(device).ok();
        if wants_it && (foreground == Some(our_group()) || foreground == Some(command.pid())) {
            self.at_once = true;
        } else {
            self.take_back(command);
            system::stop_our_group()?;
            let continued = signals.take_continued();
            if wants_it && !continued {
                // We did not stop, since no shell is left that could continue us: nor will the terminal ever be ours. The kernel says so
                // to those whom their shell left behind.
                command.send_to_group(Signal::SIGHUP);
            }
        }
        self.resume(command);
        Ok(())
    }

    /// We were continued, so the command goes on: in the foreground if that is where we are.
    pub(crate) fn resume(&self, command: &Running) {
        if let Some(device) = self.for_the_command()
            && tcgetpgrp(device) == Ok(our_group())
        {
            hand(device, command.pid());
        }
        command.send_to_group(Signal::SIGCONT);
    }

    /// Whether the command has the foreground.
    pub(crate) fn is_with(&self, command: &Running) -> bool {
        self.device.as_ref().is_some_and(|device| tcgetpgrp(device) == Ok(command.pid()))
    }

    /// Takes the foreground back if the command has it.
    pub(crate) fn take_back(&self, command: &Running) {
        if let Some(device) = &self.device
            && self.is_with(command)
        {
            hand(device.as_fd(), our_group());
        }
    }
}

/// Gives the terminal's foreground to a process group.
fn hand(device: BorrowedFd<'_>, group: Pid) {
    // Who is not in the foreground itself would be stopped for this.
    let stop = SigSet::from(Signal::SIGTTOU);
    let Ok(before) = stop.thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return };
    tcsetpgrp(device, group).ok();
    before.thread_set_mask().ok();
}
