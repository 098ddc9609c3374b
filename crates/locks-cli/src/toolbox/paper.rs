//! `locks completions` and `locks man`: what a shell and man(1) are to know, made from the tables of options.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ValueHint};
use clap_complete::Shell;

use super::arguments::{self, Arguments};
use super::{COMMANDS, Command, Complaint, NAME};
use crate::flags::{self, EXIT_CODES, Flag};
use crate::{Tool, words};

pub(super) const COMPLETIONS: Command = Command {
    name: "completions",
    about: "Print what a shell needs to complete the command lines",
    usage: "SHELL [PROGRAM]",
    example: "bash lock-block",
    more: &[
        "SHELL is bash, elvish, fish, powershell or zsh, PROGRAM one of lock-abort, lock-block and locks [default: locks].",
    ],
    flags: &["help"],
    most_words: 2,
    run: completions,
};

pub(super) const MAN: Command = Command {
    name: "man",
    about: "Print a manual page",
    usage: "[PROGRAM]",
    example: "lock-block | man -l -",
    more: &[
        "PROGRAM is one of lock-abort, lock-block and locks [default: locks]. The page is roff, as man(1) reads it.",
    ],
    flags: &["help"],
    most_words: 1,
    run: man,
};

fn completions(command: &Command, arguments: Arguments) -> Result<u8, Complaint> {
    let mut given = arguments.words.into_iter();
    let shell = given.next().and_then(|shell| shell.to_str().and_then(|shell| shell.parse::<Shell>().ok()));
    let Some(shell) = shell else {
        let complaint = "give one of bash, elvish, fish, powershell and zsh".to_owned();
        return Err(Complaint::Usage(format!("{}: {complaint}", command.name)));
    };
    let mut program = program(command, given.next())?;
    let name = program.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut program, name, &mut text);
    Ok(words::print_bytes(&text))
}

fn man(command: &Command, mut arguments: Arguments) -> Result<u8, Complaint> {
    let program = program(command, arguments.words.pop())?;
    let mut text = Vec::new();
    // Writing to memory can't fail.
    clap_mangen::Man::new(program).render(&mut text).ok();
    Ok(words::print_bytes(&text))
}

/// What clap is told about one of our programs.
fn program(command: &Command, name: Option<OsString>) -> Result<clap::Command, Complaint> {
    match name.as_ref().map(|name| name.to_str()) {
        Some(Some("lock-abort")) => Ok(runner("lock-abort", Tool::Abort)),
        Some(Some("lock-block")) => Ok(runner("lock-block", Tool::Block)),
        None | Some(Some(NAME)) => Ok(toolbox()),
        Some(_) => Err(Complaint::Usage(format!(
            "{}: {:?} is none of lock-abort, lock-block and locks",
            command.name,
            name.unwrap_or_default()
        ))),
    }
}

fn runner(name: &'static str, tool: Tool) -> clap::Command {
    let command = Arg::new("CMD").value_hint(ValueHint::CommandWithArguments);
    let command = command.num_args(1..).trailing_var_arg(true).allow_hyphen_values(true);
    plain(name, flags::about(tool))
        .args(flags::of(tool).map(argument))
        .arg(command.help("The command and its arguments, run as they are, without a shell"))
        .after_help(format!(
            "Example: {} {}\n\nDurations are seconds or have units: 0, 1.5, 90s, 2m, 1h30m.\n\nExit codes: {EXIT_CODES}",
            tool.name(),
            flags::example(tool)
        ))
}

fn toolbox() -> clap::Command {
    let program = plain(NAME, "Looks after the stores that keep locks.").subcommand_required(true);
    let commands = COMMANDS.iter().map(|command| {
        let flags = arguments::FLAGS.into_iter().filter(|flag| command.flags.contains(&flag.long));
        let word = command.usage.rsplit(' ').next().unwrap_or_default().trim_matches(['[', ']']);
        plain(command.name, command.about)
            .args(flags.map(argument))
            .args((command.most_words > 0).then(|| Arg::new(word)))
            .after_help(command.more.join("\n\n"))
    });
    program.subcommand(runner("run", Tool::Run)).subcommands(commands)
}

fn plain(name: &'static str, about: &'static str) -> clap::Command {
    let command = clap::Command::new(name).about(about).version(env!("CARGO_PKG_VERSION"));
    command.disable_help_flag(true).disable_version_flag(true).disable_help_subcommand(true)
}

fn argument(flag: Flag) -> Arg {
    let argument = Arg::new(flag.long).long(flag.long).help(flag.about);
    let argument = if let Some(short) = flag.short { argument.short(short) } else { argument };
    match (flag.value, flag.long) {
        (None, _) => argument.action(ArgAction::SetTrue),
        (Some(value), "on-lost") => argument.value_name(value).value_parser(["kill", "warn", "ignore"]),
        (Some(value), "config") => argument.value_name(value).value_hint(ValueHint::FilePath),
        (Some(value), _) => argument.value_name(value),
    }
}
