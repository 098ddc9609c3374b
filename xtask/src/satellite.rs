//! Cargo in the workspaces beside this one.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::cargo;
use crate::workspace::root;

/// As [`cargo`], in the workspace of this directory. A peer that is measured there is built with `protoc`, which comes along unless the environment names one.
///
/// # Errors
///
/// If there is none for this machine.
pub(crate) fn cargo_in<I, S>(directory: &str, args: I) -> Result<Command>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = cargo(args);
    command.current_dir(root().join(directory));
    if directory == BENCH && std::env::var_os(PROTOC).is_none() {
        let protoc = protoc_bin_vendored::protoc_bin_path().context("name a protoc as PROTOC")?;
        command.env(PROTOC, protoc);
    }
    Ok(command)
}

pub(crate) const BENCH: &str = "bench";

const PROTOC: &str = "PROTOC";
