//! Worker processes: the test binary itself, run again with a task.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

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
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "the worker ended without a word");
            if let Some((_, said)) = line.split_once(MARK) {
                return said.trim_end().to_owned();
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
