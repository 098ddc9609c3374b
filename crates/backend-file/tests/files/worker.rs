//! Worker processes: the test binary itself, run again with a task.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Before each line that a worker says, to tell it from what the test harness prints.
const MARK: &str = "worker says: ";

/// A worker process. Killed when dropped.
pub(crate) struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts `task` on `dir`. The binary has an ignored test `worker_process` that does it.
    pub(crate) fn start(task: &str, dir: &Path) -> Self {
        Self::spawn(Command::new(std::env::current_exe().unwrap()), task, dir)
    }

    /// Starts `task` below a shell that first does `limits`, such as `ulimit -n 20`.
    pub(crate) fn start_limited(limits: &str, task: &str, dir: &Path) -> Self {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{limits}; exec \"$0\" \"$@\"")).arg(std::env::current_exe().unwrap());
        Self::spawn(command, task, dir)
    }

    /// Starts `task` as another user, with a umask that lets nobody else in.
    pub(crate) fn start_as(
        program: &Path,
        user: u32,
        group: u32,
        share: &str,
        task: &str,
        dir: &Path,
    ) -> Self {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]);
        command.args(["sh", "-c", "umask 077; exec \"$0\" \"$@\""]).arg(program).env("WORKER_SHARE", share);
        Self::spawn(command, task, dir)
    }

    fn spawn(mut command: Command, task: &str, dir: &Path) -> Self {
        let mut child = command
            .args(["--exact", "worker_process", "--ignored", "--nocapture", "--test-threads=1"])
            .env("WORKER_TASK", task)
            .env("WORKER_DIR", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    /// The next line that the worker says; waits for it.
    pub(crate) fn hear(&mut self) -> String {
        self.hear_or_end().expect("the worker ended without a word")
    }

    /// The next whole line that the worker says, unless it ends before.
    pub(crate) fn hear_or_end(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some((_, said)) = line.split_once(MARK)
                && said.ends_with('\n')
            {
                return Some(said.trim_end().to_owned());
            }
        }
    }

    /// Lets the worker go on.
    pub(crate) fn go(&mut self) {
        writeln!(self.stdin.as_mut().unwrap(), "go").unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the worker a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until the worker has ended well.
    pub(crate) fn end(mut self) {
        drop(self.stdin.take());
        let status: ExitStatus = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        if self.child.kill().is_ok() {
            self.child.wait().unwrap();
        }
    }
}

/// Held by tests that keep all processors busy, so that they don't measure each other.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In the worker: what to do, and on which directory.
pub(crate) fn task() -> (String, PathBuf) {
    let var = |name| std::env::var_os(name).expect("only run by the other tests");
    let task: &OsStr = &var("WORKER_TASK");
    (task.to_str().unwrap().to_owned(), var("WORKER_DIR").into())
}

/// In the worker: says a line.
pub(crate) fn say(line: impl std::fmt::Display) {
    println!("{MARK}{line}");
    std::io::stdout().flush().unwrap();
}

/// In the worker: waits until it may go on. False once nobody is there to say so.
pub(crate) fn may_go_on() -> bool {
    std::io::stdin().read_line(&mut String::new()).unwrap() != 0
}
