//! `locks status` and `locks list`: who holds and who waits.

use std::time::Duration;

use locks::{HeldBy, Holder, LockName, LockState, Mode, WaitingFor};

use super::arguments::{Arguments, ask};
use super::{Command, Complaint, NAME};
use crate::duration::text;
use crate::json::{self, Object};
use crate::trouble::plausible;
use crate::words;

pub(super) const STATUS: Command = Command {
    name: "status",
    about: "Say who holds a lock and who waits for it",
    usage: "[OPTIONS] NAME",
    example: "nightly",
    more: &["It takes nothing and is in nobody's way. What it says may be over by the time that it is read."],
    flags: &["url", "json", "config", "no-config", "help"],
    most_words: 1,
    run: status,
};

pub(super) const LIST: Command = Command {
    name: "list",
    about: "Say the same of all locks that are held or waited for",
    usage: "[OPTIONS] [PREFIX]",
    example: "reports/",
    more: &["Only locks whose names begin with PREFIX, if it is given. Locks that are free are not listed."],
    flags: &["url", "json", "config", "no-config", "help"],
    most_words: 1,
    run: list,
};

fn status(command: &Command, mut arguments: Arguments) -> Result<u8, Complaint> {
    let Some(name) = arguments.words.pop() else {
        return Err(Complaint::Usage(format!("no NAME given; see {NAME} {} --help", command.name)));
    };
    let name = text(command.name, name).map_err(Complaint::Usage)?;
    let name = LockName::new(name).map_err(|error| Complaint::Usage(format!("{}: {error}", command.name)))?;
    let store = arguments.store()?;
    let state = ask(&store, async |locks| locks.inspect(&name).await)?;
    let shown = if arguments.json { format!("{}\n", object(&state)) } else { paragraph(&state) };
    Ok(words::print(&shown))
}

fn list(command: &Command, mut arguments: Arguments) -> Result<u8, Complaint> {
    let prefix = text(command.name, arguments.words.pop().unwrap_or_default()).map_err(Complaint::Usage)?;
    let store = arguments.store()?;
    let states = ask(&store, async |locks| locks.list(&prefix).await)?;
    let shown = if arguments.json {
        format!("{}\n", json::list(states.iter().map(object)))
    } else {
        states.iter().map(paragraph).collect()
    };
    Ok(words::print(&shown))
}

/// The lock in one line, and each holder and waiter in one below it.
fn paragraph(state: &LockState) -> String {
    let name = state.name.as_str();
    let mut text = match (state.holders.is_empty(), state.not_due_for) {
        (false, _) => format!("{name:?} is held\n"),
        (true, Some(rest)) => format!("{name:?} is free, not due for another {}\n", rough(rest)),
        (true, None) => format!("{name:?} is free\n"),
    };
    for held in &state.holders {
        let mut line = format!("by {}, {}", who(held.holder.as_ref()), held.mode);
        if let Some(token) = held.token {
            line += &format!(", fencing token {token}");
        }
        if let Some(rest) = held.remaining {
            line += &format!(", {} left unless it is renewed", rough(rest));
        }
        text += &format!("  {}\n", words::one_line(&line));
    }
    for waiting in state.waiters.iter().flatten() {
        let mode = waiting.mode.map(|mode| format!(", {mode}")).unwrap_or_default();
        let line = format!("waiting: {}{mode}", who(waiting.holder.as_ref()));
        text += &format!("  {}\n", words::one_line(&line));
    }
    text
}

fn who(holder: Option<&Holder>) -> String {
    let Some(holder) = holder else { return "somebody unknown".to_owned() };
    match plausible(holder.since) {
        Some(since) => format!("{holder} (since {})", humantime::format_rfc3339_seconds(since)),
        None => holder.to_string(),
    }
}

fn rough(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn object(state: &LockState) -> String {
    let holders = json::list(state.holders.iter().map(holder));
    Object::default()
        .text("lock", state.name.as_str())
        .raw("held", if state.holders.is_empty() { "false" } else { "true" })
        .raw("holders", &holders)
        .with(state.waiters.as_ref(), |object, waiters| {
            object.raw("waiters", &json::list(waiters.iter().map(waiter)))
        })
        .with(state.not_due_for, |object, rest| object.number("not_due_ms", rest.as_millis()))
        .finish()
}

fn holder(held: &HeldBy) -> String {
    with_mode(with_who(held.holder.as_ref()), Some(held.mode))
        .with(held.claim, |object, claim| object.text("claim", &claim.to_string()))
        .with(held.token, |object, token| object.number("token", token.get()))
        .with(held.remaining, |object, rest| object.number("remaining_ms", rest.as_millis()))
        .finish()
}

fn waiter(waiting: &WaitingFor) -> String {
    with_mode(with_who(waiting.holder.as_ref()), waiting.mode)
        .with(waiting.claim, |object, claim| object.text("claim", &claim.to_string()))
        .finish()
}

fn with_who(who: Option<&Holder>) -> Object {
    who.map(json::holder).unwrap_or_default()
}

fn with_mode(object: Object, mode: Option<Mode>) -> Object {
    match mode {
        None => object,
        Some(Mode::Exclusive) => object.text("mode", "exclusive"),
        Some(Mode::Shared) => object.text("mode", "shared"),
        Some(Mode::Permits { count, limit }) => {
            object.text("mode", "permits").number("count", count).number("limit", limit)
        }
        Some(other) => object.text("mode", &other.to_string()),
    }
}
