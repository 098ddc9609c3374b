//! Processes under test, with a limit on everything that is waited for.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::Once;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal, kill, killpg, signal};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Far more than anything takes: who waits longer hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A command that runs until its input ends.
pub(crate) const UNTIL_EOF: [&str; 3] = ["sh", "-c", "echo up; read line"];

/// A lock directory of its own.
#[derive(Debug)]
pub(crate) struct Sandbox(TempDir);

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn url(&self) -> String {
        format!("file:{}", self.path("locks").display())
    }

    pub(crate) fn abort(&self) -> Command {
        self.tool(env!("CARGO_BIN_EXE_lock-abort"))
    }

    pub(crate) fn block(&self) -> Command {
        self.tool(env!("CARGO_BIN_EXE_lock-block"))
    }

    /// Any program with our URL in its environment.
    pub(crate) fn tool(&self, program: impl AsRef<OsStr>) -> Command {
        by_hand();
        let mut command = Command::new(program);
        command.env("LOCKS_URL", self.url()).env_remove("LOCKS_CONFIG");
        command
    }

    /// Whether the lock `name` is taken by somebody.
    pub(crate) fn is_taken(&self, name: &str) -> bool {
        let output = output(self.abort().args(["--name", name, "--", "true"]));
        match output.status.code() {
            Some(0) => false,
            Some(75) => true,
            _ => panic!("{output:?}"),
        }
    }
}

/// Whoever started the tests, such as nohup(1), may have had signals ignored, and programs inherit that.
pub(crate) fn by_hand() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for number in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
            #[expect(unsafe_code, reason = "the default action runs none of our code")]
            // SAFETY: there is no handler.
            unsafe { signal(number, SigHandler::SigDfl) }.unwrap();
        }
    });
}

/// The processes of this group that run or could run.
pub(crate) fn alive_in(group: Pid) -> Vec<i32> {
    let mut alive = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let Ok(pid) = entry.unwrap().file_name().into_string().unwrap_or_default().parse::<i32>() else {
            continue;
        };
        // It may have gone meanwhile.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> =
            stat.rsplit(") ").next().unwrap_or_default().split_whitespace().take(3).collect();
        if let [state, _, of] = fields[..]
            && of.parse() == Ok(group.as_raw())
            && !matches!(state, "Z" | "X")
        {
            alive.push(pid);
        }
    }
    alive
}

/// The children of a process.
pub(crate) fn children_of(pid: Pid) -> Vec<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap())).collect()
}

/// Looks until it is so: nobody tells us.
#[track_caller]
pub(crate) fn eventually(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        pause(Duration::from_millis(5));
    }
}

#[expect(clippy::disallowed_methods, reason = "between looks at what nobody tells us")]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

/// Runs it to its end, without input.
pub(crate) fn output(command: &mut Command) -> Output {
    by_hand();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = pid_of(&child);
    let (done, output) = channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    match output.recv_timeout(LIMIT) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            kill(pid, Signal::SIGKILL).ok();
            panic!("{command:?} did not end");
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Checks that `tool` said one line with all these words.
#[track_caller]
pub(crate) fn assert_one_line(tool: &str, stderr: &[u8], words: &[&str]) {
    let stderr = text(stderr);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with(&format!("{tool}: ")) && stderr.ends_with('\n'), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in {stderr}");
    }
}

/// A process that is talked to while it runs.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    status: Receiver<ExitStatus>,
    ended: bool,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        by_hand();
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = pid_of(&child);
        let stdin = child.stdin.take();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        let (done, status): (Sender<ExitStatus>, _) = channel();
        thread::spawn(move || done.send(child.wait().unwrap()));
        Self { pid, stdin, stdout, stderr, status, ended: false }
    }

    /// Starts it and waits until it says "up".
    pub(crate) fn start_up(command: &mut Command) -> Self {
        let process = Self::start(command);
        assert_eq!(process.line(), "up");
        process
    }

    /// The next line of its output.
    pub(crate) fn line(&self) -> String {
        self.stdout
            .recv_timeout(LIMIT)
            .unwrap_or_else(|_| panic!("no line; stderr: {:?}", self.rest_of_stderr()))
    }

    /// The next line of what it says on stderr.
    pub(crate) fn stderr_line(&self) -> String {
        self.stderr.recv_timeout(LIMIT).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }

    /// Closes its input and waits for its end.
    pub(crate) fn end(mut self) -> ExitStatus {
        self.stdin = None;
        self.wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> ExitStatus {
        let status = self.status.recv_timeout(LIMIT).expect("it should end");
        self.ended = true;
        status
    }

    /// Closes its input, waits for its end, and returns its code and the rest of what it said on stderr.
    #[cfg(all(any(feature = "etcd", feature = "postgres", feature = "redis"), target_os = "linux"))]
    pub(crate) fn end_and_listen(mut self) -> (Option<i32>, Vec<String>) {
        self.stdin = None;
        let status = self.status.recv_timeout(LIMIT).expect("it should end");
        self.ended = true;
        // Its end is the end of the line.
        (status.code(), self.stderr.iter().collect())
    }

    fn rest_of_stderr(&self) -> Vec<String> {
        self.stderr.try_iter().collect()
    }
}

/// A failed test leaves no process behind: neither the wrapper nor its command with all its group.
impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended && self.status.try_recv().is_err() {
            for child in children_of(self.pid) {
                killpg(child, Signal::SIGKILL).ok();
            }
            kill(self.pid, Signal::SIGKILL).ok();
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (line, lines) = channel();
    thread::spawn(move || {
        for text in BufReader::new(stream).lines().map_while(Result::ok) {
            if line.send(text).is_err() {
                return;
            }
        }
    });
    lines
}
