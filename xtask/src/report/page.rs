//! The page as a whole.

use std::fmt::Write as _;

use super::cases;
use super::data::{Outcome, Record};
use super::environment::Environment;
use super::html::{Escaped, count};
use super::matrix::{self, Count};
use super::plots;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

const INTO_STRING: &str = "writing to a String can't fail";

/// One HTML document that needs nothing else, and may fetch nothing.
pub(super) fn page(records: &[Record], environment: &Environment) -> String {
    let total = Count::of(records.iter());
    let mut html = String::new();
    writeln!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>Conformance: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#matrix\">To the matrix</a>\n<header>\n<h1>Conformance of locks</h1>\n\
         <p class=\"sum {}\"><b>{}</b> on {}.</p>",
        total.words(),
        total.class(),
        total.words(),
        count(matrix::harnesses(records).len(), "backend"),
    )
    .expect(INTO_STRING);
    html.push_str(
        "<nav aria-label=\"Parts of the report\"><a href=\"#matrix\">Matrix</a> <a href=\"#latencies\">Latencies</a> \
         <a href=\"#leaks\">Leaks</a> <a href=\"#cases\">Cases</a> <a href=\"#environment\">Environment</a></nav>\n</header>\n<main>\n",
    );
    failures(&mut html, records);
    writeln!(
        html,
        "<section aria-labelledby=\"matrix\">\n<h2 id=\"matrix\">Matrix</h2>\n{}</section>",
        matrix::table(records)
    )
    .expect(INTO_STRING);
    writeln!(
        html,
        "<section aria-labelledby=\"latencies\">\n<h2 id=\"latencies\">Latencies</h2>\n<div class=\"plots\">\n{}</div>\n</section>",
        plots::all(records),
    )
    .expect(INTO_STRING);
    leaks(&mut html, records);
    html.push_str("<section aria-labelledby=\"cases\">\n<h2 id=\"cases\">Cases</h2>\n");
    html.push_str(LEGEND);
    html.push_str(&cases::all(records));
    html.push_str("</section>\n");
    self::environment(&mut html, environment);
    writeln!(html, "</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>").expect(INTO_STRING);
    html
}

/// What the drawings mean.
const LEGEND: &str = "<details class=\"legend\"><summary>How to read the drawings</summary>\n<ul>\n\
    <li>A row is one connection (<i>Locks</i>) of a process, a line to the store, or the store itself. Time runs to the right.</li>\n\
    <li>A bar is a hold, with its fencing token; dots before it are the time that it was waited for. The thin line below it lasts as long as its holder could count on it; a tick up is a renewal, \
    a tick at its end the deadline. A spot on that line says that the holder was told to be at risk.</li>\n\
    <li>Above a bar, a dot is a guard that says that it holds, a ring one that says that it does not.</li>\n\
    <li>A bar that ends in a cross-bar was lost, and its holder told so; a dashed one ended when its process was killed.</li>\n\
    <li>A hatched stretch or a cross is a fault: a process stopped or killed, a line silent or cut, the store restarted.</li>\n\
    <li>Red is a violation: the line where it was seen, the holds that it is about, the stretch in which two held at once.</li>\n\
    </ul></details>\n";

/// What failed, above everything else.
fn failures(html: &mut String, records: &[Record]) {
    let failed: Vec<&Record> = records.iter().filter(|record| record.outcome == Outcome::Failed).collect();
    if failed.is_empty() {
        return;
    }
    html.push_str("<section class=\"failures\" aria-labelledby=\"failures\">\n<h2 id=\"failures\">Violations</h2>\n<ul>\n");
    for record in failed {
        let why = record.why.as_deref().unwrap_or_default();
        writeln!(
            html,
            "<li><a href=\"#{}\">{} on {}</a><br>{}</li>",
            cases::anchor(record),
            Escaped(&record.case),
            Escaped(&record.harness),
            Escaped(why.lines().next().unwrap_or_default()),
        )
        .expect(INTO_STRING);
    }
    html.push_str("</ul>\n</section>\n");
}

fn leaks(html: &mut String, records: &[Record]) {
    let censuses: Vec<_> = records
        .iter()
        .filter_map(|record| Some((record, record.timeline.as_ref()?.census.as_ref()?)))
        .collect();
    let leaking: Vec<_> = censuses.iter().filter(|(_, census)| !census.leaks.is_empty()).collect();
    writeln!(
        html,
        "<section aria-labelledby=\"leaks\">\n<h2 id=\"leaks\">Leaks</h2>\n<p>Threads, descriptors and tasks were counted before \
         and after {}; {} left something behind.</p>",
        count(censuses.len(), "case"),
        if leaking.is_empty() { "none".to_owned() } else { leaking.len().to_string() },
    )
    .expect(INTO_STRING);
    if !leaking.is_empty() {
        html.push_str("<ul>\n");
        for (record, census) in leaking {
            writeln!(
                html,
                "<li><a href=\"#{}\">{} on {}</a>: {}</li>",
                cases::anchor(record),
                Escaped(&record.case),
                Escaped(&record.harness),
                Escaped(&census.leaks.join(", ")),
            )
            .expect(INTO_STRING);
        }
        html.push_str("</ul>\n");
    }
    html.push_str("</section>\n");
}

fn environment(html: &mut String, environment: &Environment) {
    html.push_str("<section aria-labelledby=\"environment\">\n<h2 id=\"environment\">Environment</h2>\n<dl class=\"facts\">\n");
    for (what, which) in &environment.0 {
        writeln!(html, "<div><dt>{}</dt><dd>{}</dd></div>", Escaped(what), Escaped(which))
            .expect(INTO_STRING);
    }
    html.push_str("</dl>\n</section>\n");
}
