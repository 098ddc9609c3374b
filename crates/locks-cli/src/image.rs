//! The program that a command becomes: found as the shell finds it, and run as it is.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;

use nix::libc;

use crate::system::{self, Strings};

/// A program with its arguments and its environment, ready for exec.
#[derive(Debug)]
pub(crate) struct Image {
    /// Where it may be, in the order of the search.
    paths: Vec<CString>,
    arguments: Strings,
    environment: Strings,
}

/// Where programs are looked for without PATH.
const USUAL_PATH: &[u8] = b"/bin:/usr/bin";

impl Image {
    /// Of `program`, with our own environment and `ours` on top of it.
    ///
    /// # Errors
    ///
    /// If there is a NUL in one of them.
    pub(crate) fn new(program: &OsStr, arguments: &[OsString], ours: &[(&str, String)]) -> io::Result<Self> {
        let all = std::iter::once(program).chain(arguments.iter().map(OsString::as_os_str));
        let arguments = all.map(|argument| string(argument.as_bytes())).collect::<io::Result<_>>()?;
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os() {
            if !ours.iter().any(|(ours, _)| name == *ours) {
                environment.push(string(&[name.as_bytes(), b"=", value.as_bytes()].concat())?);
            }
        }
        for (name, value) in ours {
            environment.push(string(format!("{name}={value}").as_bytes())?);
        }
        let paths = paths(program.as_bytes())?;
        Ok(Self { paths, arguments: Strings::new(arguments), environment: Strings::new(environment) })
    }

    /// Becomes the program; returns why it can't. No shell is tried on what is no program. Makes system calls only.
    pub(crate) fn exec(&self) -> io::Error {
        let mut forbidden = false;
        for path in &self.paths {
            let error = system::exec(path, &self.arguments, &self.environment);
            match error.raw_os_error() {
                Some(libc::EACCES) => forbidden = true,
                Some(libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT) => {}
                _ => return error,
            }
        }
        io::Error::from_raw_os_error(if forbidden { libc::EACCES } else { libc::ENOENT })
    }
}

fn paths(program: &[u8]) -> io::Result<Vec<CString>> {
    if program.is_empty() {
        return Ok(Vec::new());
    }
    if program.contains(&b'/') {
        return Ok(vec![string(program)?]);
    }
    let path = std::env::var_os("PATH");
    let path = path.as_ref().map_or(USUAL_PATH, |path| path.as_bytes());
    let directories = path.split(|byte| *byte == b':');
    directories
        .map(|directory| match directory {
            b"" => string(program),
            directory => string(&[directory, b"/", program].concat()),
        })
        .collect()
}

fn string(bytes: &[u8]) -> io::Result<CString> {
    Ok(CString::new(bytes)?)
}
