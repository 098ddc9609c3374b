//! Random steps against a model that is too simple to be wrong.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use locks_api::spi::{Attempt, Claim, ClaimId, Downgrade as _, Grant, Inspect as _, Mode, Released};
use locks_api::{Busy, ErrorKind, FencingToken};

use super::{Process, ready};

/// One lock, as its rules say. Nobody in it ever dies.
#[derive(Default)]
struct Model {
    held: Vec<(Claim, Option<Grant>)>,
    waiting: VecDeque<Claim>,
    /// Who has held it, and the highest token of theirs.
    seen: HashSet<ClaimId>,
    highest: Option<FencingToken>,
}

impl Model {
    fn fits(&self, mode: Mode) -> bool {
        self.held.iter().all(|(held, _)| held.mode.is_compatible(mode))
            && match mode {
                Mode::Permits { count, limit } => {
                    self.held.iter().map(|(held, _)| held.mode.permits()).sum::<u32>() + count <= limit
                }
                _ => true,
            }
    }

    fn hand_over(&mut self) {
        while self.waiting.front().is_some_and(|first| self.fits(first.mode)) {
            let first = self.waiting.pop_front().unwrap();
            self.held.push((first, None));
        }
    }

    fn holds(&self, id: ClaimId) -> bool {
        self.held.iter().any(|(held, _)| held.id == id)
    }

    fn end(&mut self, id: ClaimId) {
        self.held.retain(|(held, _)| held.id != id);
        self.waiting.retain(|waiting| waiting.id != id);
        self.hand_over();
    }

    fn other_limit(&self, claim: &Claim) -> bool {
        let held = self.held.iter().map(|(held, _)| held);
        let limits = held
            .chain(&self.waiting)
            .filter(|other| other.id != claim.id)
            .filter_map(|other| other.mode.limit());
        claim.mode.limit().is_some_and(|limit| limits.into_iter().any(|other| other != limit))
    }

    /// What the store says to this claim is what the rules say.
    fn answered(&mut self, claim: &Claim, answer: locks_api::Result<Attempt>) {
        if self.other_limit(claim) {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::LimitMismatch);
            return;
        }
        let answer = answer.unwrap();
        let waits_at = self.waiting.iter().position(|waiting| waiting.id == claim.id);
        if !self.holds(claim.id) && waits_at.is_none() && self.waiting.is_empty() && self.fits(claim.mode) {
            self.held.push((claim.clone(), None));
        }
        if let Some((_, known)) = self.held.iter_mut().find(|(held, _)| held.id == claim.id) {
            let Attempt::Granted(grant) = answer else { panic!("{:?} and not granted", claim.mode) };
            match known {
                Some(known) => assert_eq!(known.tokens, grant.tokens, "other tokens for the same claim"),
                None => *known = Some(grant),
            }
            return;
        }
        match (waits_at, claim.may_wait) {
            (None, false) => {
                assert!(matches!(answer, Attempt::Busy(Busy::Held { by: Some(_) })), "{answer:?}")
            }
            (None, true) => {
                let ahead = self.waiting.len() as u64;
                assert!(
                    matches!(answer, Attempt::Queued { position: Some(at), by: Some(_), .. } if at == ahead),
                    "{answer:?}"
                );
                self.waiting.push_back(claim.clone());
            }
            (Some(at), _) => {
                assert!(
                    matches!(answer, Attempt::Queued { position: Some(told), .. } if told == at as u64),
                    "{answer:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_steps_do_what_the_rules_say() {
    let (_server, url) = ready().await;
    let processes = [Process::new(&url), Process::new(&url)];
    for seed in 0..40 {
        let mut random = Random(seed + 1);
        let name = format!("seed {seed}");
        let mut model = Model::default();
        let mut known: Vec<(usize, Claim)> = Vec::new();
        for _ in 0..120 {
            let who = random.below(2);
            let process = &processes[who];
            match random.below(10) {
                0..=4 => {
                    let mode = match random.below(7) {
                        0..=1 => Mode::Exclusive,
                        2..=3 => Mode::Shared,
                        few => {
                            let limit = if few == 6 && random.below(4) == 0 { 2 } else { 3 };
                            Mode::Permits { count: 1 + u32::try_from(random.below(2)).unwrap(), limit }
                        }
                    };
                    let mut claim = process.claim(&name).with_ttl(Duration::from_secs(4)).with_mode(mode);
                    claim.may_wait = random.below(3) > 0;
                    if random.below(3) == 0 {
                        claim = claim.with_value("v");
                    }
                    model.answered(&claim, process.acquire(&claim).await);
                    known.push((who, claim));
                }
                // Asked again.
                5 if !known.is_empty() => {
                    let (who, claim) = known[random.below(known.len())].clone();
                    let is_known =
                        model.holds(claim.id) || model.waiting.iter().any(|other| other.id == claim.id);
                    if is_known {
                        model.answered(&claim, processes[who].acquire(&claim).await);
                    }
                }
                6 if !known.is_empty() => {
                    let (who, claim) = known.swap_remove(random.below(known.len()));
                    processes[who].cancel(&claim).await;
                    model.end(claim.id);
                }
                7 => {
                    let Some((claim, Some(grant))) = model.held.first().cloned() else { continue };
                    let done = process.backend.downgrade(&grant).await.unwrap();
                    if matches!(claim.mode, Mode::Permits { .. }) {
                        assert_eq!(done, Released::NotHeld);
                    } else {
                        assert_eq!(done, Released::Done);
                        model.held[0].0.mode = Mode::Shared;
                        for (_, known) in known.iter_mut().filter(|(_, known)| known.id == claim.id) {
                            known.mode = Mode::Shared;
                        }
                        model.hand_over();
                    }
                }
                _ => {
                    let held: Vec<_> = model.held.iter().filter_map(|(_, grant)| grant.clone()).collect();
                    if !held.is_empty() {
                        let grant = &held[random.below(held.len())];
                        assert_eq!(process.release(grant).await, Released::Done);
                        assert_eq!(process.release(grant).await, Released::NotHeld);
                        model.end(grant.claim);
                    }
                }
            }
            check(process, &name, &mut model).await;
        }
    }
}

/// Everybody who holds and waits is the one who should, and later grants have higher tokens.
async fn check(process: &Process, name: &str, model: &mut Model) {
    let state = process.backend.state(&process.claim(name).name).await.unwrap();
    let told: Vec<_> = state.holders.iter().map(|held| (held.claim.unwrap(), held.mode)).collect();
    let expected: Vec<_> = model.held.iter().map(|(held, _)| (held.id, held.mode)).collect();
    assert_eq!(told, expected);
    let waiters = state.waiters.unwrap();
    let told: Vec<_> = waiters.iter().map(|waiting| waiting.claim.unwrap()).collect();
    assert_eq!(told, model.waiting.iter().map(|waiting| waiting.id).collect::<Vec<_>>());
    let tokens: Vec<_> = state.holders.iter().map(|held| held.token.unwrap()).collect();
    assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
    let before = model.highest;
    for held in &state.holders {
        if model.seen.insert(held.claim.unwrap()) {
            assert!(held.token > before, "{:?} after {before:?}", held.token);
            model.highest = model.highest.max(held.token);
        }
    }
    for grant in model.held.iter().filter_map(|(_, grant)| grant.as_ref()) {
        model.highest = model.highest.max(Some(grant.tokens.last()));
    }
}

/// One seed, one run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}
