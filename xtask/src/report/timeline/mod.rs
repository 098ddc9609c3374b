//! Who held what when, drawn: lanes for processes, bars for holds, and what went wrong where it did.

mod bars;
mod rows;
mod words;

use std::fmt::Write as _;

use super::data::{End, Hold, Mark, Record, Timeline};
use super::html::{Escaped, id, time};
use super::scale::Linear;
use rows::{Row, Rows};

pub(super) use words::events;

/// The width of a drawing, of which the names of rows take up the left.
const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 168.0;
const RIGHT: f64 = 24.0;
const ROW: f64 = 30.0;
const AXIS: f64 = 30.0;

/// Whether a run has anything that a drawing would show better than a number.
pub(super) fn is_telling(record: &Record) -> bool {
    let Some(timeline) = &record.timeline else { return false };
    let has_more_than_one_process = timeline.lanes.iter().any(|lane| lane.process > 0);
    let went_wrong = !timeline.marks.is_empty() || !timeline.violations.is_empty();
    let ended_badly = timeline.holds.iter().any(|hold| hold.end == End::Lost || hold.end == End::Died);
    !timeline.holds.is_empty() && (has_more_than_one_process || ended_badly) || went_wrong
}

/// The run as a figure with one drawing, or, if what went wrong took a small part of it, with a second one of that part.
pub(super) fn figure(record: &Record) -> String {
    let Some(timeline) = &record.timeline else { return String::new() };
    let mut figure = String::from("<figure class=\"timeline\">\n");
    let whole = (0, timeline.length.max(1));
    figure.push_str(&drawing(record, timeline, whole, "timeline"));
    if let Some(part) = close_up(timeline) {
        let scale = Linear { from: part.0, to: part.1, left: LEFT, width: WIDTH };
        let (from, to) = (scale.label(part.0), scale.label(part.1));
        writeln!(figure, "<p class=\"part\">The same from {from} to {to}:</p>").expect(INTO_STRING);
        figure.push_str(&drawing(record, timeline, part, "close-up"));
    }
    let caption = words::caption(timeline);
    writeln!(figure, "<figcaption>{}</figcaption>\n</figure>", Escaped(&caption)).expect(INTO_STRING);
    figure
}

const INTO_STRING: &str = "writing to a String can't fail";

/// The part of a long run around its first violation, or of a crowded one around the first fault.
fn close_up(timeline: &Timeline) -> Option<(u64, u64)> {
    let part = match timeline.violations.first() {
        Some(seen) => {
            let accused = timeline.holds.iter().filter(|hold| is_accused(timeline, hold));
            let from = accused.map(|hold| hold.from).min().unwrap_or(seen.at).min(seen.at);
            let around = ((seen.at - from) / 2).max(timeline.length / 200).max(50);
            (from.saturating_sub(around), (seen.at + around).min(timeline.length))
        }
        None if timeline.holds.len() > CROWDED => {
            // Near enough to the beginning that no hold is missing.
            let marks = timeline.marks.iter().map(|mark| mark.from);
            let first = marks.filter(|from| timeline.holds[AHEAD].from <= *from).min().unwrap_or(0);
            let at = timeline.holds.partition_point(|hold| hold.from < first).min(CROWDED - BEHIND);
            (timeline.holds[at.saturating_sub(AHEAD)].from, timeline.holds[at + BEHIND].from)
        }
        None => return None,
    };
    // One that shows nothing but the violation itself adds nothing.
    let shows = |hold: &Hold| hold.from <= part.1 && hold.to.unwrap_or(timeline.length) >= part.0;
    let is_small = (part.1 - part.0) * 8 < timeline.length;
    (is_small && timeline.holds.iter().any(shows)).then_some(part)
}

/// More holds than this can't be told apart in one drawing. So many are there without gaps at the beginning of any run.
const CROWDED: usize = 250;

/// How many holds before and after the first fault are drawn.
const AHEAD: usize = 10;
const BEHIND: usize = 25;

/// Whether a violation names this hold.
fn is_accused(timeline: &Timeline, hold: &Hold) -> bool {
    timeline
        .violations
        .iter()
        .any(|seen| seen.tokens.contains(&hold.token) && seen.lock.is_none_or(|lock| lock == hold.lock))
}

/// The room above the rows: what is written beside a violation needs some.
fn head(timeline: &Timeline) -> f64 {
    if timeline.violations.is_empty() { 6.0 } else { 26.0 }
}

/// The stretches of a failed run in which a lock was held twice, by holds that exclude each other, with the two.
fn held_twice(timeline: &Timeline) -> Vec<(u64, u64, &Hold, &Hold)> {
    if timeline.violations.is_empty() {
        return Vec::new();
    }
    let end = |hold: &Hold| hold.to.unwrap_or(timeline.length);
    let mut twice = Vec::new();
    for (index, one) in timeline.holds.iter().enumerate() {
        for other in &timeline.holds[index + 1..] {
            if other.from >= end(one) {
                break;
            }
            let until = end(one).min(end(other));
            let exclude = one.mode.is_none() && other.mode.is_none() && one.lock == other.lock;
            // One of them must be accused: what is told about the end of a hold may come a moment late.
            if exclude && until > other.from && (is_accused(timeline, one) || is_accused(timeline, other)) {
                twice.push((other.from, until, one, other));
            }
        }
    }
    twice.truncate(50);
    twice
}

fn drawing(record: &Record, timeline: &Timeline, window: (u64, u64), what: &str) -> String {
    let scale = Linear { from: window.0, to: window.1, left: LEFT, width: WIDTH - LEFT - RIGHT };
    let (rows, head) = (Rows::of(timeline), head(timeline));
    let bottom = head + ROW * rows.all.len() as f64;
    let height = bottom + AXIS;
    let key = id(&[&record.harness, &record.case, what]);
    let mut svg = String::new();
    let title = format!("Timeline of {} on {}", record.case, record.harness);
    writeln!(
        svg,
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{title}\">\n\
         <svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"{key}-t {key}-d\">\n\
         <title id=\"{key}-t\">{title}</title>\n<desc id=\"{key}-d\">{}</desc>",
        Escaped(&words::description(timeline)),
        title = Escaped(&title),
    )
    .expect(INTO_STRING);
    axis(&mut svg, &scale, head, bottom);
    for (number, row) in rows.all.iter().enumerate() {
        let top = head + ROW * number as f64;
        let middle = top + ROW / 2.0 + 4.0;
        writeln!(
            svg,
            "<line class=\"rule\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{0}\" y2=\"{0}\"/>\
             <text class=\"row\" x=\"4\" y=\"{middle}\">{1}</text>",
            top + ROW,
            Escaped(&row.label()),
        )
        .expect(INTO_STRING);
    }
    twice(&mut svg, timeline, &rows, &scale);
    faults(&mut svg, timeline, &rows, &scale, bottom);
    for (number, row) in rows.all.iter().enumerate() {
        if let Row::Lanes { lanes, .. } = row {
            bars::draw(&mut svg, timeline, lanes, head + ROW * number as f64, &scale);
        }
    }
    sightings(&mut svg, timeline, &scale, bottom);
    svg.push_str("</svg>\n</div>\n");
    if rows.left_out > 0 {
        writeln!(svg, "<p class=\"part\">{} more rows are in report.json.</p>", rows.left_out)
            .expect(INTO_STRING);
    }
    svg
}

fn axis(svg: &mut String, scale: &Linear, head: f64, bottom: f64) {
    for tick in scale.ticks() {
        let x = scale.at(tick);
        let anchor = if x > WIDTH - 60.0 { "end" } else { "middle" };
        writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{head}\" y2=\"{bottom}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            bottom + 18.0,
            scale.label(tick),
        )
        .expect(INTO_STRING);
    }
}

/// Red where two hold at once.
fn twice(svg: &mut String, timeline: &Timeline, rows: &Rows, scale: &Linear) {
    for (from, to, one, other) in held_twice(timeline) {
        if !scale.shows(from, to) {
            continue;
        }
        let (Some(a), Some(b)) = (rows.row_of(one.lane), rows.row_of(other.lane)) else { continue };
        let (x, end) = (scale.at(from), scale.at(to));
        writeln!(
            svg,
            "<rect class=\"twice\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\">\
             <title>held twice, from {} to {}: tokens {} and {}</title></rect>",
            head(timeline) + ROW * a.min(b) as f64,
            (end - x).max(2.0),
            ROW * (a.abs_diff(b) + 1) as f64,
            time(from),
            time(to),
            one.token,
            other.token,
        )
        .expect(INTO_STRING);
    }
}

fn faults(svg: &mut String, timeline: &Timeline, rows: &Rows, scale: &Linear, bottom: f64) {
    let head = head(timeline);
    let mut in_rows: Vec<Vec<&Mark>> = vec![Vec::new(); rows.all.len()];
    for mark in &timeline.marks {
        if let Some(row) =
            rows.row_of_mark(mark).filter(|_| scale.shows(mark.from, mark.to.unwrap_or(mark.from)))
        {
            in_rows[row].push(mark);
        }
    }
    for (row, marks) in in_rows.iter().enumerate() {
        let top = head + ROW * row as f64;
        let mut free_from = LEFT;
        for (index, mark) in marks.iter().enumerate() {
            fault(svg, mark, scale, top);
            let (x, end) = (scale.at(mark.from), scale.at(mark.to.unwrap_or(mark.from)));
            if mark.on == "store" {
                writeln!(
                    svg,
                    "<line class=\"struck\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>"
                )
                .expect(INTO_STRING);
            }
            // Written where there is room before the next one, and not over the bars of a process.
            let width = mark.name.chars().count() as f64 * 6.9 + 6.0;
            let room_to = marks.get(index + 1).map_or(WIDTH, |next| scale.at(next.from) - 4.0);
            let inside = if mark.to.is_some() && end - x > width { x + 4.0 } else { end + 7.0 };
            let (at, anchor) = if inside + width <= room_to.min(WIDTH) {
                (inside, "start")
            } else if x - 6.0 - width > free_from {
                (x - 6.0, "end")
            } else {
                free_from = free_from.max(end + 6.0);
                continue;
            };
            free_from = (if anchor == "start" { at + width } else { at }).max(end + 6.0);
            if mark.on != "process" {
                writeln!(
                    svg,
                    "<text class=\"what\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                    top + 19.0,
                    Escaped(&mark.name),
                )
                .expect(INTO_STRING);
            }
        }
    }
}

/// A stretch, or a cross.
fn fault(svg: &mut String, mark: &Mark, scale: &Linear, top: f64) {
    let x = scale.at(mark.from);
    let Some(to) = mark.to else {
        let said = format!("{}, at {}", mark.name, time(mark.from));
        let (left, right, high, low) = (x - 4.0, x + 4.0, top + 11.0, top + 19.0);
        writeln!(
            svg,
            "<path class=\"strike\" d=\"M{left:.1} {high:.1}L{right:.1} {low:.1}M{left:.1} {low:.1}L{right:.1} {high:.1}\"><title>{}</title></path>",
            Escaped(&said),
        )
        .expect(INTO_STRING);
        return;
    };
    let said = format!("{}, from {} to {}", mark.name, time(mark.from), time(to));
    writeln!(
        svg,
        "<rect class=\"fault\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
        top + 3.0,
        (scale.at(to) - x).max(2.0),
        ROW - 6.0,
        Escaped(&said),
    )
    .expect(INTO_STRING);
}

/// A red line through everything where something was seen to be wrong, and what.
fn sightings(svg: &mut String, timeline: &Timeline, scale: &Linear, bottom: f64) {
    for seen in &timeline.violations {
        if !scale.shows(seen.at, seen.at) {
            continue;
        }
        let x = scale.at(seen.at);
        let message = Escaped(&seen.message);
        let (anchor, at) = if x > WIDTH / 2.0 { ("end", x - 5.0) } else { ("start", x + 5.0) };
        let room = if anchor == "end" { at } else { WIDTH - at };
        let short = words::shortened(&seen.message, (room / 7.2) as usize);
        writeln!(
            svg,
            "<g class=\"violation\"><title>violation at {}: {message}</title>\
             <line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"4\" y2=\"{bottom}\"/>\
             <path d=\"M{:.1} 4L{:.1} 4L{x:.1} 14Z\"/>\
             <text x=\"{at:.1}\" y=\"15\" text-anchor=\"{anchor}\">{}</text></g>",
            time(seen.at),
            x - 6.0,
            x + 6.0,
            Escaped(&short),
        )
        .expect(INTO_STRING);
    }
}
