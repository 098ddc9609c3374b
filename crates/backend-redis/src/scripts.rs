//! The steps as scripts, which the server runs atomically.

use std::time::Duration;

use redis::Script;

/// The steps of one version of the records.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) acquire: Step,
    pub(crate) renew: Step,
    pub(crate) release: Step,
    pub(crate) cancel: Step,
    pub(crate) epoch: Step,
}

impl Scripts {
    /// All of them, each as `edit` leaves it. Records are kept for so long after their last change.
    pub(crate) fn new(kept: Duration, edit: impl Fn(&str) -> String) -> Self {
        let step = |flags: &str, parts: &[&str]| {
            let kept = kept.as_millis();
            Step::new(&edit(&format!("#!lua{flags}\nlocal KEPT = '{kept}'\n{}", parts.concat())))
        };
        Self {
            acquire: step(
                "",
                &[
                    TIME,
                    EPOCH,
                    include_str!("scripts/acquire_free.lua"),
                    LOCK,
                    include_str!("scripts/acquire.lua"),
                ],
            ),
            renew: step(FULL, &[TIME, EPOCH, LOCK, include_str!("scripts/renew.lua")]),
            release: step(
                FULL,
                &[
                    TIME,
                    include_str!("scripts/release_alone.lua"),
                    EPOCH,
                    LOCK,
                    include_str!("scripts/release.lua"),
                ],
            ),
            cancel: step(FULL, &[TIME, EPOCH, LOCK, include_str!("scripts/cancel.lua")]),
            epoch: step("", &[include_str!("scripts/open_epoch.lua")]),
        }
    }
}

const TIME: &str = include_str!("scripts/time.lua");
const EPOCH: &str = include_str!("scripts/epoch_known.lua");
const LOCK: &str = include_str!("scripts/lock.lua");

/// What is to work on a full server too: it only writes what is there already.
const FULL: &str = " flags=allow-oom";

/// One script and its hash.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) text: String,
    pub(crate) hash: String,
}

impl Step {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), hash: Script::new(text).get_hash().to_owned() }
    }
}
