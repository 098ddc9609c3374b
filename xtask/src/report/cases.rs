//! The cases one by one, behind the matrix.

use std::fmt::Write as _;

use super::data::{Latencies, Outcome, Record, Timeline};
use super::html::{Escaped, count, id, time};
use super::matrix::{Count, groups, harnesses};
use super::timeline;

const INTO_STRING: &str = "writing to a String can't fail";

/// All cases, by backend and group.
pub(super) fn all(records: &[Record]) -> String {
    let mut html = String::new();
    for harness in harnesses(records) {
        let of_harness: Vec<&Record> = records.iter().filter(|record| record.harness == harness).collect();
        writeln!(
            html,
            "<section class=\"backend\" aria-labelledby=\"{0}\">\n<h2 id=\"{0}\">{1} <small>{2}</small></h2>",
            id(&["b", harness]),
            Escaped(harness),
            Count::of(of_harness.iter().copied()).words(),
        )
        .expect(INTO_STRING);
        for group in groups(records) {
            let cases: Vec<&Record> =
                of_harness.iter().copied().filter(|record| record.group == group).collect();
            if !cases.is_empty() {
                self::group(&mut html, harness, group, &cases);
            }
        }
        html.push_str("</section>\n");
    }
    html
}

/// The address of a case on the page.
pub(super) fn anchor(record: &Record) -> String {
    id(&["c", &record.harness, &record.case])
}

/// The case in which most went wrong: one that failed, or else the one with most faults.
pub(super) fn worst(records: &[Record]) -> Option<&Record> {
    records.iter().filter(|record| timeline::is_telling(record)).max_by_key(|record| {
        let marks = record.timeline.as_ref().map_or(0, |timeline| timeline.marks.len());
        (record.outcome == Outcome::Failed, marks)
    })
}

fn group(html: &mut String, harness: &str, group: &str, cases: &[&Record]) {
    let count = Count::of(cases.iter().copied());
    // What failed is open from the start.
    let open = if count.failed > 0 { " open" } else { "" };
    writeln!(
        html,
        "<details class=\"group {}\" id=\"{}\"{open}>\n<summary><h3>{}</h3> <small>{}</small></summary>",
        count.class(),
        id(&["g", harness, group]),
        Escaped(group),
        count.words(),
    )
    .expect(INTO_STRING);
    for record in cases {
        case(html, record);
    }
    html.push_str("</details>\n");
}

fn case(html: &mut String, record: &Record) {
    let (class, word) = match record.outcome {
        Outcome::Passed => ("passed", "passed"),
        Outcome::Failed => ("failed", "failed"),
        Outcome::Ignored => ("ignored", "left out"),
    };
    let open = if record.outcome == Outcome::Failed { " open" } else { "" };
    writeln!(
        html,
        "<details class=\"case {class}\" id=\"{}\"{open}>\n<summary><span class=\"badge\">{word}</span> \
         <span class=\"name\">{}</span> <small>{}</small></summary>\n<p>{}.</p>",
        anchor(record),
        Escaped(&record.name().replace('_', " ")),
        match record.outcome {
            Outcome::Ignored => String::new(),
            _ => time((record.seconds * 1e6) as u64),
        },
        Escaped(&capitalized(&record.about)),
    )
    .expect(INTO_STRING);
    if let Some(why) = &record.why {
        match record.outcome {
            Outcome::Ignored => writeln!(html, "<p class=\"why\">{}.</p>", Escaped(&capitalized(why))),
            _ => writeln!(html, "<pre class=\"why\" tabindex=\"0\">{}</pre>", Escaped(why)),
        }
        .expect(INTO_STRING);
    }
    if let Some(twin) = &record.twin {
        let target = id(&["c", &record.harness, twin]);
        writeln!(html, "<p><a href=\"#{target}\">{}</a></p>", Escaped(twin)).expect(INTO_STRING);
    }
    if let Some(timeline) = &record.timeline {
        if timeline::is_telling(record) {
            html.push_str(&timeline::figure(record));
            events(html, timeline);
        }
        facts(html, record, timeline);
    }
    html.push_str("</details>\n");
}

/// What the drawing shows, as a list.
fn events(html: &mut String, timeline: &Timeline) {
    let (events, left_out) = timeline::events(timeline);
    if events.is_empty() {
        return;
    }
    writeln!(
        html,
        "<details class=\"events\"><summary>{} in words</summary>\n<ol>",
        count(events.len(), "event")
    )
    .expect(INTO_STRING);
    for (at, what, is_bad) in events {
        let class = if is_bad { " class=\"bad\"" } else { "" };
        writeln!(html, "<li{class}><time>{}</time> {}</li>", time(at), Escaped(&what)).expect(INTO_STRING);
    }
    if left_out > 0 {
        writeln!(html, "<li>and {left_out} more, in report.json</li>").expect(INTO_STRING);
    }
    html.push_str("</ol></details>\n");
}

fn facts(html: &mut String, record: &Record, timeline: &Timeline) {
    let Latencies { wake, loss, takeover } = &timeline.latencies;
    html.push_str("<dl class=\"facts\">\n");
    let mut fact = |what: &str, which: String| {
        writeln!(html, "<div><dt>{what}</dt><dd>{}</dd></div>", Escaped(&which)).expect(INTO_STRING);
    };
    if record.runs > 1 {
        fact("runs", format!("{}, of which the last is shown", record.runs));
    }
    if timeline.recorded.holds > 0 {
        fact("holds", timeline.recorded.holds.to_string());
    }
    for (what, values) in
        [("woken after", wake), ("told of a loss after", loss), ("next grant after a death", takeover)]
    {
        if let (Some(median), Some(longest)) = (values.get(values.len() / 2), values.last()) {
            let text = match values.len() {
                1 => time(*median),
                all => format!("{} in the middle of {all}, {} at most", time(*median), time(*longest)),
            };
            fact(what, text);
        }
    }
    if let Some(census) = &timeline.census {
        let left = match &census.leaks[..] {
            [] => "nothing left behind".to_owned(),
            leaks => format!("LEFT BEHIND: {}", leaks.join(", ")),
        };
        let numbers = match census.before == census.after {
            true => census.after.clone(),
            false => format!("before: {}; after: {}", census.before, census.after),
        };
        fact("census", format!("{left} ({numbers})"));
    }
    html.push_str("</dl>\n");
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}
