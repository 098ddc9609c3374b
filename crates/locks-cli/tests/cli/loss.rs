//! What becomes of a command when its lock, its wrapper or its guardian is lost: on a store with a ttl its whole process group is gone before
//! somebody else has the lock.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::stores::{ABORT, BLOCK, Kind, Store, on_each_store};
use crate::support::{Process, UNTIL_EOF, alive_in, children_of, eventually, output, pause, text};

on_each_store! {
    whoever_is_killed_in_whatever_order_nothing_of_the_command_outlives_the_lock,
    a_stopped_wrapper_loses_its_command_before_the_lock,
    a_stopped_wrapper_whose_guardian_is_killed_loses_its_command_at_once,
    a_wrapper_that_is_stopped_for_a_moment_and_its_command_go_on,
    a_guardian_that_is_killed_during_the_wait_is_followed_by_another,
    a_killed_wrapper_takes_its_command_along_whatever_is_to_be_done_on_loss,
    a_stopped_guardian_or_command_changes_nothing,
    a_paused_server_ends_the_command_before_the_deadline,
    a_server_that_is_gone_ends_the_command,
    a_cut_network_ends_the_command_before_somebody_else_has_the_lock,
    a_command_that_minds_term_may_clean_up,
    whoever_wants_to_goes_on_without_the_lock,
    what_the_command_leaves_in_its_group_is_ended_before_the_lock_is_given_back,
}

/// A command with a child of its own, neither of which minds TERM.
const STUBBORN: &str = "trap '' TERM; echo up; echo $$; sleep 600 & wait; sleep 600";

/// Long enough for a machine that is busy with other tests.
const TTL: &str = "5";

/// A wrapper, its guardian and its command.
struct Holder {
    wrapper: Process,
    guardian: Pid,
    command: Pid,
}

impl Holder {
    fn start(command: &mut Command) -> Self {
        let wrapper = Process::start_up(command);
        let command = Pid::from_raw(wrapper.line().parse().unwrap());
        eventually("the command has a child", || alive_in(command).len() > 1);
        let guardians: Vec<Pid> =
            children_of(wrapper.pid).into_iter().filter(|child| *child != command).collect();
        let [guardian] = guardians[..] else { panic!("one guardian: {guardians:?}") };
        Self { wrapper, guardian, command }
    }

    fn of(store: &Store, name: &str, options: &[&str]) -> Self {
        let mut wrapper = store.tool(BLOCK);
        wrapper.args(["--name", name, "--ttl", TTL]).args(options).args(["--", "sh", "-c", STUBBORN]);
        Self::start(&mut wrapper)
    }
}

/// The next one to have the lock, who looks at that moment who of the group still lives.
pub(crate) fn follow(store: &Store, name: &str, group: Pid) -> Process {
    let look = format!(
        "sed 's/.*) //' /proc/[0-9]*/stat 2>/dev/null | awk '$3 == {group} && $1 !~ /[ZX]/ {{ print \"overlap\" }}'; echo alone"
    );
    let mut next = store.tool(BLOCK);
    next.args(["-v", "--name", name, "--", "sh", "-c", &look]);
    let next = Process::start(&mut next);
    assert!(next.stderr_line().contains("waiting"));
    next
}

#[track_caller]
pub(crate) fn assert_alone(next: Process) {
    assert_eq!(next.line(), "alone");
    assert_eq!(next.wait().code(), Some(0));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Wrapper,
    Guardian,
    Command,
}

fn whoever_is_killed_in_whatever_order_nothing_of_the_command_outlives_the_lock(kind: Kind) {
    let store = Store::ready(kind);
    let all = [Victim::Wrapper, Victim::Guardian, Victim::Command];
    let mut orders = Vec::new();
    for first in all {
        orders.push(vec![first]);
        for second in all.into_iter().filter(|victim| *victim != first) {
            orders.push(vec![first, second]);
            orders.extend(
                all.into_iter()
                    .filter(|victim| *victim != first && *victim != second)
                    .map(|third| vec![first, second, third]),
            );
        }
    }
    assert_eq!(orders.len(), 15);
    for orders in orders.chunks(5) {
        thread::scope(|scope| {
            for order in orders {
                let store = &store;
                scope.spawn(move || {
                    let name = format!("{order:?}");
                    let holder = Holder::of(store, &name, &[]);
                    let next = follow(store, &name, holder.command);
                    for victim in order {
                        let pid = match victim {
                            Victim::Wrapper => holder.wrapper.pid,
                            Victim::Guardian => holder.guardian,
                            Victim::Command => holder.command,
                        };
                        // It may be gone because of the one before.
                        kill(pid, Signal::SIGKILL).ok();
                    }
                    assert_alone(next);
                    let code = holder.wrapper.wait().code();
                    let expected = if order.contains(&Victim::Wrapper) { code } else { Some(137) };
                    assert_eq!(code, expected, "{order:?}");
                    eventually("the guardian is gone", || kill(holder.guardian, None).is_err());
                });
            }
        });
    }
}

pub(crate) fn a_stopped_wrapper_loses_its_command_before_the_lock(kind: Kind) {
    let store = Store::ready(kind);
    let holder = Holder::of(&store, "n", &[]);
    let next = follow(&store, "n", holder.command);
    holder.wrapper.signal(Signal::SIGSTOP);
    assert_alone(next);
    holder.wrapper.signal(Signal::SIGCONT);
    let said = holder.wrapper.stderr_line();
    assert!(said.contains("\"n\" was lost while the command ran"), "{said}");
    assert_eq!(holder.wrapper.wait().code(), Some(79));
}

fn a_stopped_wrapper_whose_guardian_is_killed_loses_its_command_at_once(kind: Kind) {
    let store = Store::ready(kind);
    let holder = Holder::of(&store, "n", &[]);
    holder.wrapper.signal(Signal::SIGSTOP);
    kill(holder.guardian, Signal::SIGKILL).unwrap();
    eventually("the group is gone", || alive_in(holder.command).is_empty());
    let early = output(&mut store.under(ABORT, &[], &["true"]));
    assert_eq!(early.status.code(), Some(75), "{early:?}");
    holder.wrapper.signal(Signal::SIGCONT);
    assert!(holder.wrapper.stderr_line().contains("guardian"));
    assert_eq!(holder.wrapper.wait().code(), Some(137));
}

pub(crate) fn a_wrapper_that_is_stopped_for_a_moment_and_its_command_go_on(kind: Kind) {
    let store = Store::ready(kind);
    let holder =
        Process::start_up(&mut store.under(BLOCK, &["--ttl", "15"], &["sh", "-c", "echo up; read line"]));
    holder.signal(Signal::SIGSTOP);
    pause(Duration::from_millis(500));
    holder.signal(Signal::SIGCONT);
    let busy = output(&mut store.under(ABORT, &[], &["true"]));
    assert_eq!(busy.status.code(), Some(75), "{busy:?}");
    assert_eq!(holder.end().code(), Some(1)); // of `read` at the end of its input
}

/// The guardian is there before the lock is had. Whoever kills it then kills nothing else.
pub(crate) fn a_guardian_that_is_killed_during_the_wait_is_followed_by_another(kind: Kind) {
    let store = Store::ready(kind);
    let holder = Process::start_up(&mut store.under(BLOCK, &[], &UNTIL_EOF));
    let waiter =
        Process::start(&mut store.under(BLOCK, &["-v"], &["sh", "-c", "echo up; read line; exit 3"]));
    assert!(waiter.stderr_line().contains("waiting"));
    let [guardian] = children_of(waiter.pid)[..] else { panic!("one guardian") };
    kill(guardian, Signal::SIGKILL).unwrap();
    // On a busy machine that takes a moment, in which it could still take the command under its eyes.
    eventually("the guardian is dead", || alive_in(guardian).is_empty());
    holder.end();
    assert_eq!(waiter.line(), "up");
    let children = children_of(waiter.pid);
    assert!(children.len() == 2 && !children.contains(&guardian), "{children:?}");
    assert_eq!(waiter.end().code(), Some(3));
}

/// It may go on without its lock, but not without its wrapper.
fn a_killed_wrapper_takes_its_command_along_whatever_is_to_be_done_on_loss(kind: Kind) {
    let store = Store::ready(kind);
    for how in ["warn", "ignore"] {
        let holder = Holder::of(&store, how, &["--on-lost", how]);
        let next = follow(&store, how, holder.command);
        holder.wrapper.signal(Signal::SIGKILL);
        assert_alone(next);
        eventually("the guardian is gone", || kill(holder.guardian, None).is_err());
    }
}

pub(crate) fn a_stopped_guardian_or_command_changes_nothing(kind: Kind) {
    let store = Store::ready(kind);
    let holder = Holder::of(&store, "n", &[]);
    kill(holder.guardian, Signal::SIGSTOP).unwrap();
    kill(holder.command, Signal::SIGSTOP).unwrap();
    // Longer than the ttl: the wrapper goes on renewing.
    pause(Duration::from_secs(6));
    let busy = output(&mut store.under(ABORT, &[], &["true"]));
    assert_eq!(busy.status.code(), Some(75), "{busy:?}");
    kill(holder.command, Signal::SIGKILL).unwrap();
    assert_eq!(holder.wrapper.wait().code(), Some(137));
    let free = output(&mut store.under(ABORT, &[], &["true"]));
    assert_eq!(free.status.code(), Some(0), "{free:?}");
}

pub(crate) fn a_paused_server_ends_the_command_before_the_deadline(kind: Kind) {
    let store = Store::of_its_own(kind);
    for guardian_too in [false, true] {
        let holder = Holder::of(&store, "n", &[]);
        if guardian_too {
            // Then it is the wrapper's.
            kill(holder.guardian, Signal::SIGSTOP).unwrap();
        }
        store.server().pause().unwrap();
        eventually("the group is gone", || alive_in(holder.command).is_empty());
        store.server().resume().unwrap();
        let said = holder.wrapper.stderr_line();
        assert!(said.contains("not renewed before its deadline"), "{said}");
        assert_eq!(holder.wrapper.wait().code(), Some(79));
        let next = output(&mut store.under(BLOCK, &[], &["true"]));
        assert_eq!(next.status.code(), Some(0), "{next:?}");
    }
}

pub(crate) fn a_server_that_is_gone_ends_the_command(kind: Kind) {
    let store = Store::of_its_own(kind);
    let holder = Holder::of(&store, "n", &[]);
    store.server().kill().unwrap();
    assert_eq!(holder.wrapper.wait().code(), Some(79));
    assert!(alive_in(holder.command).is_empty());
}

pub(crate) fn a_cut_network_ends_the_command_before_somebody_else_has_the_lock(kind: Kind) {
    let store = Store::ready(kind);
    for stopped in [false, true] {
        let wire = Wire::to(store.server().address());
        let url = store.url().replace(&store.server().address().to_string(), &wire.address.to_string());
        let mut wrapper = Command::new(BLOCK);
        wrapper.env("LOCKS_URL", url).args(["--name", "n", "--ttl", TTL, "--", "sh", "-c", STUBBORN]);
        let holder = Holder::start(&mut wrapper);
        let next = follow(&store, "n", holder.command);
        wire.cut();
        if stopped {
            holder.wrapper.signal(Signal::SIGSTOP);
        }
        assert_alone(next);
        // Otherwise it may be gone already.
        if stopped {
            holder.wrapper.signal(Signal::SIGCONT);
        }
        assert_eq!(holder.wrapper.wait().code(), Some(79));
    }
}

pub(crate) fn a_command_that_minds_term_may_clean_up(kind: Kind) {
    let store = Store::ready(kind);
    let script = "trap 'echo cleaned; exit 5' TERM; echo up; while :; do sleep 0.1; done";
    let holder = Process::start_up(&mut store.under(BLOCK, &["--ttl", TTL], &["sh", "-c", script]));
    store.take_away();
    assert_eq!(holder.line(), "cleaned");
    assert_eq!(holder.wait().code(), Some(79));
}

pub(crate) fn whoever_wants_to_goes_on_without_the_lock(kind: Kind) {
    let store = Store::ready(kind);
    for how in ["warn", "ignore"] {
        let options = ["--ttl", "2", "--on-lost", how, "--json-fd", "2"];
        let script = "echo up; read line; exit 3";
        let holder = Process::start_up(&mut store.under(BLOCK, &options, &["sh", "-c", script]));
        store.take_away();
        let mut said = holder.stderr_line();
        while !said.contains("\"event\":\"lost\"") {
            said = holder.stderr_line();
        }
        let next = output(&mut store.under(BLOCK, &[], &["true"]));
        assert_eq!(next.status.code(), Some(0), "{next:?}");
        let (code, rest) = holder.end_and_listen();
        assert_eq!(code, Some(3));
        assert_eq!(rest.iter().any(|line| line.contains("the command goes on")), how == "warn", "{rest:?}");
    }
}

pub(crate) fn what_the_command_leaves_in_its_group_is_ended_before_the_lock_is_given_back(kind: Kind) {
    let store = Store::ready(kind);
    let leave = "trap '' TERM; sleep 600 >/dev/null 2>&1 </dev/null & echo $$";
    let left = output(&mut store.under(BLOCK, &["--kill-after", "0.2"], &["sh", "-c", leave]));
    assert_eq!(left.status.code(), Some(0), "{left:?}");
    let group = Pid::from_raw(text(&left.stdout).trim().parse().unwrap());
    assert!(alive_in(group).is_empty());

    // A daemon leaves the group, and with `--no-inherit` it needn't even do that.
    let daemon = "setsid sleep 600 >/dev/null 2>&1 </dev/null & p=$!; \
                  while test \"$(ps -o pgid= -p $p | tr -d ' ')\" = $$; do sleep 0.01; done; echo $p";
    let sleeper = "sleep 600 >/dev/null 2>&1 </dev/null & echo $!";
    for (options, script) in [(&[][..], daemon), (&["--no-inherit"], sleeper)] {
        let left = output(&mut store.under(BLOCK, options, &["sh", "-c", script]));
        assert_eq!(left.status.code(), Some(0), "{left:?}");
        let daemon = Pid::from_raw(text(&left.stdout).trim().parse().unwrap());
        kill(daemon, Signal::SIGKILL).unwrap();
    }
}

/// A connection that can be cut: what is under way is lost, and nobody gets through any more.
struct Wire {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_cut = Arc::new(AtomicBool::new(false));
        let streams = Arc::new(Mutex::new(Vec::new()));
        let wire = Self { address, is_cut: Arc::clone(&is_cut), streams: Arc::clone(&streams) };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if is_cut.load(Ordering::SeqCst) {
                    // It is accepted and never answered.
                    streams.lock().unwrap().push(client);
                    continue;
                }
                let server = TcpStream::connect(server).unwrap();
                for (mut from, mut to) in [
                    (client.try_clone().unwrap(), server.try_clone().unwrap()),
                    (server.try_clone().unwrap(), client.try_clone().unwrap()),
                ] {
                    let is_cut = Arc::clone(&is_cut);
                    thread::spawn(move || {
                        let mut bytes = [0; 4_096];
                        while let Ok(read @ 1..) = from.read(&mut bytes) {
                            if !is_cut.load(Ordering::SeqCst) && to.write_all(&bytes[..read]).is_err() {
                                return;
                            }
                        }
                    });
                }
                streams.lock().unwrap().extend([client, server]);
            }
        });
        wire
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut();
        for stream in self.streams.lock().unwrap().drain(..) {
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
    }
}
