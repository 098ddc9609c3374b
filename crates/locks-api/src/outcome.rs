//! What came of a body that runs only if its lock is free.

use crate::busy::Busy;

/// What came of a body that runs only if its lock is free. A skip can't be confused with anything the body returns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the body may have been skipped"]
#[expect(clippy::exhaustive_enums, reason = "it ran or it did not")]
pub enum Outcome<T> {
    /// It ran, and this is its output.
    Ran(T),
    /// It did not run, for this reason.
    Skipped(Busy),
}

impl<T> Outcome<T> {
    /// The body's output, if it ran.
    pub fn ran(self) -> Option<T> {
        match self {
            Self::Ran(output) => Some(output),
            Self::Skipped(_) => None,
        }
    }

    /// Whether it did not run.
    pub const fn is_skipped(&self) -> bool {
        matches!(self, Self::Skipped(_))
    }
}
