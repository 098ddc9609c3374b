//! Whatever can go wrong, in any order, for as long as one likes.

use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;

use crate::cases::Case;
use crate::cases::crash::still_at_work;
use crate::cases::process::PROCESSES;
use crate::cases::progress::Grants;
use crate::harness::Fault;
use crate::proxy::{Direction, Proxy};
use crate::space::{Space, becomes_free, check_history_file};
use crate::verdict::{Verdict, pause_for};
use crate::worker::{Hammer, HistoryFile, Mix, Order, Worker};

pub(crate) const ID: &str = "soak::random_faults";

pub(super) const CASES: &[Case] = &[Case::new(
    ID,
    "processes that take locks in turns while anything goes wrong, drawn from a seed: tokens grow, no stale guard says that it holds, and \
     it goes on",
    |space| Box::pin(random_faults(space)),
)
.needs(&[PROCESSES])
.alone()
.deadline(300)];

/// How long to soak, in seconds.
const SECONDS: &str = "LOCKS_CONFORMANCE_SOAK";

/// What all chance comes from.
const SEED: &str = "LOCKS_CONFORMANCE_SEED";

/// How long it goes on: 20 s, or as long as the environment says.
pub(crate) fn length() -> Duration {
    Duration::from_secs(number(SECONDS).unwrap_or(20))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// How many processes take each lock in turns, and how long each holds it.
const HOLDS: [Duration; 3] =
    [Duration::from_millis(1), Duration::from_millis(40), Duration::from_millis(400)];

const LOCKS: usize = 2;

async fn random_faults(space: Space) -> Verdict {
    let seed = number(SEED).unwrap_or_else(|| fastrand::u64(..));
    let soaked = soak(&space, &mut Rng::with_seed(seed)).await;
    soaked.map_err(|failure| failure.while_doing(format!("soaking with {SEED}={seed}")))
}

async fn soak(space: &Space, random: &mut Rng) -> Verdict {
    let mut crowds = Vec::new();
    for lock in 0..LOCKS {
        crowds.push(Crowd::start(space, &format!("soaked-{lock}")).await?);
    }
    let store_faults = space.faults().iter().copied().filter(|fault| is_survived(*fault)).collect::<Vec<_>>();
    let until = Instant::now() + length();
    let mut next_store_fault = Instant::now();
    while Instant::now() < until {
        pause_for(Duration::from_millis(random.u64(..400))).await;
        if !store_faults.is_empty() && Instant::now() >= next_store_fault {
            strike(space, store_faults[random.usize(..store_faults.len())], random).await?;
            // A store that forgets something every moment would grant nothing at all.
            next_store_fault = Instant::now() + grace(space).mul_f64(0.5 + random.f64() * 1.5);
            continue;
        }
        crowds[random.usize(..LOCKS)].disturb(space, random).await?;
    }
    for crowd in &mut crowds {
        crowd.recover(space).await?;
    }
    for crowd in crowds {
        crowd.finish(space).await?;
    }
    Ok(())
}

/// Whether locks keep what they promise under this fault.
fn is_survived(fault: Fault) -> bool {
    !matches!(fault, Fault::StoreFull | Fault::ReadOnly | Fault::Revocation)
}

fn grace(space: &Space) -> Duration {
    space.guarantees().ttl.map_or(Duration::from_secs(1), |limits| limits.max)
}

async fn strike(space: &Space, fault: Fault, random: &mut Rng) -> Verdict {
    match fault {
        Fault::Promotion | Fault::Restore => {
            space.checkpoint().await?;
            // What is written meanwhile is undone.
            pause_for(Duration::from_millis(random.u64(..1_500))).await;
            space.inject(fault).await
        }
        Fault::Pause => {
            space.inject(fault).await?;
            pause_for(outage(space, random)).await;
            space.heal(fault).await
        }
        _ => space.inject(fault).await,
    }
}

/// Sometimes shorter than a renewal can wait, sometimes longer than the ttl.
fn outage(space: &Space, random: &mut Rng) -> Duration {
    space.short_ttl().unwrap_or(Duration::from_secs(1)).mul_f64(random.f64() * 1.4)
}

/// The processes that take one lock in turns.
struct Crowd {
    name: String,
    members: Vec<Member>,
    history: HistoryFile,
    grants: Grants,
}

struct Member {
    worker: Worker,
    /// Its way to the store, if that is spoilt here.
    line: Option<Proxy>,
    hold: Duration,
}

impl Crowd {
    async fn start(space: &Space, tag: &str) -> Verdict<Self> {
        let (name, history) = (space.name(tag), HistoryFile::new());
        let mut members = Vec::new();
        for hold in HOLDS {
            let line = if space.is_over_tcp() { Some(space.proxy()?) } else { None };
            let worker = start(space, line.as_ref(), order(space, &name, &history, hold)).await?;
            members.push(Member { worker, line, hold });
        }
        let grants = Grants::new(HOLDS.len());
        Ok(Self { name, members, history, grants })
    }

    /// Does something to one of them.
    async fn disturb(&mut self, space: &Space, random: &mut Rng) -> Verdict {
        let member = random.usize(..self.members.len());
        let Member { worker, line, hold } = &mut self.members[member];
        match (random.u32(..10), line) {
            (0, line) => {
                worker.kill()?;
                *worker = start(space, line.as_ref(), order(space, &self.name, &self.history, *hold)).await?;
            }
            (1, _) => {
                worker.signal(Signal::STOP)?;
                pause_for(outage(space, random)).await;
                worker.signal(Signal::CONT)?;
            }
            (2, Some(line)) => {
                line.black_hole();
                pause_for(outage(space, random)).await;
                line.restore();
            }
            (3, Some(line)) => {
                line.half_open(if random.bool() { Direction::Replies } else { Direction::Requests });
                pause_for(outage(space, random)).await;
                // What was held back arrives late, or never.
                if random.bool() {
                    line.reset();
                }
                line.restore();
            }
            (4, Some(line)) => {
                let longest = Duration::from_millis(random.u64(1..150));
                line.jitter(Duration::ZERO..=longest);
            }
            (5, Some(line)) => line.restore(),
            (6, Some(line)) => {
                line.refuse();
                pause_for(outage(space, random)).await;
                line.restore();
            }
            (7, Some(line)) => line.lose_reply(random.u32(1..8)),
            (_, Some(line)) => line.reset(),
            (_, None) => {}
        }
        Ok(())
    }

    /// Ends all that is still wrong and waits until everybody is served again.
    async fn recover(&mut self, space: &Space) -> Verdict {
        for member in &self.members {
            if let Some(line) = &member.line {
                line.restore();
            }
        }
        self.grants.go_on(self.history.path(), space.grace_limit() + space.crash_limit()).await
    }

    async fn finish(mut self, space: &Space) -> Verdict {
        for member in &mut self.members {
            member.worker.kill()?;
            still_at_work(&mut member.worker).await?;
        }
        let locks = space.connect().await?;
        becomes_free(&locks, &self.name, space.grace_limit()).await?;
        check_history_file(self.history.path(), 1, space.strictness_over_cuts())
    }
}

async fn start(space: &Space, line: Option<&Proxy>, order: Order) -> Verdict<Worker> {
    let mut worker = match line {
        Some(line) => {
            line.restore();
            space.worker_through(line).await?
        }
        None => space.worker().await?,
    };
    worker.order(&order)?;
    Ok(worker)
}

fn order(space: &Space, name: &str, history: &HistoryFile, hold: Duration) -> Order {
    Order::Hammer(Hammer {
        name: name.to_owned(),
        mix: Mix::Exclusive,
        ttl: space.short_ttl(),
        rounds: u32::MAX,
        until: u64::MAX,
        hold,
        history: Some(history.path().to_owned()),
        // Whoever has lost the lock is inside until it looks again, together with the next one.
        witness: false,
        patient: true,
    })
}
