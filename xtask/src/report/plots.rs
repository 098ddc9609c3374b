//! How long things took, as curves: which share of all was done after which time.

use std::fmt::Write as _;

use super::data::{Latencies, Record};
use super::html::{Escaped, time};
use super::matrix::harnesses;
use super::scale::Logarithmic;

const INTO_STRING: &str = "writing to a String can't fail";

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 46.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 226.0;

/// The most lines of a plot: more could not be told apart.
const MOST: usize = 8;

/// A kind of latency.
struct Kind {
    id: &'static str,
    title: &'static str,
    about: &'static str,
    values: fn(&Latencies) -> &[u64],
    /// Only from runs in which nothing went wrong.
    undisturbed: bool,
}

/// The values of one backend.
struct Series<'a> {
    number: usize,
    harness: &'a str,
    values: Vec<u64>,
}

const KINDS: [Kind; 3] = [
    Kind {
        id: "wake",
        title: "Wake-up",
        about: "From a release to the grant of whoever waited, through the store, in cases without faults.",
        values: |latencies| &latencies.wake,
        undisturbed: true,
    },
    Kind {
        id: "takeover",
        title: "After a death",
        about: "From the kill of a holder to the next grant: at once, or after the ttl (about 2 s here) where only that frees the lock.",
        values: |latencies| &latencies.takeover,
        undisturbed: false,
    },
    Kind {
        id: "loss",
        title: "Loss",
        about: "From the latest fault to the moment when a holder was told that its lock is lost. A stopped process can hear of it only when it goes on.",
        values: |latencies| &latencies.loss,
        undisturbed: false,
    },
];

/// All plots, each with its numbers as a table.
pub(super) fn all(records: &[Record]) -> String {
    let mut html = String::new();
    for kind in &KINDS {
        // Each has the same colour in all plots.
        let series: Vec<Series<'_>> = (0..)
            .zip(harnesses(records))
            .map(|(number, harness)| {
                let of_harness = records.iter().filter(|record| record.harness == harness);
                Series { number: number % MOST, harness, values: values(kind, of_harness) }
            })
            .filter(|series| !series.values.is_empty())
            .take(MOST)
            .collect();
        if !series.is_empty() {
            plot(&mut html, kind, &series);
        }
    }
    if html.is_empty() {
        html.push_str(
            "<p>Nothing was measured: no case in which somebody waited, died or lost a lock was run.</p>\n",
        );
    }
    html
}

fn values<'a>(kind: &Kind, records: impl Iterator<Item = &'a Record>) -> Vec<u64> {
    let timelines = records.filter_map(|record| record.timeline.as_ref());
    let mut values: Vec<u64> = timelines
        .filter(|timeline| !kind.undisturbed || timeline.marks.is_empty())
        .flat_map(|timeline| (kind.values)(&timeline.latencies).iter().copied())
        .collect();
    values.sort_unstable();
    values
}

fn plot(html: &mut String, kind: &Kind, series: &[Series<'_>]) {
    let all = series.iter().flat_map(|series| series.values.iter().copied());
    let scale = Logarithmic::around(all, LEFT, WIDTH - LEFT - 16.0);
    let (key, title) = (kind.id, kind.title);
    writeln!(
        html,
        "<section class=\"plot\" aria-labelledby=\"plot-{key}\">\n<h3 id=\"plot-{key}\">{title}</h3>\n<p>{}</p>\n\
         <div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{title}, drawn\">\n\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}: share of all over time, by backend; \
         the table has the numbers\">",
        Escaped(kind.about),
    )
    .expect(INTO_STRING);
    for decade in scale.first..=scale.last {
        let x = scale.at(10_u64.pow(decade));
        let anchor = if decade == scale.last { "end" } else { "middle" };
        writeln!(
            html,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            BOTTOM + 18.0,
            round(decade),
        )
        .expect(INTO_STRING);
    }
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let y = BOTTOM - share * (BOTTOM - TOP);
        writeln!(
            html,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0} %</text>",
            WIDTH - 16.0,
            LEFT - 6.0,
            y + 4.0,
            share * 100.0
        )
        .expect(INTO_STRING);
    }
    for Series { number, harness, values } in series {
        writeln!(
            html,
            "<path class=\"curve s{number}\" d=\"{}\"><title>{}</title></path>",
            curve(values, &scale),
            Escaped(harness)
        )
        .expect(INTO_STRING);
    }
    html.push_str("</svg>\n</div>\n");
    numbers(html, kind, series);
    html.push_str("</section>\n");
}

/// Steps: at each value the share of those that are no longer.
fn curve(values: &[u64], scale: &Logarithmic) -> String {
    let y = |done: usize| BOTTOM - (BOTTOM - TOP) * done as f64 / values.len() as f64;
    let first = values.first().copied().unwrap_or(1);
    let mut path = format!("M{:.1} {BOTTOM:.1}", scale.at(first));
    let every = values.len().div_ceil(200);
    for (index, value) in values.iter().enumerate() {
        if index % every == 0 || index + 1 == values.len() {
            write!(path, "H{:.1}V{:.1}", scale.at(*value), y(index + 1)).expect(INTO_STRING);
        }
    }
    path
}

fn numbers(html: &mut String, kind: &Kind, series: &[Series<'_>]) {
    writeln!(
        html,
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{0}, as a table\"><table class=\"numbers\">\
         <thead><tr><th scope=\"col\">backend</th><th scope=\"col\">times</th><th scope=\"col\">half</th>\
         <th scope=\"col\">90 %</th><th scope=\"col\">99 %</th><th scope=\"col\">all</th></tr></thead><tbody>",
        kind.title,
    )
    .expect(INTO_STRING);
    for Series { number, harness, values } in series {
        let at = |share: f64| {
            let index = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1;
            time(values[index])
        };
        writeln!(
            html,
            "<tr><th scope=\"row\"><svg class=\"key\" viewBox=\"0 0 24 8\" aria-hidden=\"true\"><path class=\"curve s{number}\" d=\"M0 4H24\"/></svg>\
             {}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            Escaped(harness),
            values.len(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0),
        )
        .expect(INTO_STRING);
    }
    html.push_str("</tbody></table></div>\n");
}

fn round(decade: u32) -> String {
    let units = ["µs", "ms", "s"];
    let (unit, rest) = ((decade / 3).min(2), decade - (decade / 3).min(2) * 3);
    format!("{} {}", 10_u64.pow(rest), units[unit as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_have_units() {
        assert_eq!(
            [0, 2, 3, 5, 6, 8, 9].map(round),
            ["1 µs", "100 µs", "1 ms", "100 ms", "1 s", "100 s", "1000 s"]
        );
    }

    #[test]
    fn a_curve_ends_at_the_top() {
        let scale = Logarithmic::around([10, 1_000].into_iter(), 0.0, 30.0);
        assert_eq!(curve(&[10, 100], &scale), "M0.0 226.0H0.0V119.0H10.0V12.0");
    }
}
