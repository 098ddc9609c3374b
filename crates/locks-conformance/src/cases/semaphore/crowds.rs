//! Many holders of permits, judged by their history.

use super::PERMITS;
use crate::cases::Case;
use crate::cases::process::PROCESSES;
use crate::cases::rw::crowds::{crowd, processes};
use crate::worker::Mix;

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new(
        "semaphore::tasks_are_inside_as_they_may",
        "sixty tasks over three instances that take some of five permits: never more than five are out, tokens grow, one semaphore could have done it",
        |space| Box::pin(async move { crowd(&space, Mix::Permits { limit: 5 }).await }),
    )
    .needs(&[PERMITS]),
    Case::new(
        "semaphore::processes_are_inside_as_they_may",
        "six processes that take some of four permits: never more than four are out, tokens grow, one semaphore could have done it",
        |space| Box::pin(async move { processes(&space, Mix::Permits { limit: 4 }).await }),
    )
    .needs(&[PERMITS, PROCESSES]),
];
