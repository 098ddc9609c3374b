//! Holders that are killed at random moments, and a disk that is full.
//!
//! This binary is also the command that runs under the lock (`extremes witness …`), and what it can't try here it lists as ignored.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests, which clippy does not recognise without a harness"
)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Who waits longer hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// How many holders are killed.
const KILLS: usize = 500;

/// How many processes ask for the lock at a time.
const CONTENDERS: usize = 6;

/// What a witness writes into the log when it is not alone.
const NOT_ALONE: &str = "not alone";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, socket, log, micros] = &arguments[..]
        && role == "witness"
    {
        witness(socket, Path::new(log), Duration::from_micros(micros.parse().unwrap()));
        return ExitCode::SUCCESS;
    }
    let mut full_disk = Trial::test("a_full_disk_is_an_error_before_the_command_runs", full_disk);
    if let Err(reason) = small_file_system("true") {
        eprintln!("a_full_disk…: ignored, no file system can be mounted here: {reason}");
        full_disk = full_disk.with_ignored_flag(true);
    }
    let killed = Trial::test("killed_holders_are_followed_by_one_at_a_time_and_tokens_grow", killed_holders);
    libtest_mimic::run(&Arguments::from_args(), vec![killed, full_disk]).exit_code()
}

/// The command under the lock: has for `hold` a name that only one living process can have, and answers whoever else wants it.
///
/// A process that was killed answers nobody, although the kernel may need a moment until its name is free.
fn witness(socket: &str, log: &Path, hold: Duration) {
    let mut log = File::options().append(true).create(true).open(log).unwrap();
    let address = SocketAddr::from_abstract_name(socket).unwrap();
    let begun = Instant::now();
    let listener = loop {
        match UnixListener::bind_addr(&address) {
            Ok(listener) => break listener,
            Err(_) if answers(&address) => return writeln!(log, "{NOT_ALONE}").unwrap(),
            Err(error) => assert!(begun.elapsed() < LIMIT, "the name is never free: {error}"),
        }
    };
    let token = std::env::var("LOCK_FENCING_TOKEN").unwrap();
    log.write_all(format!("{token}\n").as_bytes()).unwrap();
    println!("held {}", std::process::id());
    thread::spawn(move || {
        while let Ok((mut other, _)) = listener.accept() {
            other.write_all(b"!").ok();
        }
    });
    pause_for(hold);
}

/// Whether the one who has the name lives.
fn answers(address: &SocketAddr) -> bool {
    let Ok(mut other) = UnixStream::connect_addr(address) else { return false };
    other.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    matches!(other.read(&mut [0]), Ok(1))
}

fn killed_holders() -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let socket = format!("locks-cli-{}-{:x}", std::process::id(), fastrand::u64(..));
    let killed = AtomicUsize::new(0);
    let grants = thread::scope(|scope| {
        let contenders: Vec<_> =
            (0..CONTENDERS).map(|_| scope.spawn(|| contend(dir.path(), &socket, &killed))).collect();
        contenders.into_iter().map(|contender| contender.join().unwrap()).sum::<Result<usize, Failed>>()
    })?;
    let log = fs::read_to_string(dir.path().join("log"))?;
    if log.contains(NOT_ALONE) {
        return Err(format!("two held the lock at a time: {log}").into());
    }
    let tokens: Vec<u64> = log.lines().map(|line| line.parse().unwrap()).collect();
    if !tokens.is_sorted_by(|earlier, later| earlier < later) {
        return Err(format!("the tokens do not grow: {tokens:?}").into());
    }
    // A holder may be killed between its line in the log and its word to us, not the other way round.
    if tokens.len() < grants || grants < KILLS {
        return Err(format!("{} tokens and {grants} grants for {KILLS} kills", tokens.len()).into());
    }
    Ok(())
}

/// Asks for the lock again and again and kills who holds it, until all contenders together killed enough holders. Returns how often
/// it held the lock.
fn contend(dir: &Path, socket: &str, killed: &AtomicUsize) -> Result<usize, Failed> {
    let mut grants = 0;
    while killed.load(Ordering::SeqCst) < KILLS {
        grants += if fastrand::u8(0..4) == 0 {
            kill_early(dir, socket)?
        } else {
            kill_holder(dir, socket, killed)?
        };
    }
    Ok(grants)
}

/// Kills the wrapper at any moment from its start on: while it waits, takes the lock, starts the command, gives the lock back.
fn kill_early(dir: &Path, socket: &str) -> Result<usize, Failed> {
    let (wrapper, words) = start(dir, socket, random(4_000));
    pause_for(random(16_000));
    // It is not waited for yet, so the pid is its own.
    kill(pid_of(&wrapper), Signal::SIGKILL)?;
    end_of(wrapper)?;
    Ok(words.iter().count())
}

/// Waits until the command holds the lock and kills it, its wrapper, or both, one after the other.
fn kill_holder(dir: &Path, socket: &str, killed: &AtomicUsize) -> Result<usize, Failed> {
    // It would hold the lock for ever, so that its pid is its own until it is killed.
    let (wrapper, words) = start(dir, socket, 2 * LIMIT);
    let said = words.recv_timeout(LIMIT).map_err(|_| "nobody gets the lock any more")?;
    let witness = Pid::from_raw(said.strip_prefix("held ").ok_or("a strange word")?.parse()?);
    pause_for(random(4_000));
    killed.fetch_add(1, Ordering::SeqCst);
    let wrapper_too = fastrand::bool();
    if wrapper_too {
        kill(pid_of(&wrapper), Signal::SIGKILL)?;
        if fastrand::bool() {
            // Nobody else may get in before the witness is gone.
            pause_for(random(8_000));
        }
    }
    match kill(witness, Signal::SIGKILL) {
        // It went along with its wrapper.
        Err(Errno::ESRCH) if wrapper_too => {}
        other => other?,
    }
    end_of(wrapper)?;
    match words.recv_timeout(LIMIT) {
        Err(RecvTimeoutError::Disconnected) => Ok(1),
        other => Err(format!("the witness should be gone and silent: {other:?}").into()),
    }
}

fn start(dir: &Path, socket: &str, hold: Duration) -> (Child, Receiver<String>) {
    let mut wrapper = Command::new(env!("CARGO_BIN_EXE_lock-block"))
        .env("LOCKS_URL", format!("file:{}", dir.join("locks").display()))
        .args(["--name", "storm", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["witness", socket])
        .arg(dir.join("log"))
        .arg(hold.as_micros().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let words = lines(wrapper.stdout.take().unwrap());
    (wrapper, words)
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn random(below_micros: u64) -> Duration {
    Duration::from_micros(fastrand::u64(0..below_micros))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a random moment is what it is for; nothing is synchronised with it"
)]
fn pause_for(time: Duration) {
    thread::sleep(time);
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (line, lines) = channel();
    thread::spawn(move || {
        for text in BufReader::new(stream).lines().map_while(Result::ok) {
            line.send(text).ok();
        }
    });
    lines
}

fn end_of(mut child: Child) -> Result<ExitStatus, Failed> {
    let pid = pid_of(&child);
    let (done, status) = channel();
    thread::spawn(move || done.send(child.wait()));
    match status.recv_timeout(LIMIT) {
        Ok(status) => Ok(status?),
        Err(_) => {
            kill(pid, Signal::SIGKILL).ok();
            Err("a wrapper hangs".into())
        }
    }
}

/// Runs `script` where `$1` is a file system of 64 KiB with room for a few files, which ends with it.
fn small_file_system(script: &str) -> Result<String, String> {
    let dir = TempDir::new().map_err(|error| error.to_string())?;
    let script = format!("mount -t tmpfs -o size=64k,mode=700 none \"$1\" || exit 99; {script}");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &script, "sh"])
        .arg(dir.path())
        .output()
        .map_err(|error| format!("unshare: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(format!("{}{stderr}", String::from_utf8_lossy(&output.stdout))),
        code => Err(format!("{code:?} {stderr}")),
    }
}

fn full_disk() -> Result<(), Failed> {
    let block = PathBuf::from(env!("CARGO_BIN_EXE_lock-block"));
    let block = block.display();
    let script = format!(
        "cd \"$1\" && mkdir -m 700 locks && \
         {block} --url \"file:$1/locks\" --name before -- true && \
         head -c 1000000 /dev/zero >fill 2>/dev/null; \
         {block} --url \"file:$1/locks\" --name fresh -- touch ran; echo \"code $?\"; \
         test -e ran && echo ran; \
         rm fill; {block} --url \"file:$1/locks\" --name fresh -- echo fine; cd /"
    );
    let said = small_file_system(&script)?;
    for expected in ["code 69\n", "lock-block: ", "fresh", "full", "fine\n"] {
        if !said.contains(expected) {
            return Err(format!("{expected:?} is not in {said:?}").into());
        }
    }
    if said.contains("ran\n") {
        return Err(format!("the command ran: {said:?}").into());
    }
    Ok(())
}
