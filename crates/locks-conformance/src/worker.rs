//! Other processes: the test binary runs itself again and takes orders over a pipe, one JSON line each way.

use std::future::poll_fn;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use locks_api::{Boottime, ErrorKind, FencingToken, Lock, Locks};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::history::{Op, Phase, Recorder};
use crate::kind::{Held, Kind, Want};
use crate::recording::{self, Target, What};
use crate::roles::Role;
use crate::verdict::{Failure, Verdict, within};
use crate::witness::{Places, Witness};

/// How long a worker may take for what does not wait for anybody.
const PROMPT: Duration = Duration::from_secs(20);

/// What a worker is told to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Take the lock: at once or not at all, or wait for it.
    Acquire { name: String, ttl: Option<Duration>, wait: bool },
    /// The same for any kind of lock.
    Take { want: Want, wait: bool },
    /// Ask the guard whether it is held.
    Check,
    /// Wait until the guard says that it is lost.
    AwaitLoss,
    /// Give the lock back.
    Release,
    /// End the process at once, with the guard alive.
    Exit,
    /// Take and give back the lock again and again.
    Hammer(Hammer),
}

/// How to take and give back a lock again and again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hammer {
    pub(crate) name: String,
    /// As what.
    pub(crate) mix: Mix,
    pub(crate) ttl: Option<Duration>,
    /// How often, at most.
    pub(crate) rounds: u32,
    /// Until when, at most: nanoseconds since boot.
    pub(crate) until: u64,
    /// How long to hold.
    pub(crate) hold: Duration,
    /// Where to write the history; none is kept if absent.
    pub(crate) history: Option<PathBuf>,
    /// Whether being inside together with anybody else is a failure: it is not where a stopped holder may lose its lock.
    pub(crate) witness: bool,
    /// Whether to go on when the store was out of reach for too long.
    pub(crate) patient: bool,
}

/// As what a lock is taken.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Mix {
    /// Always exclusively.
    Exclusive,
    /// By a reader, so many times in a hundred, or a writer.
    ReadersAndWriters { readers: u32 },
    /// As some of so many permits.
    Permits { limit: u32 },
}

/// More readers than any case has at once.
const READERS: u32 = 64;

impl Mix {
    /// What to take next.
    pub(crate) fn draw(self) -> Kind {
        match self {
            Self::Exclusive => Kind::Lock,
            Self::ReadersAndWriters { readers } if fastrand::u32(..100) < readers => Kind::Read,
            Self::ReadersAndWriters { .. } => Kind::Write,
            Self::Permits { limit } => Kind::Permits { count: fastrand::u32(1..=limit), limit },
        }
    }

    /// How many of how many places inside a hold of this kind takes up.
    pub(crate) fn places(self, kind: &Kind) -> Places {
        let (of, taken) = match (self, kind) {
            (Self::Exclusive, _) => (1, 1),
            (Self::ReadersAndWriters { .. }, Kind::Read) => (READERS, 1),
            (Self::ReadersAndWriters { .. }, _) => (READERS, READERS),
            (Self::Permits { limit }, Kind::Permits { count, .. }) => (limit, *count),
            (Self::Permits { limit }, _) => (limit, limit),
        };
        Places { of, taken }
    }
}

/// What a worker says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// It is connected.
    Ready,
    /// It holds the lock, under this token.
    Granted { token: u64 },
    /// Somebody else holds the lock; the message says who.
    Busy,
    /// What the guard said.
    Held(bool),
    /// The lock was lost.
    Lost,
    /// The lock was given back.
    Released,
    /// It was inside the lock so many times.
    Hammered { rounds: u32 },
    /// It was inside together with another process.
    Overlap { with_pid: u32 },
    /// An operation failed: its kind, and its message.
    Failed { kind: String, message: String },
}

/// A worker process, seen from the case. Killed when dropped, even if it is stopped.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
    replies: mpsc::UnboundedReceiver<Result<Reply, String>>,
    reader: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a worker that attaches to the space at `url`, and waits until it is connected.
    pub(crate) async fn start(harness: &str, url: &str) -> Verdict<Self> {
        let role = Role::Worker { harness: harness.to_owned(), url: url.to_owned() };
        let mut child = role.command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| Failure::new("the worker has no standard output"))?;
        let (sender, replies) = mpsc::unbounded_channel();
        let reader = std::thread::Builder::new().name("worker-replies".into()).spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let reply = line.map_err(|error| error.to_string()).and_then(|line| {
                    serde_json::from_str(&line).map_err(|error| format!("{error} in the reply {line:?}"))
                });
                if sender.send(reply).is_err() {
                    return;
                }
            }
        })?;
        let mut worker = Self { child, orders, replies, reader: Some(reader) };
        worker.expect(&Reply::Ready).await?;
        Ok(worker)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order, without waiting for what comes of it.
    pub(crate) fn order(&mut self, order: &Order) -> Verdict {
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        let orders = self.orders.as_mut().ok_or_else(|| Failure::new("the worker takes no more orders"))?;
        orders.write_all(line.as_bytes())?;
        Ok(())
    }

    /// The next reply, within `limit`.
    pub(crate) async fn reply_within(&mut self, limit: Duration) -> Verdict<Reply> {
        match within(limit, "the reply of a worker", self.replies.recv()).await? {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(nonsense)) => Err(Failure::new(nonsense)),
            None => Err(Failure::new(format!("the worker {} is gone", self.child.id()))),
        }
    }

    /// The first reply of any of these workers, and whose it is.
    pub(crate) async fn first_reply(workers: &mut [&mut Self], limit: Duration) -> Verdict<(usize, Reply)> {
        let first = poll_fn(|context| {
            for (index, worker) in workers.iter_mut().enumerate() {
                if let Poll::Ready(reply) = worker.replies.poll_recv(context) {
                    return Poll::Ready((index, reply));
                }
            }
            Poll::Pending
        });
        match within(limit, "the reply of one of several workers", first).await? {
            (index, Some(Ok(reply))) => Ok((index, reply)),
            (_, Some(Err(nonsense))) => Err(Failure::new(nonsense)),
            (_, None) => Err(Failure::new("a worker is gone")),
        }
    }

    /// The reply to an order that waits for nobody.
    pub(crate) async fn ask(&mut self, order: &Order) -> Verdict<Reply> {
        self.order(order)?;
        self.reply_within(PROMPT).await
    }

    /// Fails unless the next reply, to what waits for nobody, is `expected`.
    pub(crate) async fn expect(&mut self, expected: &Reply) -> Verdict {
        let reply = self.reply_within(PROMPT).await?;
        if reply == *expected {
            return Ok(());
        }
        Err(Failure::new(format!("a worker answered {reply:?} instead of {expected:?}")))
    }

    /// Has the worker take a free lock, and returns the token.
    pub(crate) async fn take(&mut self, name: &str, ttl: Option<Duration>) -> Verdict<FencingToken> {
        self.get(&Want::new(Kind::Lock, name).ttl(ttl)).await
    }

    /// Has the worker take what can be had at once, and returns the token.
    pub(crate) async fn get(&mut self, want: &Want) -> Verdict<FencingToken> {
        self.order(&Order::Take { want: want.clone(), wait: false })?;
        self.granted(PROMPT).await
    }

    /// The token of the grant that has to be the next reply.
    pub(crate) async fn granted(&mut self, limit: Duration) -> Verdict<FencingToken> {
        match self.reply_within(limit).await? {
            Reply::Granted { token } => {
                FencingToken::new(token).ok_or_else(|| Failure::new(format!("{token} is no token")))
            }
            other => Err(Failure::new(format!("a worker that should be granted a lock answered {other:?}"))),
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Verdict {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new("the worker has no pid"))?;
        let target = Target::Process(self.child.id());
        match signal {
            Signal::CONT => recording::ends(target),
            Signal::STOP => recording::begins(target, "stopped"),
            _ => recording::strikes(target, "sent a signal"),
        }
        kill_process(pid, signal)?;
        Ok(())
    }

    /// Kills the process and waits until it is gone.
    pub(crate) fn kill(&mut self) -> Verdict {
        self.child.kill()?;
        recording::strikes(Target::Process(self.child.id()), "killed");
        self.child.wait()?;
        Ok(())
    }

    /// What a killed worker had still said, if anything.
    pub(crate) async fn last_words(&mut self) -> Verdict<Option<Reply>> {
        match within(PROMPT, "the end of a worker's replies", self.replies.recv()).await? {
            None => Ok(None),
            Some(Ok(reply)) => Ok(Some(reply)),
            // Cut off in the middle of a line.
            Some(Err(_)) => Ok(None),
        }
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(&mut self) -> Verdict {
        self.orders = None;
        while let Some(reply) = within(PROMPT, "the end of a worker", self.replies.recv()).await? {
            if let Err(nonsense) = reply {
                return Err(Failure::new(nonsense));
            }
        }
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders = None;
        // Already gone is as good.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap_or_default();
        }
    }
}

/// What a worker process does: carries out orders until nobody gives any more.
pub(crate) fn serve(locks: &Locks, runtime: &tokio::runtime::Runtime) -> io::Result<()> {
    // The case may be killed at its deadline; nobody would be left to end this process.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut service = Service { locks, guard: None };
    say(&Reply::Ready)?;
    for line in io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        say(&runtime.block_on(service.carry_out(order)))?;
    }
    Ok(())
}

fn say(reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

struct Service<'a> {
    locks: &'a Locks,
    guard: Option<Held>,
}

impl Service<'_> {
    async fn carry_out(&mut self, order: Order) -> Reply {
        match order {
            Order::Acquire { name, ttl, wait } => {
                self.take(&Want::new(Kind::Lock, &name).ttl(ttl), wait).await
            }
            Order::Take { want, wait } => self.take(&want, wait).await,
            Order::Check => Reply::Held(self.guard.as_ref().is_some_and(asked)),
            Order::AwaitLoss => match &self.guard {
                Some(held) => {
                    held.guard().lost().await;
                    Reply::Lost
                }
                None => no_guard(),
            },
            Order::Release => match self.guard.take() {
                Some(guard) => {
                    guard.release().await.map_or_else(|error| failed(&error), |()| Reply::Released)
                }
                None => no_guard(),
            },
            Order::Exit => {
                recording::strikes(Target::Process(std::process::id()), "exits without releasing");
                std::process::exit(0)
            }
            Order::Hammer(hammer) => self.hammer(&hammer).await.unwrap_or_else(|reply| reply),
        }
    }

    async fn take(&mut self, want: &Want, wait: bool) -> Reply {
        let outcome =
            if wait { want.acquire(self.locks).await.map(Some) } else { want.try_acquire(self.locks).await };
        match outcome {
            Ok(Some(held)) => {
                let token = held.token().get();
                self.guard = Some(held);
                Reply::Granted { token }
            }
            Ok(None) => Reply::Busy,
            Err(error) => failed(&error),
        }
    }

    async fn hammer(&self, hammer: &Hammer) -> Result<Reply, Reply> {
        let recorder = match &hammer.history {
            Some(path) => Recorder::file(path).map_err(|error| other_trouble(&error))?,
            None => Recorder::memory(),
        };
        let client = recorder.client(0);
        let name = hammer.name.as_str();
        let mut rounds = 0;
        while rounds < hammer.rounds && Boottime::now().as_nanos() < hammer.until {
            let want = Want::new(hammer.mix.draw(), name).ttl(hammer.ttl);
            client.acquiring(name, want.kind.mode().into());
            let held = match want.acquire(self.locks).await {
                Ok(held) => held,
                Err(error) if hammer.patient && error.kind() == ErrorKind::Unavailable => {
                    client.end(Op::Acquire, Phase::Info, name, None, None);
                    continue;
                }
                Err(error) => return Err(failed(&error)),
            };
            let guard = held.guard();
            let token = guard.fencing_token();
            client.end(Op::Acquire, Phase::Ok, name, Some(guard.claim_id().to_string()), Some(token));
            let witness = if hammer.witness {
                let places = hammer.mix.places(&want.kind);
                let entered = Witness::take(name, places).map_err(|error| other_trouble(&error))?;
                Some(entered.map_err(|overlap| {
                    let message = format!("inside together with process {}", overlap.with_pid);
                    Failure::new(message).about(name, vec![token.get()]).record();
                    Reply::Overlap { with_pid: overlap.with_pid }
                })?)
            } else {
                None
            };
            client.invoke(Op::Check, name, Some(token));
            client.answered(name, token, guard.is_held());
            spend(hammer.hold);
            client.invoke(Op::Check, name, Some(token));
            client.answered(name, token, guard.is_held());
            drop(witness);
            client.invoke(Op::Release, name, Some(token));
            let phase = match held.release().await {
                Ok(()) => Phase::Ok,
                // It may have happened, and is tried again until it has.
                Err(error) if error.kind() == ErrorKind::Unavailable => Phase::Info,
                // Lost, and so not given back by us.
                Err(_) => Phase::Fail,
            };
            client.end(Op::Release, phase, name, None, Some(token));
            rounds += 1;
        }
        Ok(Reply::Hammered { rounds })
    }
}

/// The lock with this ttl, if it is to have a certain one.
pub(crate) fn with_ttl(lock: Lock, ttl: Option<Duration>) -> Lock {
    match ttl {
        Some(ttl) => lock.ttl(ttl),
        None => lock,
    }
}

/// Whether the guard says that it holds.
fn asked(held: &Held) -> bool {
    let (lock, token, answer) = (held.guard().name().to_owned(), held.token().get(), held.is_held());
    recording::note(|| What::Checked { lock, token, held: answer });
    answer
}

/// Work that takes some time.
fn spend(time: Duration) {
    let until = Boottime::now().after(time);
    while Boottime::now() < until {
        std::hint::spin_loop();
    }
}

fn no_guard() -> Reply {
    Reply::Failed { kind: "Order".into(), message: "this worker holds nothing".into() }
}

fn failed(error: &locks_api::Error) -> Reply {
    Reply::Failed { kind: format!("{:?}", error.kind()), message: error.to_string() }
}

fn other_trouble(error: &io::Error) -> Reply {
    Reply::Failed { kind: "Io".into(), message: error.to_string() }
}

/// A file for a history that no other case uses; gone when dropped.
#[derive(Debug)]
pub(crate) struct HistoryFile(PathBuf);

impl HistoryFile {
    pub(crate) fn new() -> Self {
        Self(std::env::temp_dir().join(format!("locks-conformance-{:032x}.jsonl", fastrand::u128(..))))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for HistoryFile {
    fn drop(&mut self) {
        // Nobody may ever have written to it.
        std::fs::remove_file(&self.0).unwrap_or_default();
    }
}
