#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(unix))]
compile_error!("lock-abort and lock-block run on Unix: they pass on signals and file descriptors");

mod child;
mod command_name;
mod config;
mod duration;
mod events;
pub mod exit;
mod flags;
mod guardian;
mod host;
mod image;
mod json;
mod kind;
mod options;
mod patience;
mod reactor;
mod signals;
mod store;
mod supervise;
mod system;
mod terminal;
mod toolbox;
mod trouble;
mod unwinder;
mod waiting;
mod words;
mod wrapper;

use std::panic::UnwindSafe;
use std::process::ExitCode;

use crate::options::{Options, Request};
use crate::trouble::{Cause, Trouble};
use crate::words::Words;

/// Which of the commands that run another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tool {
    /// `lock-abort`: never waits.
    Abort,
    /// `lock-block`: waits for the lock.
    Block,
    /// `locks run`: the same.
    Run,
}

impl Tool {
    /// The command's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Abort => "lock-abort",
            Self::Block => "lock-block",
            Self::Run => "locks run",
        }
    }
}

/// Does what the process's arguments ask for and returns its exit code, see [`exit`].
pub fn main(tool: Tool) -> ExitCode {
    guarded(tool.name(), || answer(tool, options::parse(tool, std::env::args_os())))
}

/// `locks`: does what the process's arguments ask for and returns its exit code, see [`exit`].
pub fn toolbox() -> ExitCode {
    guarded(toolbox::NAME, || toolbox::run(std::env::args_os()))
}

/// The exit code of `work`, also if it panics.
fn guarded(program: &'static str, work: impl FnOnce() -> u8 + UnwindSafe) -> ExitCode {
    std::panic::set_hook(Box::new(move |panic| {
        Words::new(program).error(&format!("this is a bug: {panic}"));
    }));
    ExitCode::from(std::panic::catch_unwind(work).unwrap_or(exit::BUG))
}

fn answer(tool: Tool, request: Result<Request, String>) -> u8 {
    match request {
        Ok(Request::Run(options)) => run(tool, *options),
        Ok(Request::Print(text)) => words::print(&text),
        Err(complaint) => {
            Words::new(tool.name()).error(&complaint);
            exit::USAGE
        }
    }
}

fn run(tool: Tool, options: Options) -> u8 {
    let words = Words::new(tool.name()).with_loudness(options.loudness);
    let conflict_exit_code = options.conflict_exit_code;
    match wrapper::run(options, &words) {
        Ok(code) => code,
        Err(trouble) => conclude(&trouble, conflict_exit_code, &words),
    }
}

/// Says what the trouble is and returns its exit code.
fn conclude(trouble: &Trouble, conflict_exit_code: u8, words: &Words) -> u8 {
    match trouble.cause {
        Cause::Busy(_) => words.remark(&trouble.message),
        Cause::Signal(_) => words.step(|| trouble.message.clone()),
        Cause::Failure(_) => words.error(&trouble.message),
    }
    trouble.code(conflict_exit_code)
}
