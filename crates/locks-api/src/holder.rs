//! Who holds a lock.

use std::fmt;
use std::time::{Duration, SystemTime};

/// Who holds a lock, as far as the store knows: for messages to people, never for decisions.
///
/// The store names the process; after a hand-on inside that process the label and the time may be those of
/// an earlier guard. `since` is wall-clock time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The host's name.
    pub host: Option<String>,
    /// The process id on that host.
    pub pid: Option<u32>,
    /// The label the holder gave itself, see [`Lock::label`](crate::Lock::label).
    pub label: Option<String>,
    /// When the store granted the lock.
    pub since: Option<SystemTime>,
}

impl Holder {
    /// This process on this host, without a label.
    pub fn this_process() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { host: Some(host), pid: Some(std::process::id()), label: None, since: None }
    }

    /// The same holder with this label.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The same holder, holding since `since`.
    #[must_use]
    pub fn with_since(mut self, since: SystemTime) -> Self {
        self.since = Some(since);
        self
    }
}

/// Reads as "pid 4711 on db1 (backup), for 3m", with what is known.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.host) {
            (Some(pid), Some(host)) => write!(f, "pid {pid} on {host}")?,
            (Some(pid), None) => write!(f, "pid {pid}")?,
            (None, Some(host)) => write!(f, "a process on {host}")?,
            (None, None) => f.write_str("an unknown process")?,
        }
        if let Some(label) = &self.label {
            write!(f, " ({label})")?;
        }
        if let Some(age) = self.since.and_then(|since| since.elapsed().ok()) {
            write!(f, ", for {}", Rough(age))?;
        }
        Ok(())
    }
}

/// A duration in its one or two largest units.
struct Rough(Duration);

impl fmt::Display for Rough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0 => write!(f, "{}ms", self.0.subsec_millis()),
            1..60 => write!(f, "{seconds}s"),
            60..3_600 => write!(f, "{}m {}s", seconds / 60, seconds % 60),
            3_600..86_400 => write!(f, "{}h {}m", seconds / 3_600, seconds / 60 % 60),
            _ => write!(f, "{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_known() {
        assert_eq!(Holder::default().to_string(), "an unknown process");
        let holder = Holder { host: Some("db1".into()), pid: Some(7), ..Holder::default() };
        assert_eq!(holder.clone().with_label("backup").to_string(), "pid 7 on db1 (backup)");
        let since = SystemTime::now() - Duration::from_secs(3_725);
        assert_eq!(holder.with_since(since).to_string(), "pid 7 on db1, for 1h 2m");
    }
}
