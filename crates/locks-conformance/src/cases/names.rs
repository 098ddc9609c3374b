//! The same names everywhere.

use std::sync::atomic::Ordering;

use locks_api::{ErrorKind, LockName};

use super::Case;
use crate::space::{PROMPT, Space, is_busy};
use crate::verdict::{Failure, Verdict, check, within};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "names::bad_ones_never_reach_the_store",
        "an empty, over-long or NUL-holding name is an InvalidName and the store is not asked anything",
        |space| Box::pin(bad_ones_never_reach_the_store(space)),
    ),
    Case::new(
        "names::look_alikes_are_different_locks",
        "names that differ in case, trailing dots, spaces, separators or Unicode form are held independently",
        |space| Box::pin(look_alikes_are_different_locks(space)),
    ),
    Case::new(
        "names::any_text_is_a_name",
        "control characters, separators, reserved words and quotes of any store work as names",
        |space| Box::pin(any_text_is_a_name(space)),
    ),
    Case::new(
        "names::long_ones_differ_in_every_byte",
        "names of the largest size are held independently if they differ in one byte, wherever it is",
        |space| Box::pin(long_ones_differ_in_every_byte(space)),
    ),
];

async fn bad_ones_never_reach_the_store(space: Space) -> Verdict {
    let (locks, control) = space.connect_flaky().await?;
    for bad in ["", "a\0b", &"x".repeat(LockName::MAX_BYTES + 1), &"é".repeat(LockName::MAX_BYTES / 2 + 1)] {
        let lock = locks.lock(bad);
        let outcomes = [
            lock.acquire().await.map(drop),
            lock.try_acquire().await.map(drop),
            lock.acquire_timeout(PROMPT).await.map(drop),
            lock.run(async {}).await,
        ];
        for outcome in outcomes {
            let kind = outcome.map_err(|error| error.kind());
            check!(kind == Err(ErrorKind::InvalidName), "the name {bad:.20?} gave {kind:?}");
        }
    }
    let steps = control.steps.load(Ordering::Relaxed);
    check!(steps == 0, "bad names made {steps} steps");
    locks.close().await?;
    Ok(())
}

async fn look_alikes_are_different_locks(space: Space) -> Verdict {
    all_at_once(
        &space,
        &[
            "a",
            "A",
            "a.",
            "a..",
            "a ",
            " a",
            "a/",
            "/a",
            "a//b",
            "a/b",
            "a\\b",
            "a:b",
            "a_b",
            "a-b",
            "a%2Fb",
            "a%2fb",
            "a\n",
            "a\t",
            "\u{e9}",
            "e\u{301}",
            "ß",
            "ss",
            "ſ",
            "K",
            "\u{212a}",
            "i",
            "ı",
            "İ",
            "a*",
            "a?",
            "a\u{200b}",
            "a\u{feff}",
            "ab",
            "a'",
            "a\"",
        ],
    )
    .await
}

async fn any_text_is_a_name(space: Space) -> Verdict {
    all_at_once(
        &space,
        &[
            ".",
            "..",
            "../..",
            "~",
            "-",
            "--",
            "-rf",
            "*",
            "con",
            "nul.txt",
            "aux",
            "\u{1}",
            "\u{7f}",
            "\r\n",
            "{}",
            "{a}b",
            "$(x)",
            "`x`",
            "'; --",
            "\\0",
            "%",
            "%s",
            "😀",
            "日本語",
            "אב",
            "a\u{202e}b",
            "\u{10ffff}",
        ],
    )
    .await
}

async fn long_ones_differ_in_every_byte(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let long = {
        let start = space.name("long/");
        let fill = LockName::MAX_BYTES - start.len();
        start + &"x".repeat(fill)
    };
    let guard = locks.lock(&long).acquire().await?;
    is_busy(&locks, &long).await?;
    let free_bytes = long.len() - long.trim_end_matches('x').len();
    for position in [long.len() - 1, long.len() - free_bytes, long.len() - free_bytes / 2] {
        let mut other = long.clone();
        other.replace_range(position..=position, "y");
        space.watch(&other);
        take(&locks, &other).await?.release().await?;
    }
    let shorter = &long[..long.len() - 1];
    space.watch(shorter);
    take(&locks, shorter).await?.release().await?;
    guard.release().await?;
    Ok(())
}

/// Holds a lock of each name at the same time, and finds each busy to another instance.
async fn all_at_once(space: &Space, endings: &[&str]) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let names: Vec<String> = endings.iter().map(|ending| space.name(ending)).collect();
    let mut guards = Vec::new();
    for name in &names {
        guards.push(take(&one, name).await?);
    }
    for name in &names {
        is_busy(&two, name).await?;
    }
    for guard in guards {
        guard.release().await?;
    }
    for name in &names {
        take(&two, name).await?.release().await?;
    }
    Ok(())
}

async fn take(locks: &locks_api::Locks, name: &str) -> Verdict<locks_api::LockGuard> {
    match within(PROMPT, "a try", locks.lock(name).try_acquire()).await?? {
        Some(guard) => Ok(guard),
        None => Err(Failure::new(format!("{name:?} is busy and nobody holds it"))),
    }
}
