//! The task beside the steps: it listens on the one watch stream, and ends what is to end at an instant.

use std::sync::Arc;
use std::time::Duration;

use locks_api::{Boottime, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::StreamExt as _;
use tonic::Streaming;

use crate::link::Session;
use crate::messages::{Op, WatchRequest, WatchResponse};
use crate::queue::Queue;
use crate::store::{PATIENCE, Store};
use crate::txns;
use crate::watches::Heard;

/// The pause after the cluster could not be reached or refused to watch: doubled each time up to a second.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How many queues are read at once.
const READ_AT_ONCE: usize = 64;

/// Listens until the store is closed.
pub(crate) async fn run(store: Arc<Store>) {
    let mut pause = FIRST_PAUSE;
    while !store.known.is_closed() {
        if !store.known.wants_to_watch() {
            wait(&store, None).await;
            end_what_is_due(&store).await;
            continue;
        }
        let listened = match store.link.session().await {
            Ok(session) => listen(&store, &session).await,
            Err(error) => Err(error),
        };
        store.known.unwatch_all();
        match listened {
            Ok(()) => pause = FIRST_PAUSE,
            Err(_) => {
                // Those who wait ask by themselves, and hear what is wrong.
                wait(&store, Some(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        end_what_is_due(&store).await;
    }
}

/// Waits for a change of what is of interest, or until something is due; or for this long, whatever changes.
async fn wait(store: &Store, pause: Option<Duration>) {
    if let Some(pause) = pause {
        let until = Instant::now() + pause;
        while !store.known.is_closed() && timeout_at(until, store.known.wake.notified()).await.is_ok() {}
        return;
    }
    match store.known.next_due() {
        Some(at) => {
            // Either way there is something to look at.
            drop(timeout(at.since(Boottime::now()), store.known.wake.notified()).await);
        }
        None => store.known.wake.notified().await,
    }
}

/// Listens over this connection until it ends. An error says that it makes no sense to begin again at once.
async fn listen(store: &Store, session: &Session) -> Result<()> {
    let (orders, receiver) = mpsc::unbounded_channel();
    let mut asked = false;
    for order in store.known.orders() {
        asked |= orders.send(order).is_ok();
    }
    if !asked {
        // Whatever changed needs no watch.
        return Ok(());
    }
    let caller = session.caller();
    let begun = timeout(PATIENCE, caller.watch(receiver)).await;
    let outcome = match begun {
        Ok(Ok(words)) => follow(store, session, &orders, words).await,
        Ok(Err(status)) => Err(crate::error::classify(&status)),
        Err(_) => Err(crate::error::strange("the watch was not answered")),
    };
    if outcome.is_err() {
        session.give_up();
    }
    if let Some(events) = store.known.events() {
        events.resync();
    }
    outcome
}

async fn follow(
    store: &Store,
    session: &Session,
    orders: &mpsc::UnboundedSender<WatchRequest>,
    mut words: Streaming<WatchResponse>,
) -> Result<()> {
    let refused = || locks_api::Error::new(ErrorKind::Unavailable, "the cluster refused to watch");
    loop {
        let word = tokio::select! {
            () = session.ended() => return Ok(()),
            () = wait(store, None) => None,
            word = words.next() => match word {
                Some(Ok(word)) => Some(word),
                // Lost its leader, or is shutting down: another member may do.
                Some(Err(_)) | None => {
                    session.give_up();
                    return Ok(());
                }
            },
        };
        if store.known.is_closed() {
            return Ok(());
        }
        // What has come already is heard first, so that queues are read many at once.
        let (mut next, mut heard) = (word, 0);
        while let Some(word) = next.take() {
            store.link.note(word.header.as_ref(), 0)?;
            if store.known.hear(word) == Heard::Refused {
                return Err(refused());
            }
            heard += 1;
            if heard == READ_AT_ONCE {
                break;
            }
            next = tokio::select! {
                biased;
                word = words.next() => match word {
                    Some(Ok(word)) => Some(word),
                    Some(Err(_)) | None => {
                        session.give_up();
                        return Ok(());
                    }
                },
                () = std::future::ready(()) => None,
            };
        }
        read_queues(store).await?;
        end_what_is_due(store).await;
        for order in store.known.orders() {
            if orders.send(order).is_err() {
                return Ok(());
            }
        }
    }
}

/// Reads the queues of locks whose watches have just begun: what happened before that is told by nobody.
async fn read_queues(store: &Store) -> Result<()> {
    loop {
        let unread = store.known.unread(READ_AT_ONCE);
        if unread.is_empty() {
            return Ok(());
        }
        let (names, ranges): (Vec<_>, Vec<_>) = unread.into_iter().unzip();
        let ranges = ranges.into_iter().map(|range| txns::of(Op::Range(range))).collect();
        let answer = store.link.txn(txns::when(Vec::new(), ranges), PATIENCE).await?;
        let revision = txns::revision(&answer);
        for (name, range) in names.iter().zip(txns::ranges(answer.responses)) {
            let queue = Queue::read(&store.known.keys, range.kvs)?;
            store.known.read(name, queue, revision);
        }
    }
}

/// Ends minimum holds that are over, and holds that nobody renewed while others kept their lease alive.
async fn end_what_is_due(store: &Store) {
    let (rests, ended) = store.known.due();
    for lease in rests {
        // It ends by itself a moment later if that does not arrive.
        drop(store.link.call(PATIENCE, |caller| async move { caller.revoke_lease(lease).await }).await);
    }
    if !ended.is_empty() {
        store.delete(ended).await;
    }
}
