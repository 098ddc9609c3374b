//! A migration that every instance of a service starts with, and that is done once. The example starts itself as four instances.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

// region: migration
use locks::lock;

/// All wait here until the first one is done. The others find nothing left to do.
#[lock(timeout = "1m")]
async fn migrate(database: &Path) -> io::Result<bool> {
    if schema_version(database)? >= 2 {
        return Ok(false);
    }
    add_column(database)?; // commits
    Ok(true)
}
// endregion

fn schema_version(database: &Path) -> io::Result<usize> {
    Ok(fs::read_to_string(database)?.lines().count())
}

fn add_column(database: &Path) -> io::Result<()> {
    fs::OpenOptions::new().append(true).open(database)?.write_all(b"add a column\n")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Some(database) = std::env::args_os().nth(1) {
        let done = migrate(&PathBuf::from(database)).await?;
        println!("{}", if done { "migrated" } else { "nothing to do" });
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let database = directory.path().join("database");
    fs::write(&database, "create a table\n")?;

    let start = |_| {
        Command::new(std::env::current_exe()?)
            .arg(&database)
            .env("LOCKS_URL", format!("file:{}", directory.path().join("locks").display()))
            .stdout(Stdio::piped())
            .spawn()
    };
    let instances: Vec<Child> = (0..4).map(start).collect::<io::Result<_>>()?;
    let mut migrated = 0;
    for instance in instances {
        let output = instance.wait_with_output()?;
        assert!(output.status.success(), "{output:?}");
        print!("an instance: {}", String::from_utf8_lossy(&output.stdout));
        migrated += usize::from(output.stdout == b"migrated\n");
    }
    assert_eq!(migrated, 1);
    assert_eq!(fs::read_to_string(&database)?, "create a table\nadd a column\n");
    Ok(())
}
