//! The guardian: a small process beside the wrapper, on stores with a ttl. It ends the command before the lock can pass to somebody else, also when
//! the wrapper is stopped or killed.
//!
//! It is there before the lock is asked for, while the wrapper is still small: what costs is the memory that both have to copy later.
//!
//! The wrapper tells it the command's process group and, after every renewal, the hours at which the group has to go. Once they have passed it sends TERM,
//! then KILL. When the wrapper is gone it kills at once. And should one of the two be killed while the other stands still, the kernel kills the group: each holds an
//! end of two sockets, the leashes, one of which does so when the wrapper's end is closed and the other when the guardian's is.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use locks::Boottime;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg};
use nix::unistd::{Pid, chdir, setsid};

use crate::system;

/// When a command has to go, unless the lock is renewed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hours {
    pub(crate) term: Boottime,
    pub(crate) kill: Boottime,
}

/// The wrapper's side.
#[derive(Debug)]
pub(crate) struct Guardian {
    process: Process,
    channel: Arc<UnixStream>,
    leashes: Arc<Leashes>,
}

/// Its process, which is ended and waited for when this is dropped, even if it is stopped.
#[derive(Debug)]
struct Process(Pid);

/// Sockets whose other ends take the command along when they are closed.
#[derive(Debug)]
struct Leashes {
    /// The other end is the guardian's, and nobody else has it: it goes with the guardian, whatever we are doing then.
    to_the_guardian: OwnedFd,
    /// It goes with us.
    ours: OwnedFd,
    /// The other end of `ours`, which the guardian has as well; we keep it until the command has put it on.
    its: OwnedFd,
}

/// What the command does about the guardian before it becomes itself.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    channel: Arc<UnixStream>,
    leashes: Arc<Leashes>,
}

/// The guardian on duty: the command has introduced itself.
#[derive(Debug)]
pub(crate) struct OnDuty {
    process: Process,
    channel: UnixStream,
    to_the_guardian: OwnedFd,
    /// Closed with us.
    ours: OwnedFd,
    /// What it was told last.
    told: Option<Hours>,
}

/// A guardian whose duty is over. It is waited for when this is dropped.
#[derive(Debug)]
pub(crate) struct Leaving {
    _process: Process,
    /// Closed only when the guardian is gone, since they mean the end of whatever the command left behind.
    _ends: (UnixStream, OwnedFd),
}

/// What the guardian has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// It sent TERM to the command: its hour has come and the wrapper did nothing.
    SentTerm,
    /// It is gone.
    Gone,
}

impl Guardian {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// If there can't be another process.
    pub(crate) fn start() -> io::Result<Self> {
        let (channel, theirs) = UnixStream::pair()?;
        let (to_the_guardian, the_guardians) = UnixStream::pair()?;
        let (ours, its) = UnixStream::pair()?;
        channel.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        // What is meant for the wrapper, such as a key of the terminal, is not for the guardian.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let forked = system::fork(|| watch(&theirs, [the_guardians.as_fd(), its.as_fd()]));
        before.thread_set_mask()?;
        let process = Process(forked?);
        let leashes = Leashes { to_the_guardian: to_the_guardian.into(), ours: ours.into(), its: its.into() };
        Ok(Self { process, channel: Arc::new(channel), leashes: Arc::new(leashes) })
    }

    /// Whether nobody has killed it meanwhile.
    pub(crate) fn is_there(&self) -> bool {
        report(&self.channel) != Some(Report::Gone)
    }

    /// For the command.
    pub(crate) fn introduction(&self) -> Introduction {
        Introduction { channel: Arc::clone(&self.channel), leashes: Arc::clone(&self.leashes) }
    }

    /// To be called when the command runs and its [`Introduction`] is dropped.
    ///
    /// # Errors
    ///
    /// If the introduction still exists.
    pub(crate) fn on_duty(self) -> io::Result<OnDuty> {
        let held = |_| io::Error::other("the command's introduction is still there");
        let channel = Arc::try_unwrap(self.channel).map_err(|_| held(()))?;
        // Its end of ours is the guardian's alone from now on.
        let Leashes { to_the_guardian, ours, its: _ } =
            Arc::try_unwrap(self.leashes).map_err(|_| held(()))?;
        Ok(OnDuty { process: self.process, channel, to_the_guardian, ours, told: None })
    }
}

impl Introduction {
    /// Puts the process that calls it, a leader of its process group, on the leashes and under the guardian's eyes. Makes system calls only.
    ///
    /// # Errors
    ///
    /// If the guardian is gone, or the operating system refuses.
    pub(crate) fn given(&self) -> io::Result<()> {
        let group = Pid::this();
        system::kill_on_hang_up(self.leashes.to_the_guardian.as_fd(), group)?;
        system::kill_on_hang_up(self.leashes.its.as_fd(), group)?;
        let message = Message::Group(group).bytes();
        (&*self.channel).write_all(&message)
    }
}

impl OnDuty {
    pub(crate) fn pid(&self) -> Pid {
        self.process.0
    }

    /// To be woken when there is a report.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Says when the command has to go.
    pub(crate) fn tell(&mut self, hours: Hours) {
        if self.told != Some(hours) {
            self.told = Some(hours);
            self.send(Message::Hours(hours));
        }
    }

    /// Says that the wrapper has sent TERM. The hour of KILL, as it was told last, stands.
    pub(crate) fn sent_term(&self) {
        self.send(Message::SentTerm);
    }

    /// What it has to say, if anything.
    pub(crate) fn report(&self) -> Option<Report> {
        report(&self.channel)
    }

    /// Ends its duty and spares whatever is left of the command's process group.
    pub(crate) fn dismiss(self) -> Leaving {
        // Does not fail on an open socket.
        system::spare_on_hang_up(&self.to_the_guardian).ok();
        self.process.kill();
        Leaving { _process: self.process, _ends: (self.channel, self.ours) }
    }

    /// A guardian that is stopped does not read; it then keeps the hours that it knows, which are earlier ones.
    fn send(&self, message: Message) {
        (&self.channel).write_all(&message.bytes()).ok();
    }
}

impl Process {
    /// It does nothing any more after that.
    fn kill(&self) {
        kill(self.0, Signal::SIGKILL).ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        nix::sys::wait::waitpid(self.0, None).ok();
    }
}

/// What the guardian at the other end has to say, if anything.
fn report(mut channel: &UnixStream) -> Option<Report> {
    match channel.read(&mut [0]) {
        Ok(0) => Some(Report::Gone),
        Ok(_) => Some(Report::SentTerm),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
        Err(_) => Some(Report::Gone),
    }
}

/// What the wrapper and the command tell the guardian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Group(Pid),
    Hours(Hours),
    SentTerm,
}

/// A tag and two numbers.
type Bytes = [u8; 17];

impl Message {
    fn bytes(self) -> Bytes {
        let (tag, one, other) = match self {
            Self::Group(group) => (0, u64::from(group.as_raw().unsigned_abs()), 0),
            Self::Hours(Hours { term, kill }) => (1, term.as_nanos(), kill.as_nanos()),
            Self::SentTerm => (2, 0, 0),
        };
        let mut bytes = [tag; 17];
        bytes[1..9].copy_from_slice(&one.to_le_bytes());
        bytes[9..].copy_from_slice(&other.to_le_bytes());
        bytes
    }

    fn of(bytes: Bytes) -> Option<Self> {
        let number = |at: usize| {
            bytes[at..at + 8].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        match bytes[0] {
            0 => i32::try_from(number(1)).ok().map(|group| Self::Group(Pid::from_raw(group))),
            1 => Some(Self::Hours(Hours {
                term: Boottime::from_nanos(number(1)),
                kill: Boottime::from_nanos(number(9)),
            })),
            2 => Some(Self::SentTerm),
            _ => None,
        }
    }
}

/// For how long the wrapper goes first when the hour of TERM has come.
const PRECEDENCE: Duration = Duration::from_millis(100);

/// How long the guardian sleeps at most: what wakes it stands still while the machine is suspended.
const NAP: u16 = 500;

/// The guardian's life, with all signals blocked. Other threads of the wrapper may have held locks when it was forked, the memory allocator's among
/// them: it only makes system calls.
fn watch(wrapper: &UnixStream, leashes: [BorrowedFd<'_>; 2]) {
    // It is neither stopped nor killed with the wrapper's process group, nor found by its name.
    setsid().ok();
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_name(c"lock-guardian").ok();
    // Whoever waits for the end of a pipe, or wants to unmount, does not wait for us.
    chdir(c"/").ok();
    let [one, other] = leashes.map(|leash| leash.as_raw_fd());
    system::close_all_but([wrapper.as_raw_fd(), one, other]);

    let mut watch = Watch { group: None, hours: None, termed: false };
    loop {
        if !watch.listen(wrapper) {
            return watch.send(Signal::SIGKILL);
        }
        let next = watch.act(wrapper, Boottime::now());
        let nap = next.map_or(PollTimeout::NONE, |rest| {
            PollTimeout::from(u16::try_from(rest.as_micros().div_ceil(1_000)).unwrap_or(NAP).min(NAP))
        });
        // Interrupted is as good as woken.
        poll(&mut [PollFd::new(wrapper.as_fd(), PollFlags::POLLIN)], nap).ok();
    }
}

/// What the guardian knows.
#[derive(Debug)]
struct Watch {
    group: Option<Pid>,
    hours: Option<Hours>,
    /// TERM was sent: from then on the hour of KILL stands.
    termed: bool,
}

impl Watch {
    /// Takes in all that was said, and tells whether the wrapper is still there.
    fn listen(&mut self, mut wrapper: &UnixStream) -> bool {
        loop {
            let mut bytes = [0; 17];
            match wrapper.read(&mut bytes) {
                Ok(17) => match Message::of(bytes) {
                    Some(Message::Group(group)) => self.group = Some(group),
                    Some(Message::Hours(hours)) if !self.termed => self.hours = Some(hours),
                    Some(Message::SentTerm) => self.termed = true,
                    Some(Message::Hours(_)) | None => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Messages are written whole.
                Ok(_) | Err(_) => return false,
            }
        }
    }

    /// Does what the hour asks for, and returns how long it is until there is more.
    fn act(&mut self, mut wrapper: &UnixStream, now: Boottime) -> Option<Duration> {
        let hours = self.hours?;
        if now >= hours.kill {
            // The wrapper is told, too, if it could not do so itself.
            if !self.termed {
                wrapper.write_all(b"T").ok();
            }
            self.termed = true;
            self.hours = None;
            self.send(Signal::SIGKILL);
            return None;
        }
        let term = hours.term.after(PRECEDENCE);
        if !self.termed && now >= term {
            self.termed = true;
            wrapper.write_all(b"T").ok();
            self.send(Signal::SIGTERM);
            self.send(Signal::SIGCONT);
        }
        let next = if self.termed { hours.kill } else { term.min(hours.kill) };
        Some(next.since(now))
    }

    fn send(&self, signal: Signal) {
        if let Some(group) = self.group {
            killpg(group, signal).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let hours = Hours { term: Boottime::from_nanos(u64::MAX - 1), kill: Boottime::from_nanos(258) };
        for message in [Message::Group(Pid::from_raw(i32::MAX)), Message::Hours(hours), Message::SentTerm] {
            assert_eq!(Message::of(message.bytes()), Some(message));
        }
        assert_eq!(Message::of([9; 17]), None);
    }
}
