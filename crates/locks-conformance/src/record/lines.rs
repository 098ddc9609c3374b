//! The lines that the processes of a case have written, in one row.

use std::io;
use std::path::Path;

use crate::recording::{Line, What};

/// All lines of all processes.
pub(super) struct Lines {
    /// With the process that wrote each, in the order of their times.
    pub(super) all: Vec<(u32, Line)>,
    /// Whether a process had more to say than is there.
    pub(super) beginning_is_missing: bool,
}

/// Reads and removes the files whose names begin with `base`.
///
/// # Errors
///
/// If they can't be read or removed. A line that was torn by a kill counts as not written.
pub(super) fn take(base: &Path) -> io::Result<Lines> {
    let mut lines = Lines { all: Vec::new(), beginning_is_missing: false };
    let (Some(dir), Some(prefix)) = (base.parent(), base.file_name().and_then(|name| name.to_str())) else {
        return Ok(lines);
    };
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(rest) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) else { continue };
        let Some((pid, part)) = rest.split_once('.') else { continue };
        let Ok(pid) = pid.parse() else { continue };
        // A second part is there only if the first was full, and takes turns with it.
        lines.beginning_is_missing |= part == "1";
        let text = std::fs::read(&path)?;
        lines.all.extend(
            text.split(|byte| *byte == b'\n')
                .filter_map(|line| serde_json::from_slice::<Line>(line).ok())
                .map(|line| (pid, line)),
        );
        std::fs::remove_file(&path)?;
    }
    lines.all.sort_by_key(|(_, line)| line.t);
    Ok(lines)
}

impl Lines {
    /// Leaves only the last run. Lines of one that never began are all left.
    pub(super) fn keep_last_run(&mut self) {
        if let Some(last) = self.all.iter().rposition(|(_, line)| line.what == What::Began) {
            self.all.drain(..last);
        }
    }
}
