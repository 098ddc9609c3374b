//! A process with some of the waiters. Nothing is handed on inside it, so that every hand-off is the store's.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use distributed_lock_core::traits::{DistributedLock as _, LockHandle as _, LockProvider as _};
use distributed_lock_postgres::PostgresLockProvider;
use etcd_client::LockOptions;
use locks_api::{Boottime, Locks};
use rslock::LockManager;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::{open, runtime};

/// The lock that all want.
pub(super) const NAME: &str = "wanted";

/// What waiters use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum With {
    /// A `Locks` for each waiter, with connections of its own.
    Locks,
    /// A `Locks` for each process, whose waiters share its connections.
    SharedLocks,
    /// As `Locks`, with PostgreSQL's `mode=session`.
    Sessions,
    Rslock,
    DistributedLockPostgres,
    LockClient,
}

/// One of the processes, as it sees itself.
#[derive(clap::Args)]
pub(crate) struct Contender {
    url: String,
    with: With,
    /// The file in which waiters see each other
    arena: PathBuf,
    /// The number of the first waiter
    first: u32,
    waiters: u32,
}

impl Contender {
    /// Does what it is told, until nobody tells it any more.
    ///
    /// `prepare`: everybody connects. `contend MS`: everybody takes the lock as often as it can for so long. `queue`: everybody
    /// takes the lock once.
    pub(crate) fn run(&self) -> Result<()> {
        let runtime = runtime()?;
        let clients: Vec<Client> = match self.with {
            With::SharedLocks => vec![self.client(&runtime)?; self.waiters as usize],
            _ => (0..self.waiters).map(|_| self.client(&runtime)).collect::<Result<_>>()?,
        };
        let waiters: Vec<Arc<Waiter>> = (self.first..)
            .zip(clients)
            .map(|(id, client)| self.waiter(id, client).map(Arc::new))
            .collect::<Result<_>>()?;
        for line in std::io::stdin().lines() {
            let line = line.context("can't hear what to do")?;
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["prepare"] => {
                    for_all(&runtime, &waiters, |waiter| async move { waiter.prepare().await })?;
                    println!("prepared");
                }
                ["contend", milliseconds] => {
                    let end = Instant::now() + Duration::from_millis(milliseconds.parse()?);
                    let tallies =
                        for_all(&runtime, &waiters, |waiter| async move { waiter.contend(end).await })?;
                    let sum = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum::<u64>();
                    println!(
                        "{} {} {} {}",
                        sum(|t| t.share),
                        sum(|t| t.hand_offs),
                        sum(|t| t.all),
                        sum(|t| t.overlaps)
                    );
                }
                ["queue"] => {
                    let turns = for_all(&runtime, &waiters, |waiter| async move { waiter.queue().await })?;
                    println!("{}", turns.concat());
                }
                _ => bail!("told to {line:?}"),
            }
        }
        Ok(())
    }

    fn waiter(&self, id: u32, client: Client) -> Result<Waiter> {
        let file = File::options().read(true).write(true).open(&self.arena).context("no arena")?;
        Ok(Waiter { id, client, arena: Arena { file } })
    }

    /// The client of a waiter.
    fn client(&self, runtime: &Runtime) -> Result<Client> {
        Ok(match self.with {
            With::Locks | With::SharedLocks | With::Sessions => Client::Locks(open(&self.url, false)?),
            With::Rslock => Client::Rslock(LockManager::new(vec![self.url.as_str()])),
            With::DistributedLockPostgres => {
                let provider = runtime.block_on(PostgresLockProvider::new(self.url.as_str()));
                Client::DistributedLockPostgres(Arc::new(provider.context("distributed-lock-postgres")?))
            }
            With::LockClient => runtime.block_on(async {
                let mut client = etcd_client::Client::connect([self.url.as_str()], None).await?;
                // A waiter is its lease: those of one lease would hold together.
                let lease = client.lease_grant(LEASE, None).await?.id();
                anyhow::Ok(Client::ServersLock(Box::new(client), lease))
            })?,
        })
    }
}

/// Lets all waiters do this at the same time.
fn for_all<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
    runtime: &Runtime,
    waiters: &[Arc<Waiter>],
    what: impl Fn(Arc<Waiter>) -> F,
) -> Result<Vec<T>> {
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for waiter in waiters {
            tasks.spawn(what(Arc::clone(waiter)));
        }
        let mut results = Vec::new();
        while let Some(result) = tasks.join_next().await {
            results.push(result.context("a waiter panicked")??);
        }
        Ok(results)
    })
}

struct Waiter {
    id: u32,
    client: Client,
    arena: Arena,
}

#[derive(Clone)]
enum Client {
    Locks(Locks),
    Rslock(LockManager),
    DistributedLockPostgres(Arc<PostgresLockProvider>),
    ServersLock(Box<etcd_client::Client>, i64),
}

/// What a waiter got in a contention.
#[derive(Default)]
struct Tally {
    /// How often it had the lock while all contended.
    share: u64,
    /// How often it got it from another one.
    hand_offs: u64,
    /// How often it had the lock, until the last one had left.
    all: u64,
    overlaps: u64,
}

const TTL: Duration = Duration::from_secs(15);

/// In seconds: longer than anything here takes, so that nobody has to keep it alive.
const LEASE: i64 = 3_600;

/// rslock's own longest pause between two looks at the lock.
const RSLOCK_PAUSE: Duration = Duration::from_millis(200);

impl Waiter {
    async fn prepare(&self) -> Result<()> {
        let name = format!("prepared-{}", self.id);
        match &self.client {
            Client::Locks(locks) => locks.lock(name).acquire().await?.release().await?,
            Client::Rslock(manager) => manager.acquire(name.as_str(), TTL).await?.release().await,
            Client::DistributedLockPostgres(provider) => {
                provider.create_lock(&name).acquire(None).await?.release().await?;
            }
            Client::ServersLock(client, lease) => {
                let mut client = client.clone();
                let held = client.lock(name, Some(LockOptions::new().with_lease(*lease))).await?;
                client.unlock(held.key()).await?;
            }
        }
        Ok(())
    }

    async fn contend(&self, end: Instant) -> Result<Tally> {
        let mut tally = Tally::default();
        let mut count = |passage: Passage| {
            let in_time = u64::from(Instant::now() < end);
            tally.all += 1;
            tally.share += in_time;
            tally.hand_offs += in_time * u64::from(passage.from_another);
            tally.overlaps += u64::from(passage.overlaps);
        };
        while Instant::now() < end {
            match &self.client {
                Client::Locks(locks) => {
                    let guard = locks.lock(NAME).acquire().await?;
                    count(self.arena.pass(self.id)?);
                    guard.release().await?;
                }
                Client::Rslock(manager) => {
                    let guard = manager.acquire(NAME, TTL).await?;
                    count(self.arena.pass(self.id)?);
                    guard.release().await;
                    pause().await;
                }
                Client::DistributedLockPostgres(provider) => {
                    // With hundreds on one core it gives up waiting for its own connection. Whoever does asks again.
                    let Ok(handle) = provider.create_lock(NAME).acquire(None).await else { continue };
                    count(self.arena.pass(self.id)?);
                    handle.release().await?;
                }
                Client::ServersLock(client, lease) => {
                    let mut client = client.clone();
                    let held = client.lock(NAME, Some(LockOptions::new().with_lease(*lease))).await?;
                    count(self.arena.pass(self.id)?);
                    client.unlock(held.key()).await?;
                }
            }
        }
        Ok(tally)
    }

    /// `<got at> <gave back at> <token> <claim> <overlaps> `, in numbers; the claim is two of them.
    async fn queue(&self) -> Result<String> {
        let Client::Locks(locks) = &self.client else { bail!("only locks queue") };
        let guard = locks.lock(NAME).acquire().await?;
        let got = Boottime::now().as_nanos();
        let passage = self.arena.pass(self.id)?;
        let claim = u128::from_str_radix(&guard.claim_id().to_string(), 16).context("a strange claim")?;
        let token = guard.fencing_token().get();
        let gave = Boottime::now().as_nanos();
        guard.release().await?;
        let (high, low) = ((claim >> 64) as u64, claim as u64);
        Ok(format!("{got} {gave} {token} {high} {low} {} ", u64::from(passage.overlaps)))
    }
}

/// Whoever gives back an rslock would take it again before anybody looks, so it pauses as those do who looked in vain.
#[expect(clippy::disallowed_methods, reason = "this is what the peer does; nothing waits for it")]
async fn pause() {
    tokio::time::sleep(RSLOCK_PAUSE.mul_f64(fastrand::f64())).await;
}

/// Sees when two are inside, and who was there before: a file that one at a time can have.
struct Arena {
    file: File,
}

struct Passage {
    overlaps: bool,
    from_another: bool,
}

impl Arena {
    fn pass(&self, id: u32) -> Result<Passage> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Passage { overlaps: true, from_another: true }),
            Err(error) => return Err(error).context("can't enter the arena"),
        }
        let mut last = [0; 4];
        self.file.read_exact_at(&mut last, 0).context("can't read who was here")?;
        self.file.write_all_at(&id.to_ne_bytes(), 0).context("can't write who is here")?;
        flock(&self.file, FlockOperation::Unlock).context("can't leave the arena")?;
        Ok(Passage { overlaps: false, from_another: u32::from_ne_bytes(last) != id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_inside_and_a_change_of_holder_are_seen() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&u32::MAX.to_ne_bytes(), 0).unwrap();
        let enter = || Arena { file: File::options().read(true).write(true).open(file.path()).unwrap() };
        let (one, other) = (enter(), enter());
        let seen = |arena: &Arena, id| {
            let passage = arena.pass(id).unwrap();
            (passage.overlaps, passage.from_another)
        };
        assert_eq!(seen(&one, 1), (false, true));
        assert_eq!(seen(&one, 1), (false, false));
        assert_eq!(seen(&other, 2), (false, true));
        flock(&one.file, FlockOperation::LockExclusive).unwrap();
        assert!(seen(&other, 2).0);
        flock(&one.file, FlockOperation::Unlock).unwrap();
        assert!(!seen(&other, 2).0);
    }
}
