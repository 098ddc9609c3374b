//! On a terminal: whose turn it is, keys, job control, and the line that a waiting person sees.

use std::time::Duration;

use crate::pty::{Terminal, is_stopped, parent_of};
use crate::support::{Process, Sandbox, UNTIL_EOF, alive_in, eventually, pause};

fn block() -> &'static str {
    env!("CARGO_BIN_EXE_lock-block")
}

/// Ctrl-C reaches the command, with all its group, once; and a script that runs us ends with it.
#[test]
fn the_key_for_interrupt_reaches_the_command_once_and_the_script_around_it() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::shell(&sandbox.url());
    let script =
        "n=0; trap 'n=$((n+1)); echo got-$n.' INT; echo at-$((1+1))-$$.; while :; do sleep 0.05; done";
    let script_file = sandbox.path("script");
    std::fs::write(&script_file, script).unwrap();
    terminal.press(&format!("{} --name n -- sh {}; echo code-$?-\n", block(), script_file.display()));
    terminal.pid();
    for times in 1..4 {
        terminal.press("\x03");
        terminal.until(&format!("got-{times}."));
    }
    terminal.press("\x1c");
    terminal.until("code-131-");

    // One that dies of it takes the script along, as without us.
    let around = sandbox.path("around");
    let inner = "sh -c 'echo at-$((1+1))-$$.; exec sleep 600'";
    std::fs::write(&around, format!("{} --name n -- {inner}; echo went-on\n", block())).unwrap();
    terminal.press(&format!("sh {}\n", around.display()));
    terminal.pid();
    terminal.press("\x03");
    terminal.press("echo code-$?-\n");
    let shown = terminal.until("code-130-");
    assert!(!shown.contains("went-on"), "{shown}");
    terminal.leave();
    assert!(!sandbox.is_taken("n"));
}

#[test]
fn the_key_for_stop_stops_the_job_and_the_shell_continues_it() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::shell(&sandbox.url());
    let script = sandbox.path("script");
    std::fs::write(&script, "echo at-$((1+1))-$$.; read x; echo read-$x; exit 9").unwrap();
    terminal.press(&format!("{} --name n -- sh {}\n", block(), script.display()));
    let command = terminal.pid();
    for _ in 0..3 {
        terminal.press("\x1a");
        eventually("the command is stopped", || is_stopped(command));
        // The shell has the terminal again.
        terminal.press("echo shell-$((40+2))\n");
        terminal.until("shell-42");
        assert!(sandbox.is_taken("n"));
        terminal.press("fg\n");
        eventually("the command goes on", || !is_stopped(command));
    }
    // It may read.
    terminal.press("hello\n");
    terminal.until("read-hello");
    terminal.press("echo code-$?-\n");
    terminal.until("code-9-");
    terminal.leave();
    assert!(!sandbox.is_taken("n"));
}

#[test]
fn in_the_background_a_command_that_reads_waits_for_its_turn() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::shell(&sandbox.url());
    terminal
        .press(&format!("{} --name n -- sh -c 'echo at-$((1+1))-$$.; read x; echo read-$x' &\n", block()));
    let command = terminal.pid();
    // Before that the shell thinks that the job runs, and does not continue it.
    eventually("the whole job is stopped", || is_stopped(command) && is_stopped(parent_of(command)));
    terminal.press("echo shell-$((40+2))\n");
    terminal.until("shell-42");
    terminal.press("fg\n");
    eventually("the command goes on", || !is_stopped(command));
    terminal.press("hello\n");
    terminal.until("read-hello");
    terminal.leave();
}

/// A command that wants to read and that no shell can ever bring to the foreground is hung up, not left to stand for ever.
#[test]
fn left_behind_by_its_shell_a_command_that_reads_ends() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::shell(&sandbox.url());
    let reads = "sh -c 'echo at-$((1+1))-$$.; read x'";
    terminal.press(&format!("( (sleep 0.3; exec {} --name n -- {reads} </dev/tty) & )\n", block()));
    let command = terminal.pid();
    eventually("the command is gone", || alive_in(command).is_empty());
    terminal.leave();
    eventually("the lock is free", || !sandbox.is_taken("n"));
}

/// The others of a pipeline keep the terminal until the command wants to read from it.
#[test]
fn in_a_pipeline_the_others_may_read_too() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::shell(&sandbox.url());
    let reader = "sh -c 'read x </dev/tty; echo reader-$x; cat'";
    terminal.press(&format!(
        "{} --name n -- sh -c 'echo from-$((1+1)); sleep 0.5' | {reader}; echo over-$((1+1))\n",
        block()
    ));
    terminal.press("one\n");
    terminal.until("reader-one");
    terminal.until("from-2");
    terminal.until("over-2");
    terminal.press(&format!(
        "echo x | {} --name n -- sh -c 'read y </dev/tty; echo asked-$y' | cat; echo over-$((2+1))\n",
        block()
    ));
    // Not before the command wants it.
    pause(Duration::from_millis(300));
    terminal.press("two\n");
    terminal.until("asked-two");
    terminal.until("over-3");
    terminal.leave();
}

/// One line that is kept up to date, and gone when the wait is over.
#[test]
fn who_waits_at_a_terminal_sees_who_is_in_the_way() {
    let sandbox = Sandbox::new();
    let holder = Process::start_up(sandbox.block().args(["--name", "n", "--"]).args(UNTIL_EOF));
    let pid = holder.pid;
    let line = format!("stty columns 500; {} --name n -- echo mine; exit $?", block());
    let terminal = Terminal::run(&sandbox.url(), &line);
    pause(Duration::from_millis(3_500));
    holder.end();
    let shown = terminal.until("mine");
    assert_eq!(terminal.end(), Some(0));
    for word in [
        "lock-block: waiting for 1s: \"n\" is held by pid",
        "waiting for 2s: ",
        "(since 20",
        &pid.to_string(),
    ] {
        assert!(shown.contains(word), "{word:?} is not in {shown:?}");
    }
    assert!(shown.ends_with("\r\u{1b}[K"), "{shown:?}");
}

/// Ctrl-Z stops a wait as it stops any program.
#[test]
fn a_wait_can_be_stopped_and_interrupted() {
    let sandbox = Sandbox::new();
    let holder = Process::start_up(sandbox.block().args(["--name", "n", "--"]).args(UNTIL_EOF));
    let mut terminal = Terminal::shell(&sandbox.url());
    terminal.press(&format!("{} --name n -- echo it-ran-$((1+1)); echo code-$?-\n", block()));
    terminal.until("waiting for 1s");
    terminal.press("\x1a");
    terminal.press("echo shell-$((40+2))\n");
    terminal.until("shell-42");
    terminal.press("fg\n");
    terminal.until("waiting for");
    terminal.press("\x03");
    terminal.press("echo code-$?-\n");
    terminal.until("code-130-");
    terminal.leave();
    holder.end();
}
