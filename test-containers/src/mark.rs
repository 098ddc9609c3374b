//! The mark on everything that a keeper has made: which process needs it. When that is gone, nobody does.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context as _, Result};

/// The label that has the mark.
pub(crate) const LABEL: &str = "locks.test-servers.keeper";

/// A process: the namespace of its number, its number, and when it began, since numbers are used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    namespace: String,
    process: u32,
    began: u64,
}

impl Mark {
    /// The mark of this process.
    pub(crate) fn of_this_process() -> Result<Self> {
        Self::of(std::process::id())
    }

    /// The mark of the process that keeps the keepers: for what outlives one of them.
    pub(crate) fn of_the_parent() -> Result<Self> {
        Self::of(std::os::unix::process::parent_id())
    }

    fn of(process: u32) -> Result<Self> {
        let began = began(process).with_context(|| format!("reading when process {process} began"))?;
        Ok(Self { namespace: namespace()?, process, began })
    }

    /// Whether everything with this label is without a keeper. What other machines or namespaces have made, and what can't be read, is for
    /// others to judge.
    pub(crate) fn is_left_behind(labels: Option<&HashMap<String, String>>) -> bool {
        let mark = labels.and_then(|labels| Self::read(labels.get(LABEL)?));
        let namespace = namespace().ok();
        mark.is_some_and(|mark| {
            namespace.as_ref() == Some(&mark.namespace) && began(mark.process) != Some(mark.began)
        })
    }

    /// As the label has it.
    pub(crate) fn label(&self) -> String {
        format!("{} {} {}", self.namespace, self.process, self.began)
    }

    fn read(label: &str) -> Option<Self> {
        let mut words = label.split(' ');
        let namespace = words.next()?.to_owned();
        Some(Self { namespace, process: words.next()?.parse().ok()?, began: words.next()?.parse().ok()? })
    }
}

/// "pid:[4026531836]"
fn namespace() -> Result<String> {
    let link = fs::read_link("/proc/self/ns/pid").context("reading which process namespace this is")?;
    Ok(link.to_string_lossy().into_owned())
}

/// In ticks since the machine was started. `None` if there is no such process, or it has ended and nobody has noticed yet.
fn began(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in the second field may have anything in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X").then(|| fields.nth(18)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(mark: &Mark) -> HashMap<String, String> {
        HashMap::from([(LABEL.to_owned(), mark.label())])
    }

    #[test]
    fn what_a_dead_process_made_is_left_behind() {
        let ours = Mark::of_this_process().unwrap();
        assert!(!Mark::is_left_behind(Some(&labels(&ours))));
        let before = Mark { began: ours.began - 1, ..ours.clone() };
        assert!(Mark::is_left_behind(Some(&labels(&before))));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = child.id();
        child.wait().unwrap();
        assert!(Mark::is_left_behind(Some(&labels(&Mark { process, ..ours.clone() }))));
        let elsewhere = Mark { namespace: "pid:[1]".to_owned(), ..before };
        assert!(!Mark::is_left_behind(Some(&labels(&elsewhere))));
    }

    #[test]
    fn what_has_no_mark_is_somebody_elses() {
        assert!(!Mark::is_left_behind(None));
        assert!(!Mark::is_left_behind(Some(&HashMap::new())));
        let label = HashMap::from([(LABEL.to_owned(), "x".to_owned())]);
        assert!(!Mark::is_left_behind(Some(&label)));
    }
}
