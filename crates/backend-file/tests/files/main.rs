//! The file backend on real files, with real processes.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "this is a test")]

mod garbage;
mod kinds;
mod paths;
mod processes;
mod sharing;
mod steps;
mod storm;
mod trouble;
mod worker;

#[test]
#[ignore = "the worker processes of the other tests"]
fn worker_process() {
    let (task, dir) = worker::task();
    match task.as_str() {
        "compete" => processes::compete(&dir),
        "descriptors" => trouble::descriptors(&dir),
        "growth" => trouble::growth(&dir),
        "hold" => processes::hold(&dir),
        "share" => processes::share(&dir),
        "start a program" => processes::start_program(&dir, false),
        "start a program that inherits" => processes::start_program(&dir, true),
        "threads" => steps::threads(&dir),
        "wait" => processes::wait(&dir),
        "clear away" => garbage::clear_away(&dir),
        "come and go" => garbage::come_and_go(&dir),
        "every kind" => storm::every_kind(&dir),
        "meet others" => sharing::meet_others(&dir),
        other => match other.strip_prefix("kind: ") {
            Some(how) => kinds::hold(&dir, how),
            None => panic!("no task {other}"),
        },
    }
}
