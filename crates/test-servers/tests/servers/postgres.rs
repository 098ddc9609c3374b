//! The lives of private PostgreSQL servers: settings, deaths, returns, pauses, standbys, backups, and poolers before them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use locks_test_servers::{ErrorKind, PgBouncer, PoolMode, Postgres};

use crate::eventually::eventually;
use crate::remains::{children_of, shared_memory_of};

/// The only value of the answer.
fn ask(postgres: &Postgres, statements: &str) -> String {
    let rows = postgres.ask(statements).unwrap();
    rows[0][0].clone().unwrap()
}

fn make_tables(postgres: &Postgres) {
    let made = "CREATE TABLE kept (x int); CREATE UNLOGGED TABLE forgotten (x int);";
    postgres.ask(made).unwrap();
    insert(postgres);
}

fn insert(postgres: &Postgres) {
    postgres.ask("INSERT INTO kept VALUES (1); INSERT INTO forgotten VALUES (1);").unwrap();
}

/// How many rows the tables have.
fn rows(postgres: &Postgres) -> [String; 2] {
    ["kept", "forgotten"].map(|table| ask(postgres, &format!("SELECT count(*) FROM {table}")))
}

#[test]
fn it_answers_and_is_gone_when_dropped() {
    let postgres = Postgres::start().unwrap();
    assert_eq!(postgres.url(), format!("postgres://postgres@127.0.0.1:{}/postgres", postgres.port()));
    assert_eq!(ask(&postgres, "SHOW server_encoding"), "UTF8");
    assert_eq!(ask(&postgres, "SHOW fsync"), "off");
    assert_eq!(ask(&postgres, "SHOW unix_socket_directories"), "");
    assert_eq!(ask(&postgres, "SHOW data_directory"), postgres.data_directory().unwrap().to_str().unwrap());
    let (address, directory) = (postgres.address(), postgres.directory().unwrap().to_owned());
    let pid = postgres.pid().unwrap();
    // A container has shared memory of its own.
    assert_eq!(shared_memory_of(pid), usize::from(!postgres.is_in_container()));
    drop(postgres);
    TcpStream::connect(address).unwrap_err();
    assert!(!directory.exists());
    assert_eq!(shared_memory_of(pid), 0);
}

#[test]
fn settings_and_files_are_taken_and_can_change() {
    let mut postgres = Postgres::options()
        .config("fsync", "on")
        .config("max_connections", "7")
        .config("application_name", "it's {directory}")
        .config("hba_file", "{directory}/hba")
        .file("hba", "host all postgres 127.0.0.1/32 trust")
        .start()
        .unwrap();
    assert_eq!(ask(&postgres, "SHOW fsync"), "on");
    assert_eq!(ask(&postgres, "SHOW max_connections"), "7");
    let directory = postgres.directory().unwrap().display().to_string();
    assert_eq!(ask(&postgres, "SHOW application_name"), format!("it's {directory}"));
    assert_eq!(ask(&postgres, "SHOW hba_file"), format!("{directory}/hba"));
    postgres.configure("default_transaction_read_only", "on").unwrap();
    eventually("the change", || ask(&postgres, "SHOW default_transaction_read_only") == "on");
    let error = postgres.ask("CREATE TABLE x ()").unwrap_err();
    assert!(error.to_string().contains("25006 cannot execute CREATE TABLE"), "{error}");
    postgres.kill().unwrap();
    postgres.start_again().unwrap();
    assert_eq!(ask(&postgres, "SHOW default_transaction_read_only"), "on");
}

#[test]
fn it_comes_back_on_its_port_and_forgets_what_is_unlogged() {
    let postgres = Postgres::start().unwrap();
    make_tables(&postgres);
    let (pid, port) = (postgres.pid().unwrap(), postgres.port());
    let mut children = Vec::new();
    eventually("the children", || {
        children = children_of(pid);
        children.len() >= 4
    });
    postgres.kill().unwrap();
    TcpStream::connect(postgres.address()).unwrap_err();
    assert!(children.iter().all(|child| !is_there(*child)));
    assert_eq!(shared_memory_of(pid), 0);
    assert_eq!(postgres.pid().unwrap_err().kind(), ErrorKind::Failed);
    postgres.kill().unwrap();
    postgres.start_again().unwrap();
    assert_eq!(postgres.port(), port);
    assert_ne!(postgres.pid().unwrap(), pid);
    assert_eq!(rows(&postgres), ["1", "0"]);
    postgres.start_again().unwrap_err();
    postgres.wipe().unwrap_err();
    postgres.kill().unwrap();
    postgres.wipe().unwrap();
    postgres.start_again().unwrap();
    let error = postgres.ask("SELECT count(*) FROM kept").unwrap_err();
    assert!(error.to_string().contains("42P01"), "{error}");
}

/// Whether the process has not ended; its number may still be taken.
fn is_there(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn the_death_of_one_session_ends_all_and_forgets_what_is_unlogged() {
    let postgres = Postgres::start().unwrap();
    make_tables(&postgres);
    let pid = postgres.pid().unwrap();
    let mut session = Session::of(&postgres);
    let backend = ask(&postgres, "SELECT pid FROM pg_stat_activity WHERE application_name = 'session'");
    postgres.kill_one_backend(backend.parse().unwrap()).unwrap();
    session.ends();
    assert_eq!(postgres.pid().unwrap(), pid);
    assert_eq!(rows(&postgres), ["1", "0"]);
    let not_its_own = postgres.kill_one_backend(std::process::id()).unwrap_err();
    assert!(not_its_own.to_string().contains("none of the server's"), "{not_its_own}");
}

#[test]
fn a_paused_server_is_silent_until_it_goes_on() {
    let postgres = Postgres::start().unwrap();
    let mut old = Session::of(&postgres);
    old.ask("SELECT 'before'");
    assert!(old.says("before", Duration::from_secs(20)));
    postgres.pause().unwrap();
    old.ask("SELECT 'after'");
    assert!(!old.says("after", Duration::from_millis(100)));
    let mut new = Session::connect(&postgres);
    assert!(!new.says("R", Duration::from_millis(100)));
    postgres.resume().unwrap();
    assert!(old.says("after", Duration::from_secs(20)));
    postgres.pause().unwrap();
    let children = children_of(postgres.pid().unwrap());
    postgres.kill().unwrap();
    assert!(children.iter().all(|child| !is_there(*child)));
    postgres.start_again().unwrap();
    assert_eq!(ask(&postgres, "SELECT 1"), "1");
}

#[test]
fn a_session_that_works_dies_at_once() {
    let postgres = Postgres::start().unwrap();
    let mut session = Session::of(&postgres);
    session.ask("SELECT count(*) FROM generate_series(1, 1000000000000)");
    eventually("the work", || {
        ask(
            &postgres,
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate%' AND state = 'active'",
        ) == "2"
    });
    postgres.kill().unwrap();
    session.ends();
}

#[test]
fn a_port_that_is_asked_for_is_had_or_refused() {
    let first = Postgres::start().unwrap();
    let error = Postgres::options().port(first.port()).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("Address already in use"), "{error}");
    let port = first.port();
    drop(first);
    assert_eq!(Postgres::options().port(port).start().unwrap().port(), port);
}

#[test]
fn one_that_does_not_come_up_says_why() {
    let error = Postgres::options().config("no_such_setting", "1").start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    let error = error.to_string();
    assert!(error.starts_with("the server ended instead of coming up; its log ends with:\n"), "{error}");
    assert!(error.contains("no_such_setting"), "{error}");
}

#[test]
fn a_standby_that_missed_the_last_takes_the_place_of_its_primary() {
    let primary = Postgres::start().unwrap();
    make_tables(&primary);
    let mut standby = primary.standby().unwrap();
    insert(&primary);
    standby.catch_up_with(&primary).unwrap();
    assert_eq!(ask(&standby, "SELECT count(*) FROM kept"), "2");
    assert_eq!(ask(&standby, "SELECT pg_is_in_recovery()"), "t");
    standby.stop_following().unwrap();
    insert(&primary);
    let port = primary.port();
    primary.kill().unwrap();
    standby.promote().unwrap();
    assert_eq!(rows(&standby), ["2", "0"]);
    standby.kill().unwrap();
    standby.start_again_on(port).unwrap();
    assert_eq!(standby.url(), primary.url());
    assert_eq!(ask(&standby, "SELECT pg_is_in_recovery()"), "f");
    assert_eq!(rows(&standby), ["2", "0"]);
    insert(&standby);
    assert!(standby.promote().is_err());
}

#[test]
fn an_old_state_is_restored() {
    let postgres = Postgres::start().unwrap();
    make_tables(&postgres);
    let backups = [postgres.base_backup().unwrap(), postgres.base_backup().unwrap()];
    insert(&postgres);
    for backup in backups {
        assert_eq!(rows(&postgres)[0], "2");
        postgres.kill().unwrap();
        postgres.restore(backup).unwrap();
        postgres.start_again().unwrap();
        assert_eq!(rows(&postgres), ["1", "0"]);
        insert(&postgres);
    }
    let backup = postgres.base_backup().unwrap();
    postgres.restore(backup).unwrap_err();
}

#[test]
fn a_pooler_passes_sessions_on() {
    let postgres = Postgres::start().unwrap();
    for mode in [PoolMode::Session, PoolMode::Transaction, PoolMode::Statement] {
        let pooler = PgBouncer::options().config("default_pool_size", "1").start(&postgres, mode).unwrap();
        assert_eq!(pooler.url(), format!("postgres://postgres@127.0.0.1:{}/postgres", pooler.port()));
        let mut first = Session::through(&pooler);
        let mut second = Session::through(&pooler);
        first.ask("SELECT 'one'");
        assert!(first.says("one", Duration::from_secs(20)));
        second.ask("SELECT 'two'");
        // There is one session for both, and in this mode the first one has it.
        let is_had = mode != PoolMode::Session;
        assert_eq!(second.says("two", Duration::from_millis(if is_had { 20_000 } else { 100 })), is_had);
        pooler.kill().unwrap();
        first.ends();
        pooler.start_again().unwrap();
        let directory = pooler.directory().unwrap().to_owned();
        drop(pooler);
        assert!(!directory.exists());
    }
}

/// A connection that stays.
struct Session {
    stream: TcpStream,
    /// What has come and has not been looked for.
    come: String,
}

impl Session {
    fn of(postgres: &Postgres) -> Self {
        let mut session = Self::connect(postgres);
        // "Ready for query", outside of a transaction.
        assert!(session.says("ZI", Duration::from_secs(20)));
        session
    }

    /// Does not wait for an answer.
    fn connect(postgres: &Postgres) -> Self {
        Self::to(TcpStream::connect(postgres.address()).unwrap())
    }

    fn through(pooler: &PgBouncer) -> Self {
        Self::to(TcpStream::connect(pooler.address()).unwrap())
    }

    fn to(mut stream: TcpStream) -> Self {
        let parameters = "user\0postgres\0database\0postgres\0application_name\0session\0\0";
        let length = u32::try_from(parameters.len() + 8).unwrap();
        let startup = [&length.to_be_bytes()[..], b"\0\x03\0\0", parameters.as_bytes()].concat();
        stream.write_all(&startup).unwrap();
        Self { stream, come: String::new() }
    }

    fn ask(&mut self, statement: &str) {
        let length = u32::try_from(statement.len() + 5).unwrap();
        let question = [b"Q", &length.to_be_bytes()[..], statement.as_bytes(), b"\0"].concat();
        self.stream.write_all(&question).unwrap();
    }

    /// Whether this comes in time. Lengths are left out of what comes.
    fn says(&mut self, words: &str, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        loop {
            if let Some((_, rest)) = self.come.split_once(words) {
                self.come = rest.to_owned();
                return true;
            }
            let mut some = [0; 1024];
            match self.stream.read(&mut some) {
                Ok(0) => panic!("it hung up after {:?}", self.come),
                Ok(length) => {
                    let some = some[..length].iter().filter(|byte| byte.is_ascii_graphic());
                    self.come.extend(some.map(|byte| char::from(*byte)));
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    assert!(matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ));
                    return false;
                }
            }
        }
    }

    /// The other end has hung up, or does.
    fn ends(&mut self) {
        self.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut rest = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
}

#[test]
fn many_start_at_the_same_time() {
    let threads: Vec<_> =
        (0..4).map(|_| thread::spawn(|| ask(&Postgres::start().unwrap(), "SELECT 1"))).collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), "1");
    }
}
