//! The holds of a row.

use std::fmt::Write as _;

use super::super::data::{End, Hold, Timeline};
use super::super::html::Escaped;
use super::super::scale::Linear;
use super::{INTO_STRING, ROW, is_accused, words};

const HEIGHT: f64 = 13.0;

/// Holds that are narrower than this, and closer, are drawn as one.
const NARROW: f64 = 2.0;

/// Draws what these lanes held, in a row that begins at `top`.
pub(super) fn draw(svg: &mut String, timeline: &Timeline, lanes: &[u32], top: f64, scale: &Linear) {
    let end = |hold: &Hold| hold.to.unwrap_or(timeline.length);
    let mut crowd: Vec<&Hold> = Vec::new();
    let holds = timeline.holds.iter().filter(|hold| lanes.contains(&hold.lane));
    for hold in holds.filter(|hold| scale.shows(hold.from, end(hold))) {
        let (x, to) = (scale.at(hold.from), scale.at(end(hold)));
        let stands_out = is_accused(timeline, hold) || matches!(hold.end, End::Lost | End::Died);
        if to - x >= NARROW || stands_out {
            flush(svg, timeline, &mut crowd, top, scale);
            bar(svg, timeline, hold, top, scale);
            continue;
        }
        let is_close =
            crowd.last().is_some_and(|last| x - scale.at(end(last)) < NARROW && last.lock == hold.lock);
        if !is_close {
            flush(svg, timeline, &mut crowd, top, scale);
        }
        crowd.push(hold);
    }
    flush(svg, timeline, &mut crowd, top, scale);
}

/// Draws holds that are too narrow for one bar each.
fn flush(svg: &mut String, timeline: &Timeline, crowd: &mut Vec<&Hold>, top: f64, scale: &Linear) {
    match &crowd[..] {
        [] => return,
        [one] => bar(svg, timeline, one, top, scale),
        [first, .., last] => {
            let (x, to) = (scale.at(first.from), scale.at(last.to.unwrap_or(timeline.length)));
            writeln!(
                svg,
                "<rect class=\"hold l{} crowd\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{HEIGHT}\">\
                 <title>{} holds of {}, tokens {} to {}</title></rect>",
                first.lock % 6,
                top + 6.0,
                (to - x).max(1.0),
                crowd.len(),
                Escaped(words::lock(timeline, first.lock)),
                words::token(timeline, first),
                words::token(timeline, last),
            )
            .expect(INTO_STRING);
        }
    }
    crowd.clear();
}

fn bar(svg: &mut String, timeline: &Timeline, hold: &Hold, top: f64, scale: &Linear) {
    let until = hold.to.unwrap_or(timeline.length);
    let (x, to) = (scale.at(hold.from), scale.at(until));
    let (width, y) = ((to - x).max(1.5), top + 6.0);
    let class = match hold.end {
        _ if is_accused(timeline, hold) => " accused",
        End::Lost => " lost",
        End::Died => " died",
        _ => "",
    };
    let told = words::hold(timeline, hold);
    waiting(svg, hold, y + HEIGHT / 2.0, scale);
    writeln!(
        svg,
        "<g><title>{}</title><rect class=\"hold l{}{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\"/>",
        Escaped(&told),
        hold.lock % 6,
    )
    .expect(INTO_STRING);
    let label = words::label(timeline, hold);
    if width > label.chars().count() as f64 * 6.4 + 8.0 {
        writeln!(
            svg,
            "<text class=\"token\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x + 4.0,
            y + 10.5,
            Escaped(&label)
        )
        .expect(INTO_STRING);
    }
    validity(svg, hold, until, y + HEIGHT + 3.0, scale);
    if width > 12.0 {
        answers(svg, hold, y - 2.5, scale);
    }
    if hold.end == End::Lost && scale.shows(until, until) {
        writeln!(
            svg,
            "<path class=\"loss\" d=\"M{to:.1} {:.1}v{:.1}M{:.1} {:.1}h8\"/>",
            y - 3.0,
            HEIGHT + 6.0,
            to - 4.0,
            y - 3.0
        )
        .expect(INTO_STRING);
    }
    svg.push_str("</g>\n");
}

/// A thin line before the bar for as long as it was waited for.
fn waiting(svg: &mut String, hold: &Hold, y: f64, scale: &Linear) {
    let since = hold.from.saturating_sub(hold.waited);
    let (x, to) = (scale.at(since), scale.at(hold.from));
    if to - x > 4.0 {
        writeln!(svg, "<line class=\"waiting\" x1=\"{x:.1}\" x2=\"{to:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>")
            .expect(INTO_STRING);
    }
}

/// A line below the bar for as long as it counts as held, with a tick for each renewal and one where that would have ended.
fn validity(svg: &mut String, hold: &Hold, until: u64, y: f64, scale: &Linear) {
    let Some(deadline) = hold.valid.iter().map(|(_, deadline)| *deadline).max() else { return };
    // What was given back counts no more, whatever was left of it.
    let deadline = if hold.end == End::Released { deadline.min(until) } else { deadline };
    let (x, to) = (scale.at(hold.from), scale.at(deadline));
    if to - x < 6.0 {
        return;
    }
    let mut path = format!("M{x:.1} {y:.1}H{to:.1}");
    if scale.shows(deadline, deadline) && hold.end != End::Released {
        write!(path, "M{to:.1} {:.1}v5", y - 2.5).expect(INTO_STRING);
    }
    for (renewed, _) in hold.valid.iter().skip(1).filter(|(renewed, _)| *renewed <= until) {
        write!(path, "M{:.1} {:.1}v4", scale.at(*renewed), y - 4.0).expect(INTO_STRING);
    }
    writeln!(svg, "<path class=\"valid\" d=\"{path}\"/>").expect(INTO_STRING);
    for risk in hold.at_risk.iter().take(10) {
        writeln!(svg, "<circle class=\"risk\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>", scale.at(*risk))
            .expect(INTO_STRING);
    }
}

/// What the guard answered: a dot for yes, a ring for no.
fn answers(svg: &mut String, hold: &Hold, y: f64, scale: &Linear) {
    let mut last = f64::MIN;
    for (at, held) in &hold.answers {
        let x = scale.at(*at);
        if *held && x - last < 5.0 || !scale.shows(*at, *at) {
            continue;
        }
        last = x;
        let class = if *held { "yes" } else { "no" };
        writeln!(svg, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"/>").expect(INTO_STRING);
    }
}

const _: () = assert!(HEIGHT + 9.0 < ROW, "a bar and its validity fit into a row");
