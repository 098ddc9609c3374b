//! One core first: what is measured then is the cost of the software alone, repeatable within a few per cent. Two beside it.

use std::fmt;

use anyhow::{Context as _, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that a measurement may use.
pub(crate) struct Cores(Vec<usize>);

/// One core, and two if there are two.
pub(crate) fn choices() -> Result<Vec<Cores>> {
    let allowed = sched_getaffinity(None).context("can't tell which cores may be used")?;
    let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    Ok([1, 2].into_iter().filter_map(|count| all.get(..count)).map(|cores| Cores(cores.to_vec())).collect())
}

impl Cores {
    /// Keeps this thread, and all threads and processes that it starts from now on, on these cores.
    pub(crate) fn use_only_these(&self) -> Result<()> {
        keep(None, &self.0)
    }

    /// Measures with this thread, and all that it starts meanwhile, on the first of these cores and the server on the last.
    pub(crate) fn with(&self, server: Pid, measure: impl FnOnce() -> Result<()>) -> Result<()> {
        keep(None, self.0.get(..1).unwrap_or_default())?;
        keep(Some(server), self.0.last().map(std::slice::from_ref).unwrap_or_default())?;
        measure()?;
        self.use_only_these()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// Keeps a thread on these cores.
fn keep(thread: Option<Pid>, cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cores {
        set.set(cpu);
    }
    sched_setaffinity(thread, &set).context("can't choose the cores")
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            1 => f.write_str("1 core"),
            count => write!(f, "{count} cores"),
        }
    }
}
