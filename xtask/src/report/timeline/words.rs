//! The same in words: for those who can't see a drawing, and for tips.

use super::super::data::{End, Hold, Mark, Timeline};
use super::super::html::{count, time};

/// The most events that are told in words.
const MOST: usize = 40;

/// What the drawing shows, in a few sentences.
pub(super) fn description(timeline: &Timeline) -> String {
    let mut processes: Vec<u32> = timeline.lanes.iter().map(|lane| lane.process).collect();
    processes.sort_unstable();
    processes.dedup();
    let of = |end: End| timeline.holds.iter().filter(|hold| hold.end == end).count();
    let mut words = format!(
        "{} of {} by {} in {}.",
        count(timeline.holds.len(), "hold"),
        count(timeline.locks.len(), "lock"),
        if processes.len() == 1 { "1 process".to_owned() } else { format!("{} processes", processes.len()) },
        time(timeline.length),
    );
    for (number, what) in [(of(End::Lost), "lost"), (of(End::Died), "ended by the death of its process")] {
        if number > 0 {
            words.push_str(&format!(" {} {what}.", count(number, "hold")));
        }
    }
    if !timeline.marks.is_empty() {
        words.push_str(&format!(" {}.", count(timeline.marks.len(), "fault")));
    }
    for seen in &timeline.violations {
        words.push_str(&format!(" Violation at {}: {}.", time(seen.at), seen.message));
    }
    words
}

/// What stands below the drawing.
pub(super) fn caption(timeline: &Timeline) -> String {
    let mut words = String::new();
    if let Some(first) = timeline.holds.iter().map(|hold| hold.token).min() {
        words.push_str(&match timeline.locks.len() {
            1 => format!("Tokens are counted from {}. ", first.saturating_sub(1)),
            _ => "The tokens of each lock are counted from its first; tips have them whole. ".to_owned(),
        });
    }
    let drawn = timeline.holds.len() as u64;
    if timeline.recorded.holds > drawn {
        words.push_str(&format!(
            "Thinned out: {drawn} of {} holds and {} of {} faults; none that was lost or is part of a violation is missing. ",
            timeline.recorded.holds,
            timeline.marks.len(),
            timeline.recorded.marks,
        ));
    }
    if timeline.recorded.beginning_is_missing {
        words.push_str("The beginning was longer than what is kept, and is missing. ");
    }
    words.trim_end().to_owned()
}

/// Faults, losses, deaths and violations in the order in which they happened: when, what, and whether it is a violation.
pub(in super::super) fn events(timeline: &Timeline) -> (Vec<(u64, String, bool)>, usize) {
    let mut events: Vec<(u64, String, bool)> = timeline.marks.iter().map(fault).collect();
    for hold in &timeline.holds {
        let (Some(to), word) = (hold.to, hold.end) else { continue };
        let what = || format!("token {} of {}", token(timeline, hold), lock(timeline, hold.lock));
        match word {
            End::Lost => {
                let reason = hold.reason.as_deref().unwrap_or("for no reason that was told");
                events.push((to, format!("{} is told to be lost: {reason}", what()), false));
            }
            End::Died => events.push((to, format!("the holder of {} is gone", what()), false)),
            End::Released | End::Open => {}
        }
    }
    events.extend(timeline.violations.iter().map(|seen| {
        let place = seen.seen_at.as_ref().map(|place| format!(" (seen at {place})")).unwrap_or_default();
        (seen.at, format!("violation: {}{place}", seen.message), true)
    }));
    events.sort_by_key(|(at, ..)| *at);
    let left_out = events.len().saturating_sub(MOST);
    if left_out > 0 {
        let (mut kept, others): (Vec<_>, Vec<_>) = events.into_iter().partition(|(.., bad)| *bad);
        kept.extend(others.into_iter().take(MOST.saturating_sub(kept.len())));
        kept.sort_by_key(|(at, ..)| *at);
        events = kept;
    }
    (events, left_out)
}

fn fault(mark: &Mark) -> (u64, String, bool) {
    let on = match &*mark.on {
        "store" => "store".to_owned(),
        "messages" => "messages".to_owned(),
        "line" => format!("line {}", mark.number + 1),
        other => format!("{other} {}", mark.number),
    };
    let lasts = mark.to.map(|to| format!(", for {}", time(to - mark.from))).unwrap_or_default();
    (mark.from, format!("{on}: {}{lasts}", mark.name), false)
}

pub(super) fn lock(timeline: &Timeline, number: u32) -> &str {
    timeline.locks.get(number as usize).map_or("?", |name| name)
}

/// The token, counted from the first one of its lock: what one can read and compare.
pub(super) fn token(timeline: &Timeline, hold: &Hold) -> String {
    let of_lock = timeline.holds.iter().filter(|other| other.lock == hold.lock);
    let first = of_lock.map(|other| other.token).min().unwrap_or(hold.token);
    format!("+{}", hold.token - first + 1)
}

/// What stands on the bar.
pub(super) fn label(timeline: &Timeline, hold: &Hold) -> String {
    let token = token(timeline, hold);
    if timeline.locks.len() > 1 { format!("{} {token}", lock(timeline, hold.lock)) } else { token }
}

/// All about one hold.
pub(super) fn hold(timeline: &Timeline, hold: &Hold) -> String {
    let mode = hold.mode.as_ref().map(|mode| format!(", {mode}")).unwrap_or_default();
    let end = match (hold.end, hold.to) {
        (End::Released, Some(to)) => format!("given back at {}", time(to)),
        (End::Lost, Some(to)) => {
            format!("lost at {}: {}", time(to), hold.reason.as_deref().unwrap_or("no reason told"))
        }
        (End::Died, Some(to)) => format!("its process was killed at {}", time(to)),
        _ => "held until the end of the run".to_owned(),
    };
    let came = if hold.handed_on { "handed on" } else { "granted" };
    let answers = match (hold.answers.iter().filter(|(_, held)| *held).count(), hold.answers.len()) {
        (_, 0) => String::new(),
        (yes, all) => format!("; asked {}, {yes} times held", count(all, "time")),
    };
    format!(
        "{}, token {} ({}){mode}: {came} at {} after {}, {end}{answers}",
        lock(timeline, hold.lock),
        token(timeline, hold),
        hold.token,
        time(hold.from),
        time(hold.waited),
    )
}

/// At most so many characters, of the first line, without what the kit puts before all names of a run.
pub(super) fn shortened(text: &str, most: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = match line.split_once("\"kit/") {
        Some((before, rest)) if rest.as_bytes().get(8) == Some(&b'/') => format!("{before}\"{}", &rest[9..]),
        _ => line.to_owned(),
    };
    if line.chars().count() <= most {
        return line;
    }
    let mut short: String = line.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_short_and_means_something() {
        assert_eq!(shortened("\"kit/fc89a6bc/shared\" was granted\n  seen", 40), "\"shared\" was granted");
        assert_eq!(shortened("\"kit/ä\"", 40), "\"kit/ä\"");
        assert_eq!(shortened("äöüäöü", 4), "äöü…");
    }
}
