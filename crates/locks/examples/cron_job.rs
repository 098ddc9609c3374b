//! A job that cron starts every minute, and that is skipped while its last run is not over. The example plays cron, too: it starts itself as two runs.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

// region: cron
use locks::{Outcome, trylock};

/// Takes longer than a minute now and then.
#[trylock]
fn import() -> std::io::Result<u32> {
    println!("importing");
    std::io::stdin().read_to_end(&mut Vec::new())?; // the work
    Ok(3)
}

fn job() -> std::io::Result<()> {
    match import()? {
        Outcome::Ran(files) => println!("imported {files} files"),
        Outcome::Skipped(busy) => println!("skipped: {busy}"), // held by pid 4711 on db1, for 3m 2s
    }
    Ok(())
}
// endregion

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().len() > 1 {
        return Ok(job()?);
    }
    let directory = tempfile::tempdir()?;
    let start = || -> std::io::Result<Child> {
        Command::new(std::env::current_exe()?)
            .arg("run")
            .env("LOCKS_URL", format!("file:{}", directory.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    };

    let mut long = start()?;
    let mut line = String::new();
    let mut said = BufReader::new(long.stdout.take().ok_or("no output")?);
    said.read_line(&mut line)?; // it runs now
    assert_eq!(line, "importing\n");

    let next = start()?.wait_with_output()?;
    print!("the next run: {}", String::from_utf8_lossy(&next.stdout));
    assert!(next.stdout.starts_with(b"skipped: "), "{next:?}");

    long.stdin.take().ok_or("no input")?.flush()?; // dropped, which ends the work
    said.read_line(&mut line)?;
    assert!(line.ends_with("imported 3 files\n"), "{line}");
    assert!(long.wait()?.success());
    println!("the long run: imported 3 files");

    let after = start()?.wait_with_output()?;
    assert!(after.stdout.ends_with(b"imported 3 files\n"), "{after:?}");
    println!("the run after that: it ran");
    Ok(())
}
