//! This program, started again as another process that is told line by line what to do.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Ends by itself once nobody talks to it any more.
pub(crate) struct Child {
    process: std::process::Child,
    told: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Child {
    pub(crate) fn start(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe().context("can't find this program")?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("can't start this program again")?;
        let told = process.stdin.take().context("a child's input is not piped")?;
        let says = BufReader::new(process.stdout.take().context("a child's output is not piped")?);
        Ok(Self { process, told, says })
    }

    /// Says a line to it.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.told, "{line}").with_context(|| format!("can't tell a child to {line}"))
    }

    /// Waits for a line from it.
    pub(crate) fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        self.says.read_line(&mut line).context("can't hear a child")?;
        ensure!(line.ends_with('\n'), "a child ended early");
        Ok(line)
    }

    /// Waits for a line of whole numbers from it.
    pub(crate) fn numbers(&mut self) -> Result<Vec<u64>> {
        let line = self.hear()?;
        let numbers = line.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        numbers.with_context(|| format!("a child said {line:?}"))
    }

    /// Lets it end, and waits until it has.
    pub(crate) fn end(self) -> Result<()> {
        let Self { mut process, told, says } = self;
        drop(told);
        let status = process.wait().context("can't wait for a child")?;
        drop(says);
        ensure!(status.success(), "a child failed: {status}");
        Ok(())
    }
}
