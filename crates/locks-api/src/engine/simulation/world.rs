//! Time, the network, and what must hold.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::super::ticket::{Answer, Patience};
use super::minimum_hold::MinimumHolds;
use super::process::{Doing, Process};
use super::store::{Flaw, Push, Store};
use crate::clock::Boottime;
use crate::error::{Error, ErrorKind};
use crate::loss::LossReason;
use crate::name::LockName;
use crate::spi::{Attempt, Claim, Event, Grant, InstanceId, Mode, Released, Renewed};
use crate::token::FencingToken;

pub(super) const TTL: Duration = Duration::from_secs(3);

/// What happens in a world, and how often.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) queue: bool,
    /// Whether callers want locks of all kinds and with options, or just exclusive ones.
    pub(super) kinds: bool,
    pub(super) flaw: Option<Flaw>,
    /// In percent, of each message.
    pub(super) loss: u32,
    pub(super) double: u32,
    /// Of a message.
    pub(super) delay: Duration,
    /// In percent, of each disturbance that comes every second or so.
    pub(super) pause: u32,
    pub(super) crash: u32,
    pub(super) forget: u32,
}

impl Plan {
    pub(super) fn calm() -> Self {
        Self {
            queue: true,
            kinds: false,
            flaw: None,
            loss: 0,
            double: 0,
            delay: Duration::from_millis(5),
            pause: 0,
            crash: 0,
            forget: 0,
        }
    }

    pub(super) fn bad_line() -> Self {
        Self { loss: 15, double: 10, delay: Duration::from_millis(400), ..Self::calm() }
    }

    pub(super) fn crashes() -> Self {
        Self { pause: 30, crash: 15, delay: Duration::from_millis(50), loss: 3, ..Self::calm() }
    }

    pub(super) fn forgetful() -> Self {
        Self { forget: 40, pause: 20, delay: Duration::from_millis(50), double: 5, loss: 3, ..Self::calm() }
    }
}

/// Something that happens at an instant.
#[derive(Debug)]
enum Happening {
    ToStore(usize, Request),
    ToProcess(usize, Reply),
    Tick(usize),
    /// A caller does the next thing.
    Act(usize, usize),
    Disturb,
}

#[derive(Clone, Debug)]
enum Request {
    Acquire(Claim, Boottime),
    Cancel(Claim),
    Release(Grant),
    Renew(Grant, Boottime),
    Recover,
}

#[derive(Clone, Debug)]
enum Reply {
    Acquired(Claim, Boottime, Result<Attempt, Error>),
    Cancelled(Claim, Result<(), Error>),
    Released(Grant, Result<Released, Error>),
    Renewed(Grant, Boottime, Result<Renewed, Error>),
    Recovered(Result<Vec<Grant>, Error>),
    Push(Push),
    /// The store is seen to be in this epoch.
    Epoch(u64),
    Resync,
}

pub(super) struct World {
    plan: Plan,
    trace: bool,
    random: fastrand::Rng,
    now: Boottime,
    agenda: BTreeMap<(Boottime, u64), Happening>,
    serial: u64,
    store: Store,
    older: Store,
    processes: Vec<Process>,
    /// The largest token that any guard of the lock had, and how often each was given out.
    tokens: HashMap<LockName, (FencingToken, HashMap<FencingToken, u32>)>,
    minimum_holds: MinimumHolds,
    disturbances: u32,
    /// Nothing ever goes wrong here: no caller may hear of trouble.
    calm: bool,
    digest: u64,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan, trace: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let store = Store::new(plan.flaw, plan.queue, random.bool(), TTL);
        let processes: Vec<Process> = (0..random.usize(2..5))
            .map(|_| {
                let callers = random.usize(1..5);
                Process::new(&mut random, callers, plan.kinds, store.epoch)
            })
            .collect();
        // Tokens follow the store's clock, which shows microseconds since 1970.
        let now = Boottime::from_nanos(1_000_000_000_000_000);
        let disturbances = random.u32(0..12);
        let calm = plan.loss + plan.double + plan.pause + plan.crash + plan.forget == 0;
        let mut world = Self {
            plan,
            trace,
            random,
            now,
            agenda: BTreeMap::new(),
            serial: 0,
            older: store.clone(),
            store,
            processes,
            tokens: HashMap::new(),
            minimum_holds: MinimumHolds::default(),
            disturbances,
            calm,
            digest: 0,
        };
        for process in 0..world.processes.len() {
            for caller in 0..world.processes[process].callers.len() {
                let pause = world.within(Duration::from_secs(2));
                world.at(pause, Happening::Act(process, caller));
            }
        }
        world.at(Duration::from_millis(500), Happening::Disturb);
        world
    }

    /// Runs until nothing happens any more. An error names what was violated.
    pub(super) fn run(&mut self) -> Result<(), String> {
        let start = self.now;
        while let Some(((at, _), happening)) = self.agenda.pop_first() {
            self.now = at;
            if self.trace {
                println!("{:>10.6} {happening:?}", at.since(start).as_secs_f64());
            }
            self.digest = self.digest.wrapping_mul(31).wrapping_add(at.as_nanos());
            self.happen(happening)?;
            self.check_exclusion()?;
            self.check_leftovers()?;
            if at.since(start) > Duration::from_secs(900) {
                return Err(format!("liveness: not at rest after 15 minutes; {}", self.picture()));
            }
        }
        for process in self.processes.iter().filter(|process| !process.crashed) {
            let idle = process.callers.iter().all(|caller| matches!(caller.doing, Doing::Resting));
            if !idle || !process.core.is_settled() {
                return Err(format!("liveness: somebody waits for ever; {}", self.picture()));
            }
        }
        let left = self.store.live_claims(None, self.now.after(TTL));
        if left > 0 {
            return Err(format!("liveness: {left} claims are left in the store"));
        }
        Ok(())
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::ToStore(process, request) => self.serve(process, request),
            Happening::ToProcess(process, reply) => {
                if let Some(later) = self.asleep(process) {
                    self.at(later, Happening::ToProcess(process, reply));
                } else if !self.processes[process].crashed {
                    self.deliver(process, reply);
                    self.settle(process)?;
                }
            }
            Happening::Tick(process) => {
                if let Some(later) = self.asleep(process) {
                    self.at(later, Happening::Tick(process));
                } else if !self.processes[process].crashed {
                    let local = self.processes[process].local(self.now);
                    self.processes[process].tick_at = None;
                    self.processes[process].core.tick(local);
                    self.settle(process)?;
                }
            }
            Happening::Act(process, caller) => {
                if let Some(later) = self.asleep(process) {
                    self.at(later, Happening::Act(process, caller));
                } else if !self.processes[process].crashed {
                    self.act(process, caller);
                    self.settle(process)?;
                }
            }
            Happening::Disturb => self.disturb(),
        }
        Ok(())
    }

    /// How long the process is still paused.
    fn asleep(&self, process: usize) -> Option<Duration> {
        let process = &self.processes[process];
        (!process.crashed && !process.runs(self.now)).then(|| process.paused_until.since(self.now))
    }

    /// A caller does the next thing.
    fn act(&mut self, process: usize, caller: usize) {
        let roll = self.random.u32(0..100);
        let now = self.now;
        match &mut self.processes[process].callers[caller].doing {
            Doing::Resting => {
                let body = &mut self.processes[process].callers[caller];
                if body.rounds == 0 {
                    return;
                }
                body.rounds -= 1;
                let floor = self.tokens.get(&body.lock).map(|(highest, _)| *highest);
                let patience = match roll {
                    0..20 => Patience::Try,
                    20..50 => {
                        let wait = self.within(Duration::from_secs(6));
                        Patience::Until(self.processes[process].local(now).after(wait))
                    }
                    _ => Patience::Endless,
                };
                self.processes[process].request(caller, patience, floor, now);
                if self.random.u32(0..100) < 20 {
                    // Loses interest some time later.
                    let pause = self.within(Duration::from_secs(4));
                    self.at(pause, Happening::Act(process, caller));
                }
            }
            Doing::Waiting { .. } | Doing::Releasing { .. } => {
                self.processes[process].abandon(caller, now);
                let pause = self.within(Duration::from_secs(1));
                self.at(pause, Happening::Act(process, caller));
            }
            Doing::Holding { .. } => {
                self.processes[process].release(caller, roll < 50, now);
                if matches!(self.processes[process].callers[caller].doing, Doing::Resting) {
                    let pause = self.within(Duration::from_secs(1));
                    self.at(pause, Happening::Act(process, caller));
                }
            }
        }
    }

    /// Sends what the process wants to send, wakes its callers and sets its clock.
    fn settle(&mut self, process: usize) -> Result<(), String> {
        loop {
            self.send(process);
            self.processes[process].core.take_news().spread();
            let mut answered = false;
            for caller in 0..self.processes[process].callers.len() {
                if let Some(answer) = self.processes[process].look(caller) {
                    answered = true;
                    self.answered(process, caller, answer)?;
                }
            }
            if !answered && self.processes[process].core.outbox().is_empty() {
                break;
            }
        }
        if let Some(local) = self.processes[process].core.next_tick() {
            let at = self.processes[process].to_true(local).max(self.now);
            if self.processes[process].tick_at.is_none_or(|known| at < known) {
                self.processes[process].tick_at = Some(at);
                self.at(at.since(self.now), Happening::Tick(process));
            }
        }
        Ok(())
    }

    fn send(&mut self, process: usize) {
        let local = self.processes[process].local(self.now);
        let outbox = std::mem::take(self.processes[process].core.outbox());
        let requests = outbox
            .acquire
            .into_iter()
            .map(|claim| Request::Acquire(claim, local))
            .chain(outbox.cancel.into_iter().map(Request::Cancel))
            .chain(outbox.release.into_iter().map(|back| Request::Release(back.grant)))
            .chain(outbox.renew.into_iter().map(|grant| Request::Renew(grant, local)))
            .chain(outbox.recover.then_some(Request::Recover));
        for request in requests.collect::<Vec<_>>() {
            self.travel(|| Happening::ToStore(process, request.clone()), false);
        }
    }

    /// A message is under way: once, twice or never.
    fn travel(&mut self, message: impl Fn() -> Happening, reliable: bool) {
        let copies = match self.random.u32(0..100) {
            roll if roll < self.plan.loss && !reliable => 0,
            roll if roll < self.plan.loss + self.plan.double && !reliable => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let delay = self.within(self.plan.delay);
            self.at(delay, message());
        }
    }

    fn serve(&mut self, process: usize, request: Request) {
        let now = self.now;
        let lost = self.random.u32(0..100) < self.plan.loss / 2;
        let unavailable = || Error::new(ErrorKind::Unavailable, "the reply was lost");
        let reply = match request {
            Request::Acquire(claim, sent) => {
                let attempt = self.store.acquire(&claim, now);
                Reply::Acquired(claim, sent, if lost { Err(unavailable()) } else { Ok(attempt) })
            }
            Request::Cancel(claim) => {
                self.store.cancel(&claim, now);
                Reply::Cancelled(claim, if lost { Err(unavailable()) } else { Ok(()) })
            }
            Request::Release(grant) => {
                let released = self.store.release(&grant, now);
                Reply::Released(grant, if lost { Err(unavailable()) } else { Ok(released) })
            }
            Request::Renew(grant, sent) => {
                let renewed = self.store.renew(&grant, now);
                Reply::Renewed(grant, sent, if lost { Err(unavailable()) } else { Ok(renewed) })
            }
            Request::Recover => {
                let instance = self.processes[process].core.instance;
                let grants = self.store.grants(instance);
                Reply::Recovered(if lost { Err(unavailable()) } else { Ok(grants) })
            }
        };
        let epoch = self.store.epoch;
        self.travel(|| Happening::ToProcess(process, Reply::Epoch(epoch)), true);
        self.travel(|| Happening::ToProcess(process, reply.clone()), false);
        self.push();
    }

    /// Delivers what the store says on its own. What is lost here is made up for by the engine's own checks.
    fn push(&mut self) {
        for (instance, push) in std::mem::take(&mut self.store.pushes) {
            if let Some(process) = self.process_of(instance) {
                self.travel(|| Happening::ToProcess(process, Reply::Push(push.clone())), false);
            }
        }
    }

    fn process_of(&self, instance: InstanceId) -> Option<usize> {
        self.processes.iter().position(|process| process.core.instance == instance)
    }

    fn deliver(&mut self, process: usize, reply: Reply) {
        let process = &mut self.processes[process];
        let local = process.local(self.now);
        let core = &mut process.core;
        match reply {
            Reply::Acquired(claim, sent, reply) => core.acquired(&claim, sent, reply, local),
            Reply::Cancelled(claim, reply) => core.cancelled(&claim, &reply, local),
            Reply::Released(grant, reply) => core.released(&grant, &reply, local),
            Reply::Renewed(grant, sent, reply) => core.renewed(&grant, sent, &reply, local),
            Reply::Recovered(reply) => core.recovered(reply, local),
            Reply::Push(Push::Granted(grant, since)) => {
                let since = since.map(|since| process.local(since));
                process.core.event(Event::Granted(grant, since), local);
            }
            Reply::Push(Push::Lost(name, claim, reason)) => {
                core.event(Event::Lost { name, claim, last: None, reason }, local);
            }
            Reply::Push(Push::Hint(name)) => core.event(Event::Hint(name), local),
            Reply::Epoch(epoch) if epoch > process.epoch => {
                process.epoch = epoch;
                core.event(Event::Reset, local);
            }
            Reply::Epoch(_) => {}
            Reply::Resync => core.event(Event::Resync, local),
        }
    }

    /// A caller got its answer.
    fn answered(&mut self, process: usize, caller: usize, answer: Answer) -> Result<(), String> {
        let body = &mut self.processes[process].callers[caller];
        let before = std::mem::replace(&mut body.doing, Doing::Resting);
        if let Answer::Failed(error) = &answer
            && self.calm
            && error.kind() != ErrorKind::Timeout
            // A guard may have had its lock for as long as it wanted; other losses show while it is held.
            && error.kind() != ErrorKind::Lost
        {
            return Err(format!("calm: a caller was told: {error}"));
        }
        let mut pause = Duration::from_millis(100);
        if let (Answer::Granted(granted), Doing::Waiting { floor, since, .. }) = (answer, before) {
            let token = granted.token;
            let (highest, given) =
                self.tokens.entry(body.lock.clone()).or_insert_with(|| (token, HashMap::new()));
            let times = given.entry(token).or_default();
            *times += 1;
            if *times > 1 {
                return Err(format!("token order: {token} was given out twice"));
            }
            if floor.is_some_and(|floor| token <= floor) {
                return Err(format!(
                    "token order: {token} is not above {floor:?}, which was there at {since:?}"
                ));
            }
            *highest = token.max(*highest);
            if let Some(at) = self.store.granted_at(&body.lock, token) {
                self.minimum_holds.seen(&body.lock, token, at, body.min_hold())?;
            }
            body.doing = Doing::Holding { granted, seen_lost: false };
            pause = match self.random.u32(0..10) {
                0 => self.within(TTL * 3),
                1..4 => Duration::ZERO,
                _ => self.within(Duration::from_secs(1)),
            };
        }
        self.at(pause, Happening::Act(process, caller));
        Ok(())
    }

    /// No two guards of a lock are held at once that may not, and none that was lost is held again.
    fn check_exclusion(&mut self) -> Result<(), String> {
        let mut held: HashMap<LockName, Vec<(Mode, FencingToken)>> = HashMap::new();
        let strict = self.random.bool();
        for process in self.processes.iter_mut().filter(|process| !process.crashed) {
            let local = process.local(self.now);
            for caller in &mut process.callers {
                let Doing::Holding { granted, seen_lost } = &mut caller.doing else { continue };
                // Looking through the guard's eyes settles an expiry; looking past it must come to the same.
                let is_held = if strict {
                    granted.lease.is_held_at(local)
                } else {
                    granted.lease.deadline().is_some_and(|deadline| local < deadline)
                };
                if is_held && *seen_lost {
                    return Err(format!("a lost lock came back to life: token {}", granted.token));
                }
                *seen_lost |= !is_held;
                if self.calm && *seen_lost && granted.lease.loss() != Some(LossReason::MaxHold) {
                    return Err(format!("calm: token {} was lost", granted.token));
                }
                if !is_held {
                    continue;
                }
                let (mode, others) = (granted.lease.mode(), held.entry(caller.lock.clone()).or_default());
                if !mode.fits_beside(others.iter().map(|(mode, _)| *mode)) {
                    let lock = &caller.lock;
                    return Err(format!(
                        "exclusion: {others:?} and {mode:?} under {} hold {lock} at once",
                        granted.token
                    ));
                }
                others.push((mode, granted.token));
            }
        }
        Ok(())
    }

    /// Whoever has settled everything left nothing in the store, unless something got lost on the way.
    fn check_leftovers(&self) -> Result<(), String> {
        if !self.calm {
            return Ok(());
        }
        for (index, process) in self.processes.iter().enumerate() {
            let left = self.store.live_claims(Some(process.core.instance), self.now);
            let under_way = |happening: &Happening| match happening {
                Happening::ToStore(at, _) | Happening::ToProcess(at, _) => *at == index,
                _ => false,
            };
            if left > 0 && process.core.is_settled() && !self.agenda.values().any(under_way) {
                return Err(format!("leftovers: {left} claims of a process that has settled everything"));
            }
        }
        Ok(())
    }

    fn disturb(&mut self) {
        if self.disturbances == 0 {
            // From here on all is well; whoever was cut off is told to look again.
            self.plan =
                Plan { queue: self.plan.queue, kinds: self.plan.kinds, flaw: self.plan.flaw, ..Plan::calm() };
            for process in 0..self.processes.len() {
                self.at(Duration::ZERO, Happening::ToProcess(process, Reply::Resync));
            }
            return;
        }
        self.disturbances -= 1;
        let target = self.random.usize(0..self.processes.len());
        if self.random.u32(0..100) < self.plan.pause {
            let pause = self.within(TTL * 2);
            self.processes[target].paused_until = self.now.after(pause);
        }
        if self.random.u32(0..100) < self.plan.crash {
            self.processes[target].crashed = true;
        }
        if self.random.u32(0..100) < self.plan.forget {
            let restored = self.random.bool().then(|| self.older.clone());
            self.store.forget(restored, self.now);
            self.minimum_holds.forget(self.now);
        }
        if self.random.u32(0..100) < 50 {
            self.older = self.store.clone();
        }
        let pause = self.within(Duration::from_secs(2));
        self.at(pause, Happening::Disturb);
    }

    fn within(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.random.u64(0..=u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)))
    }

    fn at(&mut self, delay: Duration, happening: Happening) {
        self.serial += 1;
        self.agenda.insert((self.now.after(delay), self.serial), happening);
    }

    fn picture(&self) -> String {
        self.processes.iter().map(|process| format!("{:?}\n", process.core)).collect()
    }
}
