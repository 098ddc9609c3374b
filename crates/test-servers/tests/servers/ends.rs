//! However a test process ends, its servers, their children and their directories are gone.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use locks_test_servers::{EtcdCluster, MariaDb, PgBouncer, PoolMode, Postgres, Redis, Server};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::client::Client;
use crate::docker::containers_of;
use crate::eventually::eventually;
use crate::remains::{directories_of, keepers_of, processes_of, shared_memory_of};

/// Says to the child process what to do.
const PART: &str = "LOCKS_TEST_SERVERS_PART";

/// What `child_process` does.
pub(crate) fn play() {
    match env::var(PART).unwrap().as_str() {
        "hold" => {
            let redis = Redis::start().unwrap();
            ready_and_wait(&redis);
        }
        "pause" => {
            let redis = Redis::start().unwrap();
            redis.pause().unwrap();
            ready_and_wait(&redis);
        }
        "save" => {
            let redis = Redis::options().config("rdb-key-save-delay", "1000000").start().unwrap();
            let mut client = Client::of(&redis);
            for key in 0..100 {
                assert_eq!(client.ask(&format!("SET {key} 1")), "+OK");
            }
            assert!(client.ask("BGSAVE").starts_with('+'));
            eventually("the saving child", || processes_of(redis.directory().unwrap()).len() == 2);
            ready_and_wait(&redis);
        }
        "append" => {
            let redis = Redis::options().config("appendonly", "yes").start().unwrap();
            ready();
            let mut client = Client::of(&redis);
            loop {
                assert_eq!(client.ask("SET x 0123456789"), "+OK");
                // Refused while the last one is going on.
                assert!(client.ask("BGREWRITEAOF").contains("append only file"));
            }
        }
        "down" => {
            let redis = Redis::start().unwrap();
            redis.kill().unwrap();
            ready_and_wait(&redis);
        }
        "several" => {
            let redis = [Redis::start().unwrap(), Redis::start().unwrap()];
            redis[0].kill().unwrap();
            redis[0].start_again().unwrap();
            ready_and_wait(&redis[1]);
        }
        "panic" => {
            let _redis = Redis::start().unwrap();
            ready();
            panic!("as it should");
        }
        "abort" => {
            let _redis = Redis::start().unwrap();
            ready();
            std::process::abort();
        }
        "exit" => {
            let _redis = Redis::start().unwrap();
            ready();
            std::process::exit(0);
        }
        "busy" => {
            ready();
            loop {
                let redis = Redis::start().unwrap();
                redis.kill().unwrap();
                redis.start_again().unwrap();
            }
        }
        "postgres" => {
            let postgres = Postgres::start().unwrap();
            postgres.kill().unwrap();
            postgres.start_again().unwrap();
            assert_eq!(postgres.ask("SELECT 1").unwrap()[0][0].as_deref(), Some("1"));
            ready_and_wait(&postgres);
        }
        "postgres paused" => {
            let postgres = Postgres::start().unwrap();
            postgres.pause().unwrap();
            ready_and_wait(&postgres);
        }
        "postgres down" => {
            let postgres = Postgres::start().unwrap();
            postgres.kill().unwrap();
            ready_and_wait(&postgres);
        }
        "postgres at work" => {
            let postgres = Postgres::start().unwrap();
            thread::scope(|scope| {
                // It would not notice for hours that its server is gone.
                scope.spawn(|| postgres.ask("SELECT count(*) FROM generate_series(1, 1000000000000)"));
                let at_work =
                    "SELECT FROM pg_stat_activity WHERE query LIKE '%series%' AND pid <> pg_backend_pid()";
                eventually("the work", || postgres.ask(at_work).unwrap().len() == 1);
                ready_and_wait(&postgres);
            });
        }
        "postgres in company" => {
            let primary = Postgres::start().unwrap();
            let standby = primary.standby().unwrap();
            let pooler = PgBouncer::start(&standby, PoolMode::Transaction).unwrap();
            ready_and_wait(&pooler);
        }
        "postgres starts" => {
            ready();
            ready_and_wait(&Postgres::start().unwrap());
        }
        "etcd" => {
            let cluster = EtcdCluster::start().unwrap();
            cluster.nodes()[0].pause().unwrap();
            cluster.nodes()[1].kill().unwrap();
            ready_and_wait(&cluster.nodes()[2]);
        }
        "mariadb" => {
            let mariadb = MariaDb::start().unwrap();
            mariadb.kill().unwrap();
            mariadb.start_again().unwrap();
            assert_eq!(mariadb.ask("SELECT 1").unwrap()[0][0].as_deref(), Some("1"));
            ready_and_wait(&mariadb);
        }
        "mariadb paused" => {
            let mariadb = MariaDb::start().unwrap();
            mariadb.pause().unwrap();
            ready_and_wait(&mariadb);
        }
        "mariadb at work" => {
            let mariadb = MariaDb::start().unwrap();
            thread::scope(|scope| {
                scope.spawn(|| mariadb.ask("SELECT BENCHMARK(1000000000000, SHA1('x'))"));
                let at_work = "SELECT 1 FROM information_schema.processlist WHERE info LIKE '%BENCH%' AND id <> connection_id()";
                eventually("the work", || mariadb.ask(at_work).unwrap().len() == 1);
                ready_and_wait(&mariadb);
            });
        }
        "mariadb starts" => {
            ready();
            ready_and_wait(&MariaDb::start().unwrap());
        }
        "count" => count(),
        other => panic!("no part {other}"),
    }
}

fn ready() {
    println!("\nready");
    std::io::stdout().flush().unwrap();
}

fn ready_and_wait(_alive: &Server) {
    ready();
    loop {
        thread::park();
    }
}

/// A server costs one descriptor while it is there, up or down, and no thread.
fn count() {
    let count = || {
        let entries = |path| fs::read_dir(path).unwrap().count();
        (entries("/proc/self/fd"), entries("/proc/self/task"))
    };
    let before = count();
    let redis = Redis::start().unwrap();
    let with_one = (before.0 + 1, before.1);
    assert_eq!(count(), with_one);
    redis.pause().unwrap();
    redis.kill().unwrap();
    assert_eq!(count(), with_one);
    redis.start_again().unwrap();
    assert_eq!(count(), with_one);
    drop(redis);
    assert_eq!(count(), before);
    ready();
}

/// A process of this binary in a group of its own, as a terminal's foreground has it.
struct Part {
    child: Child,
    output: BufReader<ChildStdout>,
    temporary: PathBuf,
}

impl Part {
    fn start(part: &str) -> Self {
        Self::start_in(&env::temp_dir(), part)
    }

    /// With another directory for what is temporary.
    fn start_in(temporary: &Path, part: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_process", "--ignored", "--nocapture", "--test-threads=1"])
            .env(PART, part)
            .env("TMPDIR", temporary)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output, temporary: temporary.to_owned() }
    }

    fn is_ready(&mut self) {
        let mut line = String::new();
        while line != "ready\n" {
            line.clear();
            if self.output.read_line(&mut line).unwrap() == 0 {
                let mut why = String::new();
                let errors = BufReader::new(self.child.stderr.take().unwrap());
                errors.lines().for_each(|line| why += &line.unwrap());
                panic!("it ended before it was ready: {why}");
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process_group(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What the directories of its servers of this kind begin with.
    fn prefix(&self, technology: &str) -> PathBuf {
        self.temporary.join(format!("locks-test-{technology}-{}-", self.child.id()))
    }

    fn prefixes(&self) -> Vec<PathBuf> {
        let technologies = ["redis", "postgres", "pgbouncer", "etcd", "mariadb"];
        technologies.map(|technology| self.prefix(technology)).to_vec()
    }

    /// Waits for its end and then until nothing is left of it.
    fn leaves_nothing(mut self) {
        self.child.wait().unwrap();
        self.prefixes().iter().for_each(|prefix| all_gone(prefix));
    }
}

#[track_caller]
fn all_gone(prefix: &Path) {
    eventually("nothing left", || {
        directories_of(prefix).is_empty()
            && processes_of(prefix).is_empty()
            && keepers_of(prefix).is_empty()
            && containers_of(prefix) == 0
    });
}

/// The part is played up to where it is ready, with this many processes of servers; then the signal comes.
#[track_caller]
fn killed(part: &str, servers: usize, signal: Signal) {
    let mut part = Part::start(part);
    part.is_ready();
    let prefixes = part.prefixes();
    // So that `all_gone` is known to find what there is.
    let processes: Vec<u32> = prefixes.iter().flat_map(|prefix| processes_of(prefix)).collect();
    assert!(processes.len() >= servers, "{processes:?}");
    assert!(
        prefixes.iter().any(|prefix| !directories_of(prefix).is_empty() && !keepers_of(prefix).is_empty())
    );
    part.signal(signal);
    part.leaves_nothing();
    assert!(processes.iter().all(|process| shared_memory_of(*process) == 0));
}

#[test]
fn killed_while_it_has_a_server() {
    killed("hold", 1, Signal::KILL);
}

#[test]
fn killed_while_its_server_is_stopped() {
    killed("pause", 1, Signal::KILL);
}

#[test]
fn killed_while_its_server_saves() {
    killed("save", 2, Signal::KILL);
}

#[test]
fn killed_while_its_server_writes() {
    killed("append", 1, Signal::KILL);
}

#[test]
fn killed_while_its_server_is_down() {
    killed("down", 0, Signal::KILL);
}

#[test]
fn killed_while_it_has_several() {
    killed("several", 2, Signal::KILL);
}

#[test]
fn killed_while_it_has_postgres() {
    killed("postgres", 5, Signal::KILL);
}

#[test]
fn killed_while_its_postgres_is_stopped() {
    killed("postgres paused", 5, Signal::KILL);
}

#[test]
fn killed_while_its_postgres_is_down() {
    killed("postgres down", 0, Signal::KILL);
}

#[test]
fn killed_while_its_postgres_works() {
    killed("postgres at work", 6, Signal::KILL);
}

#[test]
fn killed_while_it_has_a_primary_a_standby_and_a_pooler() {
    killed("postgres in company", 9, Signal::KILL);
}

#[test]
fn killed_while_it_has_a_cluster() {
    killed("etcd", 0, Signal::KILL);
}

#[test]
fn killed_while_it_has_mariadb() {
    killed("mariadb", 1, Signal::KILL);
}

#[test]
fn killed_while_its_mariadb_is_stopped() {
    killed("mariadb paused", 1, Signal::KILL);
}

#[test]
fn killed_while_its_mariadb_works() {
    killed("mariadb at work", 1, Signal::KILL);
}

/// A directory for temporary files that everybody may use.
fn public() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    directory
}

/// The only thing in there, if there is anything.
fn template_in(directory: &Path) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(entries.len() <= 1, "{entries:?}");
    entries.pop().inspect(|entry| assert!(entry.extension().is_some_and(|extension| extension == "tar")))
}

#[test]
fn many_processes_that_make_the_same_template_get_in_nobodys_way() {
    ["postgres", "mariadb"].into_iter().for_each(many_make_the_same_template);
}

fn many_make_the_same_template(technology: &str) {
    let temporary = public();
    let mut parts: Vec<Part> = (0..8).map(|_| Part::start_in(temporary.path(), technology)).collect();
    parts.iter_mut().for_each(Part::is_ready);
    for part in parts {
        part.signal(Signal::KILL);
        part.leaves_nothing();
    }
    let template = template_in(temporary.path()).unwrap();
    assert!(fs::metadata(template).unwrap().len() > 1_000_000);
}

#[test]
fn killed_while_a_template_is_made() {
    ["postgres", "mariadb"].into_iter().for_each(killed_while_making_a_template);
}

fn killed_while_making_a_template(technology: &str) {
    let temporary = public();
    for round in 0..8 {
        let mut part = Part::start_in(temporary.path(), &format!("{technology} starts"));
        part.is_ready();
        let end = Instant::now() + Duration::from_millis(round * 100);
        while Instant::now() < end {
            thread::yield_now();
        }
        part.signal(Signal::KILL);
        part.leaves_nothing();
        if let Some(template) = template_in(temporary.path()) {
            fs::remove_file(template).unwrap();
        }
    }
    // What is left is no obstacle.
    let mut part = Part::start_in(temporary.path(), technology);
    part.is_ready();
    part.signal(Signal::KILL);
    part.leaves_nothing();
}

#[test]
fn interrupted() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        // Whoever started us may have had this signal ignored, as `nohup` and `&` do; then it ends nobody.
        if !is_ignored(signal) {
            killed("hold", 1, signal);
        }
    }
}

fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn panicked_aborted_and_exited() {
    for part in ["panic", "abort", "exit"] {
        let mut part = Part::start(part);
        part.is_ready();
        part.leaves_nothing();
    }
}

#[test]
fn killed_at_any_moment() {
    let mut prefixes = BTreeSet::new();
    for round in 0..40 {
        let mut part = Part::start("busy");
        part.is_ready();
        let end = Instant::now() + Duration::from_micros(round * 1_500);
        while Instant::now() < end {
            thread::yield_now();
        }
        part.signal(Signal::KILL);
        part.child.wait().unwrap();
        prefixes.insert(part.prefix("redis"));
    }
    prefixes.iter().for_each(|prefix| all_gone(prefix));
    // A keeper that had not yet become one when it was looked for is found now.
    prefixes.iter().for_each(|prefix| all_gone(prefix));
}

#[test]
fn a_server_costs_one_descriptor_and_no_thread() {
    let mut part = Part::start("count");
    part.is_ready();
    part.leaves_nothing();
}
