#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(unix))]
compile_error!("lock-abort and lock-block run on Unix: they pass on signals and file descriptors");

mod child;
mod command_name;
pub mod exit;
mod options;
mod reactor;
mod signals;
mod trouble;
mod unwinder;
mod words;
mod wrapper;

use std::process::ExitCode;

use crate::options::{Options, Request};
use crate::trouble::Cause;
use crate::words::Words;

/// Which of the two commands runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tool {
    /// `lock-abort`: never waits.
    Abort,
    /// `lock-block`: waits for the lock.
    Block,
}

impl Tool {
    /// The command's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Abort => "lock-abort",
            Self::Block => "lock-block",
        }
    }
}

/// Does what the process's arguments ask for and returns its exit code, see [`exit`].
pub fn main(tool: Tool) -> ExitCode {
    std::panic::set_hook(Box::new(move |panic| Words::new(tool).error(&format!("this is a bug: {panic}"))));
    let code = std::panic::catch_unwind(|| match options::parse(tool, std::env::args_os()) {
        Ok(Request::Run(options)) => run(tool, &options),
        Ok(Request::Print(text)) => words::print(&text),
        Err(complaint) => {
            Words::new(tool).error(&complaint);
            exit::USAGE
        }
    });
    ExitCode::from(code.unwrap_or(exit::BUG))
}

fn run(tool: Tool, options: &Options) -> u8 {
    let words = Words::new(tool).with_loudness(options.loudness);
    let trouble = match wrapper::run(options, &words) {
        Ok(code) => return code,
        Err(trouble) => trouble,
    };
    match trouble.cause {
        Cause::Busy => {
            words.remark(&trouble.message);
            options.conflict_exit_code
        }
        Cause::Signal(signal) => {
            words.step(|| trouble.message);
            exit::signal(signal as i32)
        }
        Cause::Failure(code) => {
            words.error(&trouble.message);
            code
        }
    }
}
