//! A free lock in etcd, taken and given back, beside two bare transactions that put a key each.

use std::hint::black_box;

use anyhow::{Context as _, Result};
use etcd_client::{Client, LockOptions, Txn, TxnOp};
use locks_api::Locks;
use locks_backend_etcd::EtcdBackend;
use tokio::runtime::Runtime;

use super::server::Server;
use crate::between::{Store as _, each, median, runtime};
use crate::cores::Cores;
use crate::rounds::{Effort, Spread, interleaved};
use crate::table::{Goal, Table, Unit};
use crate::uncontended::time_lock;

/// In seconds. Longer than anything here takes, so that nobody has to keep it alive.
const TTL: i64 = 3_600;

pub(crate) fn measure(effort: Effort, cores: &Cores, server: &Server, table: &mut Table) -> Result<()> {
    let lock = Locks::new(EtcdBackend::from_url(server.locks())?).lock("free");
    let mut bare = Bare::connect(server)?;
    // Each has a runtime of its own, so that nobody's background tasks run in another one's turn.
    let (ours, theirs) = (runtime()?, runtime()?);
    let (mut client, lease) = theirs.block_on(async {
        let mut client = Client::connect([server.url()], None).await?;
        let lease = client.lease_grant(TTL, None).await?.id();
        anyhow::Ok((client, lease))
    })?;
    let trips = effort.trips;
    let [ours, bare, theirs] = interleaved(
        effort,
        [&mut || time_lock(&ours, &lock, trips), &mut || Ok(2.0 * bare.trips(2 * trips)?), &mut || {
            each(&theirs, trips, async || {
                let options = LockOptions::new().with_lease(lease);
                let held = client.lock("free-lock-client", Some(options)).await?;
                client.unlock(held.key()).await?;
                Ok(())
            })
        }],
    )?;
    let what = |who: &str| format!("{who}, free lock, acquire + release, over two bare transactions");
    let goal = if cores.count() == 1 { Goal::AtMost(1.25) } else { Goal::None };
    table.row(what("etcd"), goal, Unit::Times, Spread::of_ratios(&ours, &bare));
    table.row(what("LockClient"), Goal::None, Unit::Times, Spread::of_ratios(&theirs, &bare));
    Ok(())
}

/// A client that does nothing but put a key in a transaction.
pub(crate) struct Bare {
    runtime: Runtime,
    client: Client,
}

impl Bare {
    pub(crate) fn connect(server: &Server) -> Result<Self> {
        let runtime = runtime()?;
        let client = runtime.block_on(Client::connect([server.url()], None)).context("can't connect")?;
        Ok(Self { runtime, client })
    }

    /// Seconds for each of so many round trips.
    fn trips(&mut self, count: u32) -> Result<f64> {
        each(&self.runtime, count, async || put(&mut self.client).await)
    }

    /// The seconds of one in the middle of so many.
    pub(crate) fn trip(&mut self, count: u32) -> Result<f64> {
        median(&self.runtime, count, async || put(&mut self.client).await)
    }
}

async fn put(client: &mut Client) -> Result<()> {
    let put = Txn::new().and_then([TxnOp::put("bare", "value", None)]);
    black_box(client.txn(put).await?);
    Ok(())
}
