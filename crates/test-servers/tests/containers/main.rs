//! What only servers in containers can do, and what is left of them.
//!
//! Where servers come from elsewhere, all of it is listed as ignored, with the reason; where containers are asked for and there are none, it fails.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests, which clippy does not recognise without a harness"
)]

#[path = "../servers/docker.rs"]
mod docker;
#[path = "../servers/eventually.rs"]
mod eventually;

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use locks_test_servers::{EtcdCluster, MariaDb, Mode, Postgres, Redis, Source, Technology};
use rustix::process::{Pid, Signal, kill_process};

use docker::{asked_of_docker, containers_of};
use eventually::eventually;

/// Says to a child process that it is to have servers until it is killed.
const PART: &str = "LOCKS_TEST_CONTAINERS_PART";

fn main() -> ExitCode {
    if env::var_os(PART).is_some() {
        have_servers();
    }
    let mut trials = vec![
        Trial::test("containers_come_and_go_with_their_servers", come_and_go),
        Trial::test("a_node_that_is_cut_off_is_replaced_and_comes_back", cut_off),
        Trial::test("what_killed_keepers_leave_behind_is_swept_by_the_next", sweep),
    ];
    match Source::of_own(Technology::Redis, Mode::from_env().unwrap()) {
        Ok(Source::Image { image, .. }) => eprintln!("servers are from the {image}"),
        Ok(elsewhere) => {
            eprintln!("all ignored, servers are not in containers: {elsewhere}");
            trials = trials.into_iter().map(|trial| trial.with_ignored_flag(true)).collect();
        }
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn come_and_go() -> Result<(), Failed> {
    let redis = Redis::start()?;
    let directory = redis.directory()?.to_owned();
    assert!(redis.is_in_container());
    assert_eq!(containers_of(&directory), 1);
    redis.pause()?;
    redis.kill()?;
    assert_eq!(containers_of(&directory), 0);
    redis.start_again()?;
    assert_eq!(containers_of(&directory), 1);
    // Processes are numbered as everywhere on this machine.
    let ours = fs::read_to_string(format!("/proc/{}/cmdline", redis.pid()?))?;
    assert!(ours.contains("redis-server"), "{ours}");
    drop(redis);
    assert_eq!(containers_of(&directory), 0);
    let postgres = Postgres::start()?;
    let standby = postgres.standby()?;
    assert!(postgres.is_in_container() && standby.is_in_container());
    let mariadb = MariaDb::start()?;
    assert!(mariadb.is_in_container());
    let directories = [postgres.directory()?, standby.directory()?, mariadb.directory()?].map(Path::to_owned);
    drop((postgres, standby, mariadb));
    assert!(directories.iter().all(|directory| containers_of(directory) == 0 && !directory.exists()));
    Ok(())
}

fn cut_off() -> Result<(), Failed> {
    let cluster = EtcdCluster::start()?;
    let url = cluster.url();
    assert_eq!(networks_of(std::process::id()), 1);
    eventually("a leader", || cluster.leader().is_some());
    let old = cluster.leader().unwrap();
    let others: Vec<_> = cluster.nodes().iter().filter(|node| node.port() != old.port()).collect();
    assert!(put(old.address()));
    let process = old.pid()?;
    old.disconnect()?;
    assert!(TcpStream::connect_timeout(&old.address(), Duration::from_millis(300)).is_err());
    assert_eq!(old.pid()?, process);
    eventually("another leader", || others.iter().any(|node| put(node.address())));
    old.reconnect()?;
    eventually("the old leader to follow", || put(old.address()));
    assert_eq!(old.pid()?, process);
    // Neither its death nor its return takes it elsewhere, also while it is cut off.
    old.disconnect()?;
    old.kill()?;
    old.start_again()?;
    assert!(put(old.address()));
    assert_eq!(cluster.url(), url);
    // Nobody is in the network, and whoever starts a server now removes what is left behind.
    for node in cluster.nodes() {
        node.kill()?;
    }
    drop(Redis::start()?);
    assert_eq!(networks_of(std::process::id()), 1);
    cluster.start_again()?;
    eventually("a write after the death of all", || put(old.address()));
    drop(cluster);
    assert_eq!(networks_of(std::process::id()), 0);
    Ok(())
}

fn sweep() -> Result<(), Failed> {
    let mut child = Command::new(env::current_exe()?).env(PART, "x").stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line)?;
    assert_eq!(line, "ready\n");
    let of_child = env::temp_dir().join(format!("locks-test-redis-{}-", child.id()));
    let nodes_of_child = env::temp_dir().join(format!("locks-test-etcd-{}-", child.id()));
    let there = || (containers_of(&of_child), containers_of(&nodes_of_child), networks_of(child.id()));
    assert_eq!(there(), (1, 3, 1));
    let keepers: Vec<u32> =
        [&of_child, &nodes_of_child].iter().flat_map(|prefix| keepers_of(prefix)).collect();
    assert_eq!(keepers.len(), 4);
    for process in keepers.into_iter().chain([child.id()]) {
        let process = Pid::from_raw(i32::try_from(process)?).unwrap();
        kill_process(process, Signal::KILL)?;
    }
    let directories: Vec<PathBuf> =
        [&of_child, &nodes_of_child].iter().flat_map(|prefix| directories_of(prefix)).collect();
    assert_eq!(directories.len(), 4);
    let next = Redis::start()?;
    let id = child.id();
    child.wait()?;
    assert_eq!((containers_of(&of_child), containers_of(&nodes_of_child), networks_of(id)), (0, 0, 0));
    assert_eq!(containers_of(next.directory()?), 1);
    for directory in directories {
        fs::remove_dir_all(directory)?;
    }
    Ok(())
}

/// What the child process does.
fn have_servers() -> ! {
    let _servers = (Redis::start().unwrap(), EtcdCluster::start().unwrap());
    println!("ready");
    std::io::stdout().flush().unwrap();
    loop {
        thread::park();
    }
}

/// Sets x to 1.
fn put(address: SocketAddr) -> bool {
    let ask = || {
        let limit = Duration::from_secs(5);
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        let question = r#"{"key":"eA==","value":"MQ=="}"#;
        let length = question.len();
        write!(stream, "POST /v3/kv/put HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{question}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer.contains(" 200 "))
    };
    ask().unwrap_or(false)
}

/// How many networks this process's clusters have.
fn networks_of(process: u32) -> usize {
    asked_of_docker("/networks").matches(&format!("\"Name\":\"locks-test-{process}-")).count()
}

/// The keepers of directories that begin so.
fn keepers_of(prefix: &Path) -> Vec<u32> {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter(|process: &u32| {
            let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.split('\0').next().is_some_and(|program| program.ends_with("/locks-test-containers"))
                && line.contains(&*prefix.to_string_lossy())
        })
        .collect()
}

fn directories_of(prefix: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(env::temp_dir()).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_string_lossy().starts_with(&*prefix.to_string_lossy())).collect()
}
