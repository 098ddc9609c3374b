//! The lives of private MariaDB servers: settings, deaths, returns, pauses.

use std::io::{ErrorKind as IoErrorKind, Read as _};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use locks_test_servers::{ErrorKind, MariaDb};

use crate::eventually::eventually;

const LIMIT: Duration = Duration::from_secs(20);

/// The only value of the answer.
fn ask(mariadb: &MariaDb, statements: &str) -> String {
    let rows = mariadb.ask(statements).unwrap();
    rows[0][0].clone().unwrap()
}

/// A table of one row.
fn make_table(mariadb: &MariaDb) {
    mariadb.ask("CREATE TABLE kept (x int); INSERT INTO kept VALUES (1);").unwrap();
}

fn rows(mariadb: &MariaDb) -> String {
    ask(mariadb, "SELECT count(*) FROM kept")
}

/// Whether the server says something in time to whoever comes.
fn greets(mariadb: &MariaDb, limit: Duration) -> bool {
    let mut stream = TcpStream::connect(mariadb.address()).unwrap();
    stream.set_read_timeout(Some(limit)).unwrap();
    loop {
        match stream.read(&mut [0; 1024]) {
            Ok(length) => return length > 0,
            // A time limit on a socket turns off that the kernel goes on after a signal by itself.
            Err(error) if error.kind() == IoErrorKind::Interrupted => {}
            Err(error) => {
                assert!(matches!(error.kind(), IoErrorKind::WouldBlock | IoErrorKind::TimedOut), "{error}");
                return false;
            }
        }
    }
}

#[test]
fn it_answers_and_is_gone_when_dropped() {
    let mariadb = MariaDb::start().unwrap();
    assert_eq!(mariadb.url(), format!("mysql://root@127.0.0.1:{}/test", mariadb.port()));
    assert_eq!(ask(&mariadb, "SELECT database()"), "test");
    assert_eq!(ask(&mariadb, "SELECT @@character_set_database"), "utf8mb4");
    assert_eq!(ask(&mariadb, "SELECT @@socket"), "");
    assert_eq!(ask(&mariadb, "SELECT @@port"), mariadb.port().to_string());
    let data = format!("{}/", mariadb.data_directory().unwrap().display());
    assert_eq!(ask(&mariadb, "SELECT @@datadir"), data);
    let expected = [vec![Some("1".to_owned()), None], vec![Some("zwei".to_owned()), Some(String::new())]];
    assert_eq!(mariadb.ask("SELECT 1, NULL; DO 1; SELECT 'zwei', ''").unwrap(), expected);
    let error = mariadb.ask("SELECT 1; SELECT * FROM nowhere").unwrap_err();
    assert!(error.to_string().contains("1146 Table 'test.nowhere' doesn't exist"), "{error}");
    let (address, directory) = (mariadb.address(), mariadb.directory().unwrap().to_owned());
    drop(mariadb);
    TcpStream::connect(address).unwrap_err();
    assert!(!directory.exists());
}

#[test]
fn settings_and_files_are_taken() {
    let mariadb = MariaDb::options()
        .config("max-connections", "12")
        .config("skip-name-resolve", "ON")
        .config("innodb-flush-log-at-trx-commit", "1")
        .config("init-connect", r"SET @path = '{directory} # \\'")
        .config("init-file", "{directory}/first.sql")
        .file("first.sql", "CREATE TABLE test.made (x int);\n")
        .start()
        .unwrap();
    assert_eq!(ask(&mariadb, "SELECT @@max_connections"), "12");
    assert_eq!(ask(&mariadb, "SELECT @@skip_name_resolve"), "1");
    assert_eq!(ask(&mariadb, "SELECT @@innodb_flush_log_at_trx_commit"), "1");
    let directory = mariadb.directory().unwrap().display();
    assert_eq!(ask(&mariadb, "SELECT @@init_connect"), format!(r"SET @path = '{directory} # \\'"));
    assert_eq!(ask(&mariadb, "SELECT count(*) FROM made"), "0");
}

#[test]
fn it_comes_back_on_its_port_with_its_data() {
    let mariadb = MariaDb::start().unwrap();
    make_table(&mariadb);
    let (pid, port) = (mariadb.pid().unwrap(), mariadb.port());
    mariadb.kill().unwrap();
    TcpStream::connect(mariadb.address()).unwrap_err();
    assert_eq!(mariadb.pid().unwrap_err().kind(), ErrorKind::Failed);
    mariadb.kill().unwrap();
    mariadb.start_again().unwrap();
    assert_eq!(mariadb.port(), port);
    assert_ne!(mariadb.pid().unwrap(), pid);
    assert_eq!(rows(&mariadb), "1");
    mariadb.start_again().unwrap_err();
    mariadb.wipe().unwrap_err();
    mariadb.kill().unwrap();
    mariadb.wipe().unwrap();
    mariadb.start_again().unwrap();
    let error = mariadb.ask("SELECT count(*) FROM kept").unwrap_err();
    assert!(error.to_string().contains("1146"), "{error}");
}

#[test]
fn what_is_committed_outlives_a_death_at_work() {
    let mariadb = MariaDb::start().unwrap();
    mariadb.ask("CREATE TABLE kept (x int)").unwrap();
    let (committed, of_committed) = mpsc::channel();
    let last = thread::scope(|scope| {
        scope.spawn(|| {
            let committed = committed;
            let mut number = 0;
            while mariadb.ask(&format!("INSERT INTO kept VALUES ({number})")).is_ok() {
                committed.send(number).unwrap();
                number += 1;
            }
        });
        while of_committed.recv().unwrap() < 20 {}
        mariadb.kill().unwrap();
        of_committed.iter().last().unwrap_or(20)
    });
    mariadb.start_again().unwrap();
    // The last one of all may have been committed without a word.
    let rows: i32 = rows(&mariadb).parse().unwrap();
    assert!((last + 1..=last + 2).contains(&rows), "{rows} rows, {last}");
}

#[test]
fn a_paused_server_is_silent_until_it_goes_on() {
    let mariadb = MariaDb::start().unwrap();
    make_table(&mariadb);
    mariadb.pause().unwrap();
    assert!(!greets(&mariadb, Duration::from_millis(100)));
    thread::scope(|scope| {
        let rows = scope.spawn(|| rows(&mariadb));
        assert!(!greets(&mariadb, Duration::from_millis(100)));
        assert!(!rows.is_finished());
        mariadb.resume().unwrap();
        assert_eq!(rows.join().unwrap(), "1");
    });
    assert!(greets(&mariadb, LIMIT));
    mariadb.pause().unwrap();
    mariadb.kill().unwrap();
    mariadb.start_again().unwrap();
    assert_eq!(rows(&mariadb), "1");
}

#[test]
fn a_session_that_works_dies_at_once() {
    let mariadb = MariaDb::start().unwrap();
    thread::scope(|scope| {
        let work = scope.spawn(|| mariadb.ask("SELECT BENCHMARK(1000000000000, SHA1('x'))"));
        let at_work = "SELECT count(*) FROM information_schema.processlist \
                       WHERE info LIKE '%BENCHMARK%' AND id <> connection_id()";
        eventually("the work", || ask(&mariadb, at_work) == "1");
        mariadb.kill().unwrap();
        work.join().unwrap().unwrap_err();
    });
}

#[test]
fn one_that_ends_by_itself_is_noticed_and_comes_back() {
    let mariadb = MariaDb::start().unwrap();
    make_table(&mariadb);
    mariadb.ask("SHUTDOWN").unwrap();
    eventually("the end", || mariadb.pid().is_err());
    let error = mariadb.pause().unwrap_err().to_string();
    assert!(error.contains("does not run; its log ends with:"), "{error}");
    mariadb.start_again().unwrap();
    assert_eq!(rows(&mariadb), "1");
}

#[test]
fn a_port_that_is_asked_for_is_had_or_refused() {
    let first = MariaDb::start().unwrap();
    let error = MariaDb::options().port(first.port()).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("Address already in use"), "{error}");
    let port = first.port();
    drop(first);
    assert_eq!(MariaDb::options().port(port).start().unwrap().port(), port);
}

#[test]
fn one_that_does_not_come_up_says_why() {
    let error = MariaDb::options().config("no-such-setting", "1").start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    let error = error.to_string();
    assert!(error.starts_with("the server ended instead of coming up; its log ends with:\n"), "{error}");
    assert!(error.contains("no-such-setting"), "{error}");
}

#[test]
fn many_start_at_the_same_time() {
    let threads: Vec<_> =
        (0..4).map(|_| thread::spawn(|| ask(&MariaDb::start().unwrap(), "SELECT 1"))).collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), "1");
    }
}
