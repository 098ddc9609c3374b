//! The report that people look at: one HTML file, and the same as JSON, made from the records of the kit.

mod browser;
mod cases;
mod data;
mod environment;
mod html;
mod matrix;
mod page;
mod plots;
pub(crate) mod proven;
mod scale;
mod timeline;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

pub(crate) use browser::prepare as prepare_browser;
pub(crate) use data::Record;
pub(crate) use environment::Environment;

/// Writes `report.json` and `report.html` into `to`, from the records in `from`.
///
/// # Errors
///
/// If there are no records, or a file can't be read or written.
pub(crate) fn write(from: &Path, to: &Path, environment: &Environment) -> Result<Vec<Record>> {
    let (values, records): (Vec<_>, Vec<_>) = data::read(from)?.into_iter().unzip();
    let whole = serde_json::json!({ "version": 1, "environment": environment, "records": values });
    let json = to.join("report.json");
    fs::write(&json, format!("{whole}\n")).with_context(|| format!("can't write {}", json.display()))?;
    let html = to.join("report.html");
    fs::write(&html, page::page(&records, environment))
        .with_context(|| format!("can't write {}", html.display()))?;
    println!("report: {}, {}", html.display(), json.display());
    Ok(records)
}

/// Opens the report in a browser at each width, says what that finds, and puts pictures beside it: of its beginning, of its plots, and of the case in which
/// most went wrong.
///
/// # Errors
///
/// If there is no browser, or it finds something wrong.
pub(crate) fn take_pictures(reports: &Path, records: &[Record]) -> Result<()> {
    let mut wrong = Vec::new();
    for screen in browser::SCREENS {
        let picture = |what: &str| reports.join(format!("report-{}-{what}.png", screen.width));
        let mut pictures =
            vec![(String::new(), picture("matrix")), ("latencies".to_owned(), picture("latencies"))];
        pictures.extend(cases::worst(records).map(|case| (cases::anchor(case), picture("case"))));
        let found = browser::open(&reports.join("report.html"), screen, &pictures)?;
        let (drawings, violations) = (found.drawings, found.violations);
        println!("{} pixels wide: {drawings} drawings, {violations} of them with a violation", screen.width);
        wrong.extend(found.complaints());
    }
    if !wrong.is_empty() {
        bail!("the report is wrong: {}", wrong.join("; "));
    }
    Ok(())
}
