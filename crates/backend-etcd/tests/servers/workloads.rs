//! Sets that several read, change and write back under one lock, while members die and stand still and locks are taken away: what a lock alone promises to such a set,
//! and what a fence adds.
//!
//! The workloads are those that Jepsen's tests of etcd have for locks: a set in unprotected memory, and one whose writes depend on the lock's own key. A gate that remembers the highest token stands between the two. That no two hold the lock at once while they may believe so is for the cases of the conformance kit to show.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use locks_api::{FenceGate, LockGuard, Locks};
use locks_backend_etcd::{EtcdBackend, OwnedInEtcd as _, OwnerCheck};
use locks_test_servers::{EtcdCluster, gateway};

use super::{PROMPT, TTL, eventually, pause};

const WORKERS: usize = 4;

/// How long elements are added.
const TIME: Duration = Duration::from_secs(25);

/// Every so many additions of a worker, it stands still between reading and writing, and its lock is taken away.
const STANDS_STILL: usize = 8;

type Set = BTreeSet<String>;

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_set_keeps_what_an_unfenced_one_loses() {
    let cluster = Arc::new(EtcdCluster::start().unwrap());
    let registers = Arc::new(Registers::new(Arc::clone(&cluster)));
    let until = Instant::now() + TIME;
    let workers: Vec<_> =
        (0..WORKERS).map(|worker| tokio::spawn(add_until(until, worker, Arc::clone(&registers)))).collect();
    hurt_members(until, &registers).await;
    let mut confirmed = Confirmed::default();
    for worker in workers {
        confirmed.append(worker.await.unwrap());
    }
    cluster.start_again().unwrap();
    eventually("an election", || cluster.leader().is_some()).await;

    let lost = |confirmed: &Set, kept: &Set| confirmed.difference(kept).cloned().collect::<Vec<_>>();
    let owned = registers.read_owned().unwrap();
    assert_eq!(lost(&confirmed.owned, &owned), [""; 0], "lost by transactions that compare the lock's key");
    let token = registers.fenced.highest().unwrap();
    let fenced = registers.fenced.apply(token, |set| set.clone()).unwrap();
    assert_eq!(lost(&confirmed.fenced, &fenced), [""; 0], "lost by a register that looks at tokens");
    let plain = registers.plain.lock().unwrap().clone();
    assert_ne!(
        lost(&confirmed.plain, &plain),
        [""; 0],
        "nobody's lock ended in the wrong moment: nothing is shown"
    );
    for (name, confirmed) in [("owned", &confirmed.owned), ("fenced", &confirmed.fenced)] {
        assert!(confirmed.len() > 20, "{} additions to the {name} set", confirmed.len());
    }
}

/// What was confirmed to have been added to each set.
#[derive(Default)]
struct Confirmed {
    plain: Set,
    fenced: Set,
    owned: Set,
}

impl Confirmed {
    fn append(&mut self, mut other: Self) {
        self.plain.append(&mut other.plain);
        self.fenced.append(&mut other.fenced);
        self.owned.append(&mut other.owned);
    }
}

/// Three sets. Each can be read and written as a whole, and not be added to.
struct Registers {
    /// Believes everybody.
    plain: Mutex<Set>,
    /// Refuses who comes with a lower token than somebody before, also who only reads: what he has read is old by the time he writes, and the next holder, who has
    /// read too and is about to write, would undo it.
    fenced: FenceGate<Set>,
    /// Has the third set, at the key `owned`.
    cluster: Arc<EtcdCluster>,
    /// The member that is being hurt. Who wants something asks another one.
    hurt: AtomicUsize,
}

impl Registers {
    fn new(cluster: Arc<EtcdCluster>) -> Self {
        Self { plain: Mutex::default(), fenced: FenceGate::default(), cluster, hurt: AtomicUsize::new(0) }
    }

    fn call(&self, method: &str, message: &str) -> std::io::Result<String> {
        let other = (self.hurt.load(Ordering::SeqCst) + 1) % self.cluster.nodes().len();
        gateway::call(self.cluster.nodes()[other].address(), method, message)
    }

    fn read_owned(&self) -> std::io::Result<Set> {
        let answer = self.call("kv/range", &format!("{{\"key\":\"{}\"}}", gateway::encode(b"owned")))?;
        let value =
            gateway::fields(&answer, "value").first().map(|value| gateway::decode(value)).transpose()?;
        let value = String::from_utf8(value.unwrap_or_default()).unwrap();
        Ok(value.split_whitespace().map(str::to_owned).collect())
    }

    /// Whether it is known to be written. That depends on whether the lock's key is there when it is, and on no clock.
    fn write_owned(&self, set: &Set, check: &OwnerCheck) -> bool {
        let value = set.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let message = format!(
            "{{\"compare\":[{{\"key\":\"{}\",\"target\":\"CREATE\",\"result\":\"EQUAL\",\"createRevision\":\"{}\"}}],\
             \"success\":[{{\"requestPut\":{{\"key\":\"{}\",\"value\":\"{}\"}}}}]}}",
            gateway::encode(&check.key),
            check.create_revision,
            gateway::encode(b"owned"),
            gateway::encode(value.as_bytes())
        );
        self.call("kv/txn", &message).is_ok_and(|answer| answer.contains("\"succeeded\":true"))
    }
}

/// Adds elements, one a turn, to all sets under the same lock.
async fn add_until(until: Instant, worker: usize, registers: Arc<Registers>) -> Confirmed {
    let locks = Locks::new(EtcdBackend::from_url(&registers.cluster.url()).unwrap());
    let mut confirmed = Confirmed::default();
    for number in 0.. {
        if Instant::now() >= until {
            break;
        }
        // An election may take longer than a try has patience.
        let Ok(guard) = locks.lock("set").ttl(TTL).acquire().await else { continue };
        let stands_still = number % STANDS_STILL == worker;
        add(format!("{worker}/{number}"), &locks, &guard, stands_still, &registers, &mut confirmed).await;
        // A lost lock has nothing to be given back.
        drop(guard.release().await);
    }
    confirmed
}

/// Reads all sets, and writes them with the element. Who stands still in between writes what it has read all the same, as a process does whose clock has stopped too.
async fn add(
    element: String,
    locks: &Locks,
    guard: &LockGuard,
    stands_still: bool,
    registers: &Arc<Registers>,
    confirmed: &mut Confirmed,
) {
    let token = guard.fencing_token();
    let Ok(check) = guard.owner_check() else { return };
    let mut plain = registers.plain.lock().unwrap().clone();
    let fenced = registers.fenced.apply(token, |set| set.clone());
    let owned = blocking(registers, Registers::read_owned).await.ok();

    if stands_still && locks.break_lock("set").await.is_ok() {
        let before = registers.plain.lock().unwrap().len();
        let limit = Instant::now() + PROMPT;
        while registers.plain.lock().unwrap().len() == before && Instant::now() < limit {
            pause(Duration::from_millis(2)).await;
        }
    }

    plain.insert(element.clone());
    *registers.plain.lock().unwrap() = plain;
    confirmed.plain.insert(element.clone());
    if let Ok(mut fenced) = fenced {
        fenced.insert(element.clone());
        if registers.fenced.apply(token, |set| *set = fenced).is_ok() {
            confirmed.fenced.insert(element.clone());
        }
    }
    if let Some(mut owned) = owned {
        owned.insert(element.clone());
        if blocking(registers, move |registers| registers.write_owned(&owned, &check)).await {
            confirmed.owned.insert(element);
        }
    }
}

async fn blocking<T: Send + 'static>(
    registers: &Arc<Registers>,
    work: impl FnOnce(&Registers) -> T + Send + 'static,
) -> T {
    let registers = Arc::clone(registers);
    tokio::task::spawn_blocking(move || work(&registers)).await.unwrap()
}

/// Kills one member after the other, the leader first, and stops the next one, with a rest in between.
async fn hurt_members(until: Instant, registers: &Registers) {
    let cluster = &registers.cluster;
    for round in 0.. {
        pause(Duration::from_secs(2)).await;
        if Instant::now() >= until {
            return;
        }
        let leads = |node: &locks_test_servers::Etcd| {
            cluster.leader().is_some_and(|leader| leader.port() == node.port())
        };
        let victim = cluster.nodes().iter().position(leads).unwrap_or(round % cluster.nodes().len());
        registers.hurt.store(victim, Ordering::SeqCst);
        let member = &cluster.nodes()[victim];
        if round % 2 == 0 {
            member.kill().unwrap();
            pause(Duration::from_secs(2)).await;
            cluster.start_again().unwrap();
        } else {
            member.pause().unwrap();
            pause(Duration::from_secs(2)).await;
            member.resume().unwrap();
        }
    }
}
