//! The cases. A case's id never changes its meaning; adding a case is not a breaking change.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use locks_api::spi::{CrashRelease, Fairness, Offer, Scope};

use crate::harness::{Fault, Profile};
use crate::space::Space;
use crate::verdict::Verdict;

mod cancellation;
mod crash;
mod election;
mod exclusive;
mod faults;
mod inspection;
mod lease;
mod lock_all;
mod names;
mod offers;
mod options;
mod process;
mod progress;
mod resources;
mod restart;
mod rw;
mod schedule;
mod semaphore;
mod soak;
mod spi;
mod tokens;
mod waiting;
mod wanting;
mod wire;

/// All cases, in the order in which they are listed.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [
        exclusive::CASES,
        tokens::CASES,
        waiting::CASES,
        names::CASES,
        offers::CASES,
        rw::CASES,
        rw::queue::CASES,
        rw::crowds::CASES,
        semaphore::CASES,
        semaphore::limits::CASES,
        semaphore::crowds::CASES,
        lock_all::CASES,
        lock_all::apart::CASES,
        election::CASES,
        election::observers::CASES,
        schedule::CASES,
        options::CASES,
        inspection::CASES,
        inspection::breaking::CASES,
        cancellation::CASES,
        cancellation::kinds::CASES,
        process::CASES,
        crash::CASES,
        crash::kinds::CASES,
        resources::CASES,
        lease::CASES,
        restart::CASES,
        restart::crowded::CASES,
        faults::CASES,
        soak::CASES,
        wire::cuts::CASES,
        wire::silence::CASES,
        wire::replies::CASES,
        spi::CASES,
    ]
    .into_iter()
    .flatten()
}

type Run = fn(Space) -> Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// One thing that backends are held to.
pub struct Case {
    id: &'static str,
    about: &'static str,
    needs: &'static [Requirement],
    deadline: Duration,
    alone: bool,
    run: Run,
}

impl Case {
    const fn new(id: &'static str, about: &'static str, run: Run) -> Self {
        Self { id, about, needs: &[], deadline: Duration::from_secs(60), alone: false, run }
    }

    /// Only for backends and harnesses that offer these.
    const fn needs(mut self, needs: &'static [Requirement]) -> Self {
        self.needs = needs;
        self
    }

    const fn deadline(mut self, seconds: u64) -> Self {
        self.deadline = Duration::from_secs(seconds);
        self
    }

    /// Brings about whatever faults of the store there are, without needing any.
    const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Its name, such as `exclusive::two_instances_exclude_each_other`.
    pub fn id(&self) -> &'static str {
        self.id
    }

    /// What it asserts, in one line.
    pub fn about(&self) -> &'static str {
        self.about
    }

    /// What a backend or its harness must offer for the case to run.
    pub fn requirements(&self) -> &'static [Requirement] {
        self.needs
    }

    /// How long one run may take.
    pub fn time_limit(&self) -> Duration {
        if self.id == soak::ID { self.deadline + soak::length() } else { self.deadline }
    }

    /// Whether it must not share its lock space with other cases: what it does to the store, it does to everybody.
    pub fn is_alone(&self) -> bool {
        let strikes = |need| matches!(need, Need::Inject(fault) if fault.strikes_the_store());
        self.alone || self.needs.iter().any(|requirement| strikes(requirement.need))
    }

    /// What it needs and this backend does not have, first of all.
    fn missing(&self, profile: &Profile) -> Option<&Requirement> {
        self.needs.iter().find(|requirement| !requirement.need.is_met(profile))
    }

    /// The case that runs instead of it against this backend, if one does.
    pub(crate) fn twin_for(&self, profile: &Profile) -> Option<&'static str> {
        self.missing(profile)?.twin
    }

    /// Why it does not run against this backend, if it does not.
    pub(crate) fn ignored(&self, profile: &Profile) -> Option<String> {
        let missing = self.missing(profile)?;
        Some(match missing.twin {
            Some(twin) => format!("needs {}; {twin} runs instead", missing.need),
            None => format!("needs {}", missing.need),
        })
    }

    pub(crate) async fn run(&self, space: Space) -> Verdict {
        (self.run)(space).await
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("id", &self.id).field("needs", &self.needs).finish_non_exhaustive()
    }
}

/// Something that a case needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requirement {
    /// What it needs.
    pub need: Need,
    /// The case that runs where it is missing. `None` where nothing follows for the backend, as from a harness that
    /// can't bring about some fault.
    pub twin: Option<&'static str>,
}

const fn need(need: Need, twin: &'static str) -> Requirement {
    Requirement { need, twin: Some(twin) }
}

const fn fault(fault: Fault) -> Requirement {
    Requirement { need: Need::Inject(fault), twin: None }
}

/// The need of every case that puts a proxy before the store.
const WIRE: Requirement = Requirement { need: Need::Wire, twin: None };

/// An ability of a backend or of its harness, or the lack of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// Locks that reach further than one process.
    Processes,
    /// Locks that reach no further than one process.
    OneProcess,
    /// A store whose grants expire.
    Expiry,
    /// A store whose grants don't expire.
    NoExpiry,
    /// Locks that outlive the connection over which they were taken.
    OutlivesCuts,
    /// Locks that end with the connection over which they were taken.
    EndsWithCuts,
    /// Processes are served at least nearly in order.
    Order,
    /// Processes are served in no order.
    NoOrder,
    /// Processes are served strictly in order.
    StrictOrder,
    /// Processes are not served strictly in order.
    NoStrictOrder,
    /// A store that offers this beyond the exclusive lock.
    Offer(Offer),
    /// A store that does not offer this.
    NoOffer(Offer),
    /// A store that is reached over TCP, and a harness that connects through a proxy.
    Wire,
    /// A harness that injects this fault.
    Inject(Fault),
}

impl Need {
    fn is_met(self, profile: &Profile) -> bool {
        let guarantees = &profile.guarantees;
        match self {
            Self::Processes => guarantees.scope != Scope::Process,
            Self::OneProcess => guarantees.scope == Scope::Process,
            Self::Expiry => guarantees.ttl.is_some(),
            Self::NoExpiry => guarantees.ttl.is_none(),
            Self::OutlivesCuts => guarantees.crash_release == CrashRelease::AfterTtl,
            Self::EndsWithCuts => guarantees.crash_release == CrashRelease::AtOnce,
            Self::Order => guarantees.fairness != Fairness::None,
            Self::NoOrder => guarantees.fairness == Fairness::None,
            Self::StrictOrder => guarantees.fairness == Fairness::Fifo,
            Self::NoStrictOrder => guarantees.fairness != Fairness::Fifo,
            Self::Offer(offer) => guarantees.offers.has(offer),
            Self::NoOffer(offer) => !guarantees.offers.has(offer),
            Self::Wire => profile.over_tcp,
            Self::Inject(fault) => profile.faults.contains(&fault),
        }
    }

    #[cfg(test)]
    fn opposite(self) -> Option<Self> {
        match self {
            Self::Processes => Some(Self::OneProcess),
            Self::OneProcess => Some(Self::Processes),
            Self::Expiry => Some(Self::NoExpiry),
            Self::NoExpiry => Some(Self::Expiry),
            Self::OutlivesCuts => Some(Self::EndsWithCuts),
            Self::EndsWithCuts => Some(Self::OutlivesCuts),
            Self::Order => Some(Self::NoOrder),
            Self::NoOrder => Some(Self::Order),
            Self::StrictOrder => Some(Self::NoStrictOrder),
            Self::NoStrictOrder => Some(Self::StrictOrder),
            Self::Offer(offer) => Some(Self::NoOffer(offer)),
            Self::NoOffer(offer) => Some(Self::Offer(offer)),
            Self::Wire | Self::Inject(_) => None,
        }
    }
}

/// Reads as "a store whose grants expire".
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Processes => "locks that reach further than one process",
            Self::OneProcess => "locks that reach no further than one process",
            Self::Expiry => "a store whose grants expire",
            Self::NoExpiry => "a store whose grants don't expire",
            Self::OutlivesCuts => "a store whose grants outlive their connections",
            Self::EndsWithCuts => "a store whose grants end with their connections",
            Self::Order => "a store that serves processes at least nearly in order",
            Self::NoOrder => "a store that serves processes in no order",
            Self::StrictOrder => "a store that serves processes strictly in order",
            Self::NoStrictOrder => "a store that does not serve processes strictly in order",
            Self::Wire => "a harness that connects over TCP through a proxy",
            Self::Offer(offer) => return write!(f, "a store that offers {offer}"),
            Self::NoOffer(offer) => return write!(f, "a store that does not offer {offer}"),
            Self::Inject(fault) => return write!(f, "a harness that injects {fault}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_name_their_module() {
        let mut seen = std::collections::HashSet::new();
        for case in cases() {
            assert!(seen.insert(case.id()), "{} is there twice", case.id());
            let (module, name) = case.id().split_once("::").unwrap();
            assert!(!module.is_empty() && !name.contains("::"), "{}", case.id());
            assert!(!case.about().is_empty() && !case.about().ends_with('.'), "{}", case.id());
        }
    }

    #[test]
    fn whoever_misses_a_capability_runs_the_twin() {
        for case in cases() {
            for requirement in case.requirements() {
                let Some(opposite) = requirement.need.opposite() else {
                    assert_eq!(requirement.twin, None, "{}", case.id());
                    continue;
                };
                let twin = requirement.twin.unwrap_or_else(|| panic!("{} has no twin", case.id()));
                let twin = cases().find(|other| other.id() == twin).expect(twin);
                for other in twin.requirements().iter().filter(|other| other.need != opposite) {
                    // What the case needs besides may be needed by its twin; that has a twin again.
                    assert!(case.requirements().contains(other), "{} for {}", twin.id(), case.id());
                }
            }
        }
    }
}
