//! The command line of `lock-abort` and `lock-block`.

use std::ffi::OsString;
use std::time::Duration;

use lexopt::Arg::{Long, Short, Value};
use locks::LockName;

use crate::store::Store;
use crate::words::Loudness;
use crate::{Tool, command_name, exit};

/// What the command line asks for, checked.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) store: Store,
    pub(crate) name: LockName,
    pub(crate) patience: Patience,
    pub(crate) ttl: Option<Duration>,
    pub(crate) conflict_exit_code: u8,
    pub(crate) loudness: Loudness,
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
}

/// How long to wait for the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    TryOnce,
    AtMost(Duration),
    Forever,
}

impl Patience {
    /// What is left of it after `spent`.
    pub(crate) fn less(self, spent: Duration) -> Self {
        match self {
            Self::AtMost(limit) if limit <= spent => Self::TryOnce,
            Self::AtMost(limit) => Self::AtMost(limit - spent),
            Self::TryOnce | Self::Forever => self,
        }
    }

    /// How long that is, and `most` if it is longer.
    pub(crate) fn at_most(self, most: Duration) -> Duration {
        match self {
            Self::TryOnce => Duration::ZERO,
            Self::AtMost(limit) => limit.min(most),
            Self::Forever => most,
        }
    }
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Request {
    Run(Options),
    /// Help or version.
    Print(String),
}

/// The options as they were given: the values are checked later, so that every complaint names its flag.
#[derive(Debug, Default)]
struct Given {
    url: Option<OsString>,
    name: Option<OsString>,
    timeout: Option<OsString>,
    conflict_exit_code: Option<OsString>,
    ttl: Option<OsString>,
    quiet: bool,
    verbose: bool,
    /// The program and its arguments.
    command: Vec<OsString>,
}

/// Understands `arguments`, the first of which is the program's own name.
///
/// # Errors
///
/// What is wrong, in one line.
pub(crate) fn parse(tool: Tool, arguments: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let mut given = Given::default();
    let mut parser = lexopt::Parser::from_iter(arguments);
    let see_help = |error: lexopt::Error| format!("{error}; see {} --help", tool.name());
    while let Some(argument) = parser.next().map_err(see_help)? {
        let value = match argument {
            Long("help") | Short('h') => return Ok(Request::Print(help(tool))),
            Long("version") | Short('V') => {
                return Ok(Request::Print(format!("{} {}\n", tool.name(), env!("CARGO_PKG_VERSION"))));
            }
            Long("quiet") | Short('q') => {
                given.quiet = true;
                continue;
            }
            Long("verbose") | Short('v') => {
                given.verbose = true;
                continue;
            }
            Long("timeout") | Short('w') if tool == Tool::Abort => {
                return Err(
                    "--timeout: lock-abort never waits; use lock-block to wait for the lock".to_owned()
                );
            }
            Long("url") => &mut given.url,
            Long("name") => &mut given.name,
            Long("timeout") | Short('w') => &mut given.timeout,
            Long("conflict-exit-code") | Short('E') => &mut given.conflict_exit_code,
            Long("ttl") => &mut given.ttl,
            Value(program) => {
                // What comes after the program is its own.
                given.command.push(program);
                given.command.extend(parser.raw_args().map_err(see_help)?);
                break;
            }
            unknown @ (Long(_) | Short(_)) => return Err(see_help(unknown.unexpected())),
        };
        *value = Some(parser.value().map_err(see_help)?);
    }
    check(tool, given).map(Request::Run)
}

fn help(tool: Tool) -> String {
    let name = tool.name();
    let (about, example, timeout) = match tool {
        Tool::Abort => ("Runs a command under a named lock, or not at all if the lock is taken.", "", ""),
        Tool::Block => (
            "Waits for a named lock and runs a command under it.",
            "--timeout 5m ",
            "  -w, --timeout DURATION      Wait this long at most; 0 tries once [default: no limit]\n",
        ),
    };
    format!(
        "\
{about}

Usage: {name} [OPTIONS] [--] CMD [ARG]...
       {name} --name nightly {example}-- /opt/report.sh --full

The command is run as it is, without a shell; what comes after its name belongs to it.

Options:
      --url URL               The store that keeps the lock [default: $LOCKS_URL, else file:]
      --name NAME             The lock's name [default: made from the exact command]
{timeout}      --ttl DURATION          On stores with an expiry: how long others are kept out if we
                              vanish [default: the store's]
  -E, --conflict-exit-code N  The exit code when the lock is not had, 0 to 255 [default: 75]
  -q, --quiet                 Say nothing but errors: not that the lock is taken
  -v, --verbose               Say each step
  -h, --help                  Print this
  -V, --version               Print the version

Durations are seconds or have units: 0, 1.5, 90s, 2m, 1h30m.

Exit codes: the command's own; 128 + n if signal n ended it or the wait; 75 the lock is taken or
was not had in time; 64 usage; 69 the store can't be used; 70 a bug; 79 the lock was lost; 126 the
command can't be run; 127 there is no such command.
"
    )
}

fn check(tool: Tool, given: Given) -> Result<Options, String> {
    let Some((program, arguments)) = given.command.split_first() else {
        return Err(format!(
            "no command given; usage: {0} [OPTIONS] [--] CMD [ARG]..., see {0} --help",
            tool.name()
        ));
    };
    let patience = match (tool, given.timeout) {
        (Tool::Abort, _) => Patience::TryOnce,
        (Tool::Block, None) => Patience::Forever,
        (Tool::Block, Some(value)) => match duration("--timeout", value)? {
            Duration::ZERO => Patience::TryOnce,
            limit => Patience::AtMost(limit),
        },
    };
    let loudness = match (given.quiet, given.verbose) {
        (true, true) => return Err("--quiet and --verbose can't be given together".to_owned()),
        (true, false) => Loudness::Quiet,
        (false, true) => Loudness::Verbose,
        (false, false) => Loudness::Normal,
    };
    let ttl = given.ttl.map(|value| duration("--ttl", value)).transpose()?;
    if ttl == Some(Duration::ZERO) {
        return Err("--ttl: a lock can't last for no time; give more than 0".to_owned());
    }
    let name = match given.name {
        Some(name) => text("--name", name)?,
        None => command_name::of(&given.command),
    };
    Ok(Options {
        store: Store::of_command(given.url)?,
        name: LockName::new(name).map_err(|error| format!("--name: {error}"))?,
        patience,
        ttl,
        conflict_exit_code: given.conflict_exit_code.map_or(Ok(exit::BUSY), conflict_exit_code)?,
        loudness,
        program: program.clone(),
        arguments: arguments.to_vec(),
    })
}

/// The value as text.
///
/// # Errors
///
/// What is wrong, if it is no UTF-8.
pub(crate) fn text(what: &str, value: OsString) -> Result<String, String> {
    value.into_string().map_err(|value| format!("{what}: {value:?} is not UTF-8"))
}

fn conflict_exit_code(value: OsString) -> Result<u8, String> {
    let value = text("--conflict-exit-code", value)?;
    value.parse().map_err(|_| format!("--conflict-exit-code: {value:?} is no number from 0 to 255"))
}

fn duration(flag: &str, value: OsString) -> Result<Duration, String> {
    let value = text(flag, value)?;
    seconds(&value).or_else(|| humantime::parse_duration(&value).ok()).ok_or_else(|| {
        format!("{flag}: {value:?} is no duration; write seconds or units, such as 0, 1.5, 90s, 2m or 1h30m")
    })
}

/// Plain seconds, with or without a fraction: no sign, no exponent.
fn seconds(value: &str) -> Option<Duration> {
    let plain = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = value.parse().ok().filter(|_| plain)?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &[&str]) -> Result<Options, String> {
        let arguments = std::iter::once("lock-block").chain(line.iter().copied()).map(OsString::from);
        parse(Tool::Block, arguments).map(|request| match request {
            Request::Run(options) => options,
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
