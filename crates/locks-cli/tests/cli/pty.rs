//! A terminal for the programs under test: keys are pressed, and what is shown is waited for.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use nix::unistd::Pid;

use crate::support::{LIMIT, by_hand};

/// A session of its own on a terminal of its own.
pub(crate) struct Terminal {
    script: Child,
    keys: ChildStdin,
    screen: Receiver<String>,
    /// What was shown and not looked at yet.
    shown: RefCell<String>,
}

impl Terminal {
    /// What runs there is this line for a shell, with its locks in the store at `url`.
    pub(crate) fn run(url: &str, line: &str) -> Self {
        by_hand();
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", line, "/dev/null"]);
        command.env("TERM", "xterm").env("LOCKS_URL", url).env_remove("LOCKS_CONFIG");
        let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let keys = script.stdin.take().unwrap();
        let mut output = script.stdout.take().unwrap();
        let (show, screen) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                if show.send(String::from_utf8_lossy(&bytes[..read]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Self { script, keys, screen, shown: RefCell::default() }
    }

    /// An interactive shell with job control.
    pub(crate) fn shell(url: &str) -> Self {
        Self::run(url, "env PS1= bash --norc --noprofile --noediting -i")
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits until `word` was shown, and returns what came before it. What is pressed is shown, too: `word` must not be in it.
    #[track_caller]
    pub(crate) fn until(&self, word: &str) -> String {
        let mut shown = self.shown.borrow_mut();
        // Something is shown each second.
        let end = Instant::now() + LIMIT;
        loop {
            if let Some((before, after)) = shown.split_once(word) {
                let before = before.to_owned();
                *shown = after.to_owned();
                return before;
            }
            match self.screen.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(more) => shown.push_str(&more),
                Err(_) => panic!("no {word:?} in {shown:?}"),
            }
        }
    }

    /// A process that shows `at-2-` and its number, and then a full stop.
    #[track_caller]
    pub(crate) fn pid(&self) -> Pid {
        self.until("at-2-");
        Pid::from_raw(self.until(".").parse().unwrap())
    }

    /// Ends the shell.
    pub(crate) fn leave(mut self) {
        self.press("exit\n");
        self.end();
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Option<i32> {
        while self.screen.recv_timeout(LIMIT).is_ok() {}
        self.script.wait().unwrap().code()
    }
}

/// A failed test leaves nothing behind: who loses the terminal is hung up.
impl Drop for Terminal {
    fn drop(&mut self) {
        self.script.kill().ok();
        self.script.wait().ok();
    }
}

/// Whether this process is stopped.
pub(crate) fn is_stopped(pid: Pid) -> bool {
    stat(pid).starts_with('T')
}

/// The process that started this one.
pub(crate) fn parent_of(pid: Pid) -> Pid {
    Pid::from_raw(stat(pid).split_whitespace().nth(1).unwrap().parse().unwrap())
}

/// What the kernel tells of a process after its name; nothing if it is gone.
fn stat(pid: Pid) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().unwrap_or_default().to_owned()
}
