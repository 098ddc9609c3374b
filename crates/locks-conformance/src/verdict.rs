//! How a case fails.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use locks_api::Boottime;

use crate::recording::{self, What};

/// What a case returns.
pub(crate) type Verdict<T = ()> = Result<T, Failure>;

/// Why a case failed, and where in the kit that was seen.
pub(crate) struct Failure {
    message: String,
    seen_at: &'static Location<'static>,
    at: Boottime,
    /// The lock that it is about, and the holds by their tokens.
    about: Option<(String, Vec<u64>)>,
}

impl Failure {
    #[track_caller]
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), seen_at: Location::caller(), at: Boottime::now(), about: None }
    }

    /// The same failure, which is about these holds of a lock.
    pub(crate) fn about(mut self, lock: &str, tokens: Vec<u64>) -> Self {
        self.about = Some((lock.to_owned(), tokens));
        self
    }

    /// Notes it in the record of the case, where it was seen.
    pub(crate) fn record(&self) {
        let (lock, tokens) = self.about.clone().unzip();
        let (message, seen_at) = (self.message.clone(), Some(self.seen_at.to_string()));
        let tokens = tokens.unwrap_or_default();
        recording::note_at(self.at, What::Broken { message, seen_at, lock, tokens });
    }

    /// The same failure, with what was being done put before it.
    pub(crate) fn while_doing(self, what: impl fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  seen at {}", self.message, self.seen_at)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Any error that a case did not expect, so that `?` says where it came up.
impl<E: std::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        use fmt::Write as _;
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            // Writing to a string can't fail.
            write!(message, ": {inner}").expect("room in a string");
            cause = inner.source();
        }
        Self::new(message)
    }
}

/// Fails the case unless the condition holds.
macro_rules! check {
    ($condition:expr, $($message:tt)+) => {{
        let holds: bool = $condition;
        if !holds {
            return Err($crate::verdict::Failure::new(format!($($message)+)));
        }
    }};
}

pub(crate) use check;

/// The value of `future`, or a failure that says what did not happen in time.
pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> Verdict<T> {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => Ok(value),
        Err(_) => Err(Failure::new(format!("{what}: not within {limit:?}"))),
    }
}

/// Asks `condition` again and again until it holds, at growing intervals.
///
/// For what announces itself to nobody: the census of a process, a state in `/proc`.
pub(crate) async fn eventually(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Verdict {
    let mut pause = Duration::from_micros(100);
    let wait = async {
        while !condition() {
            pause_for(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    };
    within(limit, what, wait).await
}

/// Lets time pass where the passing of time is what the case is about, or between two looks at something
/// that announces itself to nobody.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the kit where time passes; never to order two events"
)]
pub(crate) async fn pause_for(duration: Duration) {
    tokio::time::sleep(duration).await;
}
