//! The steps as scripts, which the server runs atomically.

use std::time::Duration;

use redis::Script;

/// The steps of one version of the records.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) acquire: Step,
    pub(crate) together: Step,
    pub(crate) renew: Step,
    pub(crate) release: Step,
    pub(crate) complete: Step,
    pub(crate) cancel: Step,
    pub(crate) downgrade: Step,
    pub(crate) publish: Step,
    pub(crate) leader: Step,
    pub(crate) state: Step,
    pub(crate) break_lock: Step,
    pub(crate) revoke: Step,
    pub(crate) epoch: Step,
}

impl Scripts {
    /// All of them, each as `edit` leaves it. Records are kept for so long after their last change.
    pub(crate) fn new(kept: Duration, edit: impl Fn(&str) -> String) -> Self {
        let step = |flags: &str, parts: &[&str]| {
            let kept = kept.as_millis();
            Step::new(&edit(&format!("#!lua{flags}\nlocal KEPT = '{kept}'\n{}", parts.concat())))
        };
        let lock = |flags: &str, last: &str| step(flags, &[TIME, EPOCH, LOCK, QUEUE, last]);
        Self {
            acquire: step(
                "",
                &[
                    TIME,
                    EPOCH,
                    include_str!("scripts/acquire_free.lua"),
                    LOCK,
                    QUEUE,
                    CLAIMS,
                    include_str!("scripts/acquire.lua"),
                ],
            ),
            together: step("", &[TIME, EPOCH, LOCK, QUEUE, CLAIMS, include_str!("scripts/together.lua")]),
            renew: lock(FULL, include_str!("scripts/renew.lua")),
            release: step(
                FULL,
                &[
                    TIME,
                    include_str!("scripts/release_alone.lua"),
                    EPOCH,
                    LOCK,
                    QUEUE,
                    include_str!("scripts/release.lua"),
                ],
            ),
            complete: lock(FULL, include_str!("scripts/complete.lua")),
            cancel: lock(FULL, include_str!("scripts/cancel.lua")),
            downgrade: lock(FULL, include_str!("scripts/downgrade.lua")),
            publish: lock("", include_str!("scripts/publish.lua")),
            leader: lock(READS, include_str!("scripts/leader.lua")),
            state: lock(READS, include_str!("scripts/state.lua")),
            break_lock: lock(FULL, include_str!("scripts/break.lua")),
            revoke: lock(FULL, include_str!("scripts/revoke.lua")),
            epoch: step("", &[include_str!("scripts/open_epoch.lua")]),
        }
    }
}

const TIME: &str = include_str!("scripts/time.lua");
const EPOCH: &str = include_str!("scripts/epoch_known.lua");
const LOCK: &str = include_str!("scripts/lock.lua");
const QUEUE: &str = include_str!("scripts/queue.lua");
const CLAIMS: &str = include_str!("scripts/claims.lua");

/// What is to work on a full server too: it only writes what is there already.
const FULL: &str = " flags=allow-oom";

/// What only looks: the server sees to it.
const READS: &str = " flags=no-writes";

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
