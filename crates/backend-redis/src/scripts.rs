//! The steps as scripts, which the server runs atomically.

use std::sync::OnceLock;
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
    /// All of them, none of them put together yet. Records are kept for so long after their last change.
    pub(crate) fn new(kept: Duration) -> Self {
        let step = |flags, parts: &[&'static str]| Step::new(kept, flags, parts);
        let lock = |flags, last| step(flags, &[TIME, EPOCH, LOCK, QUEUE, last]);
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

    /// Leaves each of them as `edit` does.
    pub(crate) fn edit(&mut self, edit: impl Fn(&str) -> String) {
        for step in [
            &mut self.acquire,
            &mut self.together,
            &mut self.renew,
            &mut self.release,
            &mut self.complete,
            &mut self.cancel,
            &mut self.downgrade,
            &mut self.publish,
            &mut self.leader,
            &mut self.state,
            &mut self.break_lock,
            &mut self.revoke,
            &mut self.epoch,
        ] {
            step.script = OnceLock::from(Hashed::new(edit(step.text())));
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

/// One script, which is put together and hashed when it is needed first: to do that for all of them takes longer than a lock, and a process that
/// takes one lock needs three.
#[derive(Debug)]
pub(crate) struct Step {
    kept: Duration,
    flags: &'static str,
    parts: Vec<&'static str>,
    script: OnceLock<Hashed>,
}

#[derive(Debug)]
struct Hashed {
    text: String,
    hash: String,
}

impl Step {
    fn new(kept: Duration, flags: &'static str, parts: &[&'static str]) -> Self {
        Self { kept, flags, parts: parts.to_vec(), script: OnceLock::new() }
    }

    pub(crate) fn text(&self) -> &str {
        &self.script().text
    }

    /// What a server that knows the text calls it.
    pub(crate) fn hash(&self) -> &str {
        &self.script().hash
    }

    fn script(&self) -> &Hashed {
        self.script.get_or_init(|| {
            let Self { kept, flags, parts, .. } = self;
            Hashed::new(format!("#!lua{flags}\nlocal KEPT = '{}'\n{}", kept.as_millis(), parts.concat()))
        })
    }
}

impl Hashed {
    fn new(text: String) -> Self {
        let hash = Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }
}
