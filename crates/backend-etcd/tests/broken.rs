//! Locks in etcd that are broken on purpose, which the conformance kit must reject by the case meant for each, and their correct twin.

#![cfg(target_os = "linux")]
#![expect(clippy::print_stdout, reason = "the list of what was rejected is for people and for xtask")]

mod space;

use std::fmt;
use std::marker::PhantomData;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use locks_api::FencingToken;
use locks_api::spi::{
    Abilities, Attempt, Backend, Claim, ClaimId, Events, Expiry, Extras, Grant, Guarantees, Inline, Mode,
    Released, Renewed, Result, TokenBlock, async_trait,
};
use locks_backend_etcd::EtcdBackend;
use locks_conformance::Suite;
use space::{Making, Sound, Space};

/// What is wrong with a backend.
trait Flaw: fmt::Debug + Send + Sync + 'static {
    const NAME: &'static str;

    /// Whether it hears nothing of what the cluster says on its own.
    const DEAF: bool = false;

    /// Whether a release takes the lock from whoever has it.
    const TAKES_FROM_ANYBODY: bool = false;

    /// What is asked for instead of a claim.
    fn asked(claim: &Claim) -> Claim {
        claim.clone()
    }

    /// What is told instead of an answer.
    fn told(_: &Claim, attempt: Attempt) -> Attempt {
        attempt
    }

    /// What is given back and renewed instead of a grant.
    fn meant(grant: &Grant) -> Grant {
        grant.clone()
    }
}

/// Gives back whatever holds the lock: nobody asks who.
#[derive(Debug)]
struct NoOwnerCheck;

impl Flaw for NoOwnerCheck {
    const NAME: &'static str = "etcd-no-owner-check";
    const TAKES_FROM_ANYBODY: bool = true;
}

/// One key for all claims of a process, as etcd's own recipe has one for each lease.
#[derive(Debug)]
struct KeyPerProcess;

impl Flaw for KeyPerProcess {
    const NAME: &'static str = "etcd-key-per-process";

    fn asked(claim: &Claim) -> Claim {
        let mut asked = claim.clone();
        asked.id = ClaimId::from_bits(claim.instance.to_bits());
        asked
    }

    fn told(claim: &Claim, attempt: Attempt) -> Attempt {
        match attempt {
            Attempt::Granted(mut grant) => {
                grant.claim = claim.id;
                Attempt::Granted(grant)
            }
            other => other,
        }
    }
}

/// Waits for what the cluster says, does not hear it, and never looks by itself.
#[derive(Debug)]
struct Deaf;

impl Flaw for Deaf {
    const NAME: &'static str = "etcd-deaf";
    const DEAF: bool = true;

    fn told(_: &Claim, attempt: Attempt) -> Attempt {
        match attempt {
            Attempt::Queued { position, by, .. } => Attempt::queued(position, by),
            other => other,
        }
    }
}

/// Says that a grant has all of its ttl before it, however old its lease is.
#[derive(Debug)]
struct AlwaysFresh;

impl Flaw for AlwaysFresh {
    const NAME: &'static str = "etcd-always-fresh";

    fn told(claim: &Claim, attempt: Attempt) -> Attempt {
        match (attempt, claim.ttl) {
            (Attempt::Granted(mut grant), Some(ttl)) => {
                grant.expiry = Expiry::In(ttl);
                Attempt::Granted(grant)
            }
            (other, _) => other,
        }
    }
}

/// Numbers grants by the wall clock of whoever asks, in whole seconds.
#[derive(Debug)]
struct ClockTokens;

impl Flaw for ClockTokens {
    const NAME: &'static str = "etcd-clock-tokens";

    fn told(_: &Claim, attempt: Attempt) -> Attempt {
        let seconds = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let tokens = FencingToken::new(seconds).and_then(|first| TokenBlock::new(first, 1));
        match (attempt, tokens) {
            (Attempt::Granted(mut grant), Some(tokens)) => {
                grant.tokens = tokens;
                Attempt::Granted(grant)
            }
            (other, _) => other,
        }
    }
}

/// Lets one more in than there are permits.
#[derive(Debug)]
struct LimitOffByOne;

impl Flaw for LimitOffByOne {
    const NAME: &'static str = "etcd-limit-off-by-one";

    fn asked(claim: &Claim) -> Claim {
        match claim.mode {
            Mode::Permits { count, limit } => {
                claim.clone().with_mode(Mode::Permits { count, limit: limit + 1 })
            }
            _ => claim.clone(),
        }
    }
}

/// Never stands in line: whoever asks at the right moment gets the lock.
#[derive(Debug)]
struct NeverInLine;

impl Flaw for NeverInLine {
    const NAME: &'static str = "etcd-never-in-line";

    fn asked(claim: &Claim) -> Claim {
        let mut asked = claim.clone();
        asked.may_wait = false;
        asked
    }
}

/// Forgets a minimum hold with the hold.
#[derive(Debug)]
struct MinHoldDies;

impl Flaw for MinHoldDies {
    const NAME: &'static str = "etcd-min-hold-dies";

    fn asked(claim: &Claim) -> Claim {
        let mut asked = claim.clone();
        asked.extras = claim.extras.as_ref().map(|extras| {
            let mut without = Extras::clone(extras);
            without.min_hold = None;
            Arc::new(without)
        });
        asked
    }
}

/// A backend with a flaw.
#[derive(Debug)]
struct Broken<F> {
    inner: EtcdBackend,
    flaw: PhantomData<F>,
}

#[async_trait]
impl<F: Flaw> Backend for Broken<F> {
    fn guarantees(&self) -> &Guarantees {
        self.inner.guarantees()
    }

    fn subscribe(&self, events: Events) {
        if !F::DEAF {
            self.inner.subscribe(events);
        }
    }

    async fn acquire(&self, claims: &[Claim]) -> Result<Vec<Result<Attempt>>> {
        let asked: Vec<Claim> = claims.iter().map(F::asked).collect();
        let attempts = self.inner.acquire(&asked).await?;
        let told =
            |(claim, attempt): (&Claim, Result<Attempt>)| attempt.map(|attempt| F::told(claim, attempt));
        Ok(claims.iter().zip(attempts).map(told).collect())
    }

    async fn cancel(&self, claims: &[Claim]) -> Result<Vec<Result<()>>> {
        let asked: Vec<Claim> = claims.iter().map(F::asked).collect();
        self.inner.cancel(&asked).await
    }

    async fn release(&self, grants: &[Grant]) -> Result<Vec<Result<Released>>> {
        if F::TAKES_FROM_ANYBODY
            && let Some(inspect) = self.inner.abilities().inspect
        {
            let mut released = Vec::new();
            for grant in grants {
                let taken = inspect.break_lock(&grant.name, None).await;
                released.push(taken.map(|taken| if taken > 0 { Released::Done } else { Released::NotHeld }));
            }
            return Ok(released);
        }
        let meant: Vec<Grant> = grants.iter().map(F::meant).collect();
        self.inner.release(&meant).await
    }

    async fn renew(&self, grants: &[Grant]) -> Result<Vec<Renewed>> {
        let meant: Vec<Grant> = grants.iter().map(F::meant).collect();
        self.inner.renew(&meant).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn inline(&self) -> Option<&dyn Inline> {
        None
    }

    fn abilities(&self) -> Abilities<'_> {
        self.inner.abilities()
    }
}

/// A space in which the backend has this flaw.
struct Flawed<F>(PhantomData<F>);

impl<F: Flaw> Making for Flawed<F> {
    const NAME: &'static str = F::NAME;
    type Made = Broken<F>;

    fn make(inner: EtcdBackend) -> Broken<F> {
        Broken { inner, flaw: PhantomData }
    }
}

/// A broken backend and the case that must reject it.
const REJECTED: [(&str, &str); 8] = [
    (NoOwnerCheck::NAME, "spi::a_release_hits_only_its_own_claim"),
    (KeyPerProcess::NAME, "rw::readers_hold_together"),
    (Deaf::NAME, "crash::a_killed_holder_frees_the_lock"),
    (AlwaysFresh::NAME, "spi::a_grant_lasts_its_ttl"),
    (ClockTokens::NAME, "spi::a_cancel_undoes_a_grant"),
    (LimitOffByOne::NAME, "semaphore::as_many_as_there_are_permits"),
    (NeverInLine::NAME, "rw::a_waiting_writer_is_not_passed"),
    (MinHoldDies::NAME, "schedule::a_minimum_hold_outlives_a_release"),
];

fn main() -> ExitCode {
    let suite = Arc::new(
        Suite::new()
            .with::<Space<Flawed<NoOwnerCheck>>>()
            .with::<Space<Flawed<KeyPerProcess>>>()
            .with::<Space<Flawed<Deaf>>>()
            .with::<Space<Flawed<AlwaysFresh>>>()
            .with::<Space<Flawed<ClockTokens>>>()
            .with::<Space<Flawed<LimitOffByOne>>>()
            .with::<Space<Flawed<NeverInLine>>>()
            .with::<Space<Flawed<MinHoldDies>>>()
            .with::<Space<Sound>>(),
    );
    if let Some(code) = suite.play_role() {
        return code;
    }
    let mut trials = Vec::new();
    for (broken, case) in REJECTED {
        let suite = Arc::clone(&suite);
        trials.push(Trial::test(format!("rejects::{broken}"), move || rejects(&suite, broken, case)));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn rejects(suite: &Suite, broken: &str, case: &str) -> std::result::Result<(), Failed> {
    let seen = suite.reject(broken, case, Sound::NAME)?;
    println!("\nbroken: {broken} rejected by {case}\n  {seen}");
    Ok(())
}
