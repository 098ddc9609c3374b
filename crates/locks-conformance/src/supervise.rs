//! A child process with a deadline.

use std::fs;
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Runs `command` and returns what it said if it failed. It is killed at its deadline.
pub(crate) fn supervise(mut command: Command, deadline: Duration) -> Result<(), String> {
    let trouble = |error: io::Error| format!("can't run a case in a process of its own: {error}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(trouble)?;
    let said = [child.stdout.take().map(collect), child.stderr.take().map(collect)];
    let ended = wait(&mut child, deadline).map_err(trouble)?;
    let mut why = match ended {
        Some(status) if status.success() => String::new(),
        Some(status) => match status.code() {
            Some(1) => "\n".to_owned(),
            _ => format!("the case's process ended with {status}\n"),
        },
        None => {
            let threads = threads(child.id());
            child.kill().and_then(|()| child.wait()).map_err(trouble)?;
            format!("no end within {deadline:?}; its threads: {threads}\n")
        }
    };
    if why.is_empty() {
        return Ok(());
    }
    for reader in said.into_iter().flatten() {
        // A reader that panicked has nothing to add.
        why.push_str(&reader.join().unwrap_or_default());
    }
    Err(why.trim().to_owned())
}

/// Waits for the end of the process, at most so long.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
    let mut ends = [PollFd::new(&handle, PollFlags::IN)];
    loop {
        match poll(&mut ends, Some(&timeout)) {
            Ok(0) => return Ok(None),
            Ok(_) => return child.wait().map(Some),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads to the end on a thread of its own, so that no pipe fills up.
fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut said = Vec::new();
        match pipe.read_to_end(&mut said) {
            Ok(_) => String::from_utf8_lossy(&said).into_owned(),
            Err(error) => format!("(its output can't be read: {error})"),
        }
    })
}

/// What the threads of a process that hangs are doing, for the report.
fn threads(pid: u32) -> String {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return "unknown".to_owned() };
    let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let threads: Vec<String> = tasks
        .flatten()
        .map(|task| format!("{} in {}", read(task.path().join("comm")), read(task.path().join("wchan"))))
        .collect();
    threads.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_failed_is_said_and_what_hangs_is_killed() {
        let limit = Duration::from_secs(20);
        assert_eq!(supervise(shell("echo unheard"), limit), Ok(()));
        assert_eq!(supervise(shell("echo out; echo err >&2; exit 1"), limit), Err("out\nerr".to_owned()));
        let killed = supervise(shell("kill -9 $$"), limit).unwrap_err();
        assert!(killed.contains("signal"), "{killed}");
        let hung = supervise(shell("exec sleep 600"), Duration::from_millis(50)).unwrap_err();
        assert!(hung.contains("no end within 50ms; its threads: sleep"), "{hung}");
    }
}
