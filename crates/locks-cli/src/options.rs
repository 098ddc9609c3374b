//! What the commands that run another one are asked for, checked.

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use locks::LockName;

use crate::config::Source;
use crate::duration::{duration, positive, text};
use crate::flags::{self, Given};
use crate::kind::{Kind, Wish};
use crate::patience::Patience;
use crate::store::Store;
use crate::supervise::OnLost;
use crate::words::Loudness;
use crate::{Tool, command_name, exit, system};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) store: Store,
    pub(crate) wish: Wish,
    pub(crate) patience: Patience,
    pub(crate) conflict_exit_code: u8,
    pub(crate) on_lost: OnLost,
    pub(crate) max_run: Option<Duration>,
    pub(crate) kill_after: Option<Duration>,
    pub(crate) one_per_host: bool,
    pub(crate) no_inherit: bool,
    pub(crate) loudness: Loudness,
    /// Where events go.
    pub(crate) events: Option<File>,
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Request {
    Run(Box<Options>),
    /// Help, version or a name.
    Print(String),
}

/// Understands `arguments`, the first of which is the program's own name.
///
/// # Errors
///
/// What is wrong, in one line.
pub(crate) fn parse(tool: Tool, arguments: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    parse_rest(tool, &mut lexopt::Parser::from_iter(arguments))
}

/// Understands what comes next.
///
/// # Errors
///
/// What is wrong, in one line.
pub(crate) fn parse_rest(tool: Tool, parser: &mut lexopt::Parser) -> Result<Request, String> {
    let given = flags::parse(tool, parser)?;
    if given.has("help") {
        return Ok(Request::Print(flags::help(tool)));
    }
    if given.has("version") {
        return Ok(Request::Print(format!("{} {}\n", tool.name(), env!("CARGO_PKG_VERSION"))));
    }
    check(tool, given)
}

fn check(tool: Tool, mut given: Given) -> Result<Request, String> {
    let command = command(tool, &mut given)?;
    let name = match given.take("name") {
        Some(name) => text("--name", name)?,
        None => command_name::of(&command),
    };
    let name = LockName::new(name).map_err(|error| format!("--name: {error}"))?;
    let patience = match (tool, given.take("timeout")) {
        (Tool::Abort, _) => Patience::TryOnce,
        (_, None) => Patience::Forever,
        (_, Some(value)) => match duration("--timeout", value)? {
            Duration::ZERO => Patience::TryOnce,
            limit => Patience::AtMost(limit),
        },
    };
    let loudness = match (given.has("quiet"), given.has("verbose"), given.has("json")) {
        (true, true, _) => return Err("--quiet and --verbose can't be given together".to_owned()),
        (_, _, true) => Loudness::Mute,
        (true, false, false) => Loudness::Quiet,
        (false, true, false) => Loudness::Verbose,
        (false, false, false) => Loudness::Normal,
    };
    let mut time = |flag: &str| given.take(&flag[2..]).map(|value| positive(flag, value)).transpose();
    let ttl = time("--ttl")?;
    let max_run = time("--max-run")?;
    let min_hold = time("--min-hold")?;
    let once_per = time("--once-per")?;
    let kill_after = given.take("kill-after").map(|value| duration("--kill-after", value)).transpose()?;
    let kind = kind(&mut given)?;
    if kind != Kind::Exclusive && once_per.is_some() {
        return Err("--once-per goes with neither --shared nor --permits: one run at a time can be the last"
            .to_owned());
    }
    let on_lost = given.take("on-lost").map_or(Ok(OnLost::default()), on_lost)?;
    let conflict_exit_code = given.take("conflict-exit-code").map_or(Ok(exit::BUSY), conflict_exit_code)?;
    let program = command.first().cloned().unwrap_or_default();
    let label = match given.take("label") {
        Some(label) => text("--label", label)?,
        None => command_name::readable(&program),
    };
    let events = events(&mut given)?;
    if given.has("print-name") {
        return Ok(Request::Print(format!("{name}\n")));
    }
    let source = config_source(&mut given)?;
    let wish = Wish { name, kind, ttl, min_hold, once_per, label };
    Ok(Request::Run(Box::new(Options {
        store: Store::of_command(given.take("url"), &source)?,
        wish,
        patience,
        conflict_exit_code,
        on_lost,
        max_run,
        kill_after,
        one_per_host: given.has("one-per-host"),
        no_inherit: given.has("no-inherit"),
        loudness,
        events,
        program,
        arguments: command.get(1..).unwrap_or_default().to_vec(),
    })))
}

/// The program and its arguments.
fn command(tool: Tool, given: &mut Given) -> Result<Vec<OsString>, String> {
    let command = std::mem::take(&mut given.command);
    match (given.take("command"), command.is_empty()) {
        (Some(_), false) => {
            Err("--command: it is the whole command, and another one follows; write one of them".to_owned())
        }
        (Some(line), true) => Ok(vec!["/bin/sh".into(), "-c".into(), line]),
        (None, true) => Err(format!(
            "no command given; usage: {0} [OPTIONS] [--] CMD [ARG]..., see {0} --help",
            tool.name()
        )),
        (None, false) => Ok(command),
    }
}

fn kind(given: &mut Given) -> Result<Kind, String> {
    match (given.has("shared"), given.take("permits")) {
        (true, Some(_)) => Err("--shared and --permits can't be given together".to_owned()),
        (true, None) => Ok(Kind::Shared),
        (false, None) => Ok(Kind::Exclusive),
        (false, Some(value)) => {
            let value = text("--permits", value)?;
            match value.parse() {
                Ok(limit) if limit > 0 => Ok(Kind::Permit(limit)),
                _ => Err(format!("--permits: {value:?} is no number from 1 to {}", u32::MAX)),
            }
        }
    }
}

fn on_lost(value: OsString) -> Result<OnLost, String> {
    match text("--on-lost", value)?.as_str() {
        "kill" => Ok(OnLost::Kill),
        "warn" => Ok(OnLost::Warn),
        "ignore" => Ok(OnLost::Ignore),
        other => Err(format!("--on-lost: {other:?} is none of kill, warn and ignore")),
    }
}

fn conflict_exit_code(value: OsString) -> Result<u8, String> {
    let value = text("--conflict-exit-code", value)?;
    value.parse().map_err(|_| format!("--conflict-exit-code: {value:?} is no number from 0 to 255"))
}

/// Where events go, if anywhere.
fn events(given: &mut Given) -> Result<Option<File>, String> {
    let (flag, number) = match (given.has("json"), given.take("json-fd")) {
        (true, Some(_)) => return Err("--json and --json-fd can't be given together".to_owned()),
        (true, None) => ("--json", nix::libc::STDERR_FILENO),
        (false, Some(value)) => ("--json-fd", descriptor_number(value)?),
        (false, None) => return Ok(None),
    };
    let descriptor =
        system::inherited(number).map_err(|error| format!("{flag}: {number} is not open: {error}"))?;
    let flags = nix::fcntl::fcntl(&descriptor, nix::fcntl::FcntlArg::F_GETFL);
    let access = flags.map_or(nix::libc::O_RDONLY, |flags| flags & nix::libc::O_ACCMODE);
    if access == nix::libc::O_RDONLY {
        return Err(format!("{flag}: {number} is not open for writing"));
    }
    Ok(Some(File::from(descriptor)))
}

fn descriptor_number(value: OsString) -> Result<i32, String> {
    let value = text("--json-fd", value)?;
    let number = value.parse().ok().filter(|number: &i32| *number >= 0);
    number.ok_or_else(|| format!("--json-fd: {value:?} is no number of a descriptor"))
}

/// Which configuration counts.
fn config_source(given: &mut Given) -> Result<Source, String> {
    match (given.take("config"), given.has("no-config")) {
        (Some(_), true) => Err("--config and --no-config can't be given together".to_owned()),
        (Some(path), false) => Ok(Source::File(PathBuf::from(path))),
        (None, true) => Ok(Source::None),
        (None, false) => Ok(Source::Usual),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &[&str]) -> Result<Options, String> {
        let arguments = std::iter::once("lock-block").chain(line.iter().copied()).map(OsString::from);
        parse(Tool::Block, arguments).map(|request| match request {
            Request::Run(options) => *options,
            Request::Print(text) => panic!("{text}"),
        })
    }

    fn command(line: &[&str]) -> Vec<OsString> {
        let options = options(line).unwrap();
        std::iter::once(options.program).chain(options.arguments).collect()
    }

    #[test]
    fn options_after_the_command_belong_to_it() {
        assert_eq!(
            command(&["-q", "cmd", "-q", "--name", "x", "--", "-w"]),
            ["cmd", "-q", "--name", "x", "--", "-w"]
        );
        assert_eq!(command(&["--", "cmd", "--help"]), ["cmd", "--help"]);
        assert_eq!(command(&["cmd", "--", "--version"]), ["cmd", "--", "--version"]);
        assert_eq!(command(&["--", "--", "x"]), ["--", "x"]);
        assert_eq!(command(&["--", "-odd"]), ["-odd"]);
        assert_eq!(command(&["--name", "n", ""]), [""]);
        assert!(options(&["--nmae", "x", "cmd"]).unwrap_err().contains("'--nmae'"));
    }

    #[test]
    fn durations_are_seconds_or_have_units() {
        let good = [
            ("5", 5_000),
            ("1.5", 1_500),
            ("0.25", 250),
            ("5s", 5_000),
            ("2m", 120_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("150ms", 150),
        ];
        for (value, millis) in good {
            let expected = Patience::AtMost(Duration::from_millis(millis));
            assert_eq!(options(&["-w", value, "cmd"]).unwrap().patience, expected, "{value}");
        }
        for zero in ["0", "0.0", "0s", "00"] {
            assert_eq!(options(&["--timeout", zero, "cmd"]).unwrap().patience, Patience::TryOnce, "{zero}");
        }
        let huge = "9".repeat(400);
        for bad in [
            "",
            "-5",
            "-1s",
            "5x",
            "s",
            ".",
            "1.2.3",
            "1e3",
            "inf",
            "NaN",
            "+5",
            "5 ",
            "99999999999999999999",
            &huge,
        ] {
            let complaint = options(&["--timeout", bad, "cmd"]).unwrap_err();
            assert!(complaint.starts_with("--timeout: "), "{bad:?}: {complaint}");
            let complaint = options(&["--ttl", bad, "cmd"]).unwrap_err();
            assert!(complaint.starts_with("--ttl: "), "{bad:?}: {complaint}");
        }
        assert!(options(&["--ttl", "0", "cmd"]).unwrap_err().starts_with("--ttl: "));
    }

    #[test]
    fn codes_are_bytes() {
        assert_eq!(options(&["cmd"]).unwrap().conflict_exit_code, 75);
        for (value, code) in [("0", 0), ("1", 1), ("255", 255)] {
            assert_eq!(options(&["-E", value, "cmd"]).unwrap().conflict_exit_code, code);
        }
        for bad in ["256", "-1", "", "x", "1.0"] {
            assert!(
                options(&["-E", bad, "cmd"]).unwrap_err().starts_with("--conflict-exit-code: "),
                "{bad:?}"
            );
        }
    }
}
