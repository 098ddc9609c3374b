//! Whether processes that take turns still get any.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use crate::history::{Event, Op, Phase};
use crate::verdict::{Verdict, eventually};

/// Counts the grants in a history that is being written.
pub(super) struct Grants {
    /// How many processes take turns.
    workers: usize,
    seen: usize,
    offset: u64,
}

impl Grants {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, seen: 0, offset: 0 }
    }

    /// Waits for more new grants than can have been under way.
    pub(super) async fn go_on(&mut self, path: &Path, limit: Duration) -> Verdict {
        let enough = self.count(path)? + self.workers + 1;
        eventually(limit, "grants that go on", || self.count(path).is_ok_and(|seen| seen >= enough)).await
    }

    fn count(&mut self, path: &Path) -> std::io::Result<usize> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(self.seen),
            opened => opened?,
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut lines = BufReader::new(file);
        let mut line = String::new();
        // What is written is written whole.
        while lines.read_line(&mut line)? > 0 {
            let event: Event = serde_json::from_str(&line)?;
            self.seen += usize::from(event.op == Op::Acquire && event.phase == Phase::Ok);
            self.offset += line.len() as u64;
            line.clear();
        }
        Ok(self.seen)
    }
}
