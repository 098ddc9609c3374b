//! The file backend on real files, with real processes.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "this is a test")]

mod processes;
mod steps;
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
        other => panic!("no task {other}"),
    }
}
