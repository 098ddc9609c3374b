//! A free lock, taken and given back, beside the least that anybody could do instead.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use locks_api::{Lock, Locks};
use locks_backend_file::FileBackend;
use locks_backend_memory::MemoryBackend;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

use crate::rounds::{Effort, Spread, interleaved};
use crate::table::{Goal, Table, Unit};

pub(crate) fn measure(effort: Effort, table: &mut Table) -> Result<()> {
    let runtime = Builder::new_current_thread().build().context("can't start a runtime")?;
    let dir = tempfile::tempdir().context("can't make a directory")?;
    let file = Locks::new(FileBackend::open(dir.path().join("locks"))?).lock("free");
    let raw = dir.path().join("raw");
    let [ours, calls] = interleaved(
        effort,
        [&mut || time_lock(&runtime, &file, effort.calls), &mut || time_calls(&raw, effort.calls)],
    )?;
    let what = "file, free lock, acquire + release, over open + flock + close";
    table.row(what, Goal::AtMost(3.0), Unit::Times, Spread::of_ratios(&ours, &calls));

    let memory = Locks::new(MemoryBackend::new()).lock("free");
    let mutex = Mutex::new(());
    let [ours, tokios] = interleaved(
        effort,
        [&mut || time_lock(&runtime, &memory, effort.calls), &mut || {
            time_mutex(&runtime, &mutex, effort.calls)
        }],
    )?;
    let what = "memory, free lock, acquire + release, over tokio's Mutex";
    table.row(what, Goal::None, Unit::Times, Spread::of_ratios(&ours, &tokios));

    let locks = Locks::new(MemoryBackend::new());
    let [decorated, by_hand] = interleaved(
        effort,
        [&mut || time_decorated(&runtime, &locks, effort.calls), &mut || {
            time_run(&runtime, &locks, effort.calls)
        }],
    )?;
    let what = "memory, free lock, a decorated call, over the same by hand";
    table.row(what, Goal::AtMost(1.05), Unit::Times, Spread::of_ratios(&decorated, &by_hand));
    Ok(())
}

#[locks_macros::customlock("free", locks = locks, crate = locks_api)]
async fn decorated(locks: &Locks, number: u32) -> u32 {
    black_box(number)
}

async fn by_hand(locks: &Locks, number: u32) -> locks_api::Result<u32> {
    locks.lock("free").run(async move { black_box(number) }).await
}

/// Seconds per call of a decorated function.
fn time_decorated(runtime: &Runtime, locks: &Locks, calls: u32) -> Result<f64> {
    runtime.block_on(async {
        let start = Instant::now();
        for number in 0..calls {
            black_box(decorated(locks, number).await?);
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(calls))
    })
}

/// Seconds per call of the same function, written by hand.
fn time_run(runtime: &Runtime, locks: &Locks, calls: u32) -> Result<f64> {
    runtime.block_on(async {
        let start = Instant::now();
        for number in 0..calls {
            black_box(by_hand(locks, number).await?);
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(calls))
    })
}

/// Seconds per acquire and release.
pub(crate) fn time_lock(runtime: &Runtime, lock: &Lock, calls: u32) -> Result<f64> {
    runtime.block_on(async {
        let start = Instant::now();
        for _ in 0..calls {
            let guard = lock.acquire().await?;
            black_box(guard.fencing_token());
            guard.release().await?;
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(calls))
    })
}

/// Seconds per open, flock and close.
fn time_calls(path: &Path, calls: u32) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..calls {
        let file = open(path, OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        drop(file);
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(calls))
}

/// Seconds per lock and unlock.
fn time_mutex(runtime: &Runtime, mutex: &Mutex<()>, calls: u32) -> Result<f64> {
    runtime.block_on(async {
        let start = Instant::now();
        for _ in 0..calls {
            drop(black_box(mutex.lock().await));
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(calls))
    })
}
