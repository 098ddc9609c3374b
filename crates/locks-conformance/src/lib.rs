#![doc = include_str!("../README.md")]
#![cfg(target_os = "linux")]

pub mod broken;
mod cases;
mod census;
pub mod checker;
mod direct;
mod flaky;
mod fork;
mod harness;
pub mod history;
mod kind;
mod polling;
pub mod proxy;
pub mod record;
mod recording;
mod report;
mod roles;
mod solo;
mod space;
mod suite;
mod supervise;
mod verdict;
mod witness;
mod worker;

pub use cases::{Case, Need, Requirement, cases};
pub use harness::{Fault, Harness, SetupError};
pub use report::{CaseReport, Outcome};
pub use suite::Suite;

/// Makes the `main` of a test binary that tries these backends.
///
/// Takes one or more types that implement [`Harness`], for a test with `harness = false`.
#[macro_export]
macro_rules! main {
    ($($harness:ty),+ $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            $crate::Suite::new()$(.with::<$harness>())+.main()
        }
    };
}
