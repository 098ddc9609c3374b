//! What happens on the proxy's thread: connections, and what they carry.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{Shutdown, shutdown};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{Direction, Settings, Shared};
use crate::recording;
use crate::verdict::pause_for;

/// How much one read brings at most.
const CHUNK: usize = 16 * 1024;

/// How many chunks are held back for one direction of a connection before the sender has to wait.
const DEPTH: usize = 64;

/// How often a second a line of little bandwidth carries something.
const PIECES_A_SECOND: u32 = 20;

/// Accepts and forwards until the proxy is stopped.
pub(super) async fn serve(listener: &TcpListener, upstream: SocketAddr, shared: &Arc<Shared>) {
    let mut settings = shared.settings.subscribe();
    let mut lines = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            biased;
            () = until(&mut settings, |settings| settings.stopped) => return,
            Some(ended) = lines.join_next() => ended.expect("a line does not panic"),
            accepted = listener.accept() => match accepted {
                Ok((client, _)) if shared.settings.borrow().refuses => cut(&client),
                Ok((client, _)) => {
                    number += 1;
                    let shared = Arc::clone(shared);
                    let line = Line::new(client, shared, number);
                    lines.spawn(async move { line.run(upstream).await });
                }
                // Out of descriptors, or the client is gone already.
                Err(_) => pause_for(Duration::from_millis(10)).await,
            },
        }
    }
}

/// One connection of a client.
struct Line {
    client: TcpStream,
    shared: Arc<Shared>,
    number: u64,
    /// How many cuts and closings there had been when it began.
    cuts: u64,
    closes: u64,
    /// What the store says next is to be lost.
    doomed: AtomicBool,
}

/// How a connection ends before both sides have ended it.
#[derive(Debug)]
enum End {
    Cut,
    Closed,
}

/// What is under way.
struct Parcel {
    due: Instant,
    what: What,
}

enum What {
    Bytes(Vec<u8>),
    /// The sender says nothing more.
    End,
    /// The sender's connection is broken.
    Broken,
}

impl Line {
    fn new(client: TcpStream, shared: Arc<Shared>, number: u64) -> Self {
        shared.open.fetch_add(1, Ordering::SeqCst);
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let (cuts, closes) = {
            let settings = shared.settings.borrow();
            (settings.cuts, settings.closes)
        };
        Self { client, shared, number, cuts, closes, doomed: AtomicBool::new(false) }
    }

    async fn run(&self, upstream: SocketAddr) {
        let store = tokio::select! {
            biased;
            // Nobody but the client is there yet.
            end = self.is_ended() => return self.end(end, &[&self.client]).await,
            store = self.reach(upstream) => match store {
                Ok(store) => store,
                Err(_) => return cut(&self.client),
            },
        };
        let end = tokio::select! {
            biased;
            end = self.is_ended() => end,
            carried = self.carry(&store) => match carried {
                Ok(()) => return,
                Err(end) => end,
            },
        };
        self.end(end, &[&self.client, &store]).await;
    }

    /// Ready when this connection is to be cut or closed.
    async fn is_ended(&self) -> End {
        let mut settings = self.shared.settings.subscribe();
        until(&mut settings, |now| now.cuts > self.cuts || now.closes > self.closes).await;
        if settings.borrow().cuts > self.cuts { End::Cut } else { End::Closed }
    }

    async fn reach(&self, upstream: SocketAddr) -> io::Result<TcpStream> {
        let mut settings = self.shared.settings.subscribe();
        until(&mut settings, |now| !now.ways[Direction::Requests as usize].silent).await;
        let socket = if upstream.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // If this connection is cut before it is known to stand, the store may know it already.
        set_socket_linger(&socket, Some(Duration::ZERO))?;
        let store = socket.connect(upstream).await?;
        set_socket_linger(&store, None)?;
        store.set_nodelay(true)?;
        self.client.set_nodelay(true)?;
        Ok(store)
    }

    /// Forwards both ways until both sides have said all.
    async fn carry(&self, store: &TcpStream) -> Result<(), End> {
        let (asked, requests) = mpsc::channel(DEPTH);
        let (answered, replies) = mpsc::channel(DEPTH);
        tokio::try_join!(
            self.take_in(Direction::Requests, &self.client, asked),
            self.hand_out(Direction::Requests, store, requests),
            self.take_in(Direction::Replies, store, answered),
            self.hand_out(Direction::Replies, &self.client, replies),
        )
        .map(drop)
    }

    async fn take_in(
        &self,
        direction: Direction,
        from: &TcpStream,
        queue: mpsc::Sender<Parcel>,
    ) -> Result<(), End> {
        let lane = self.number * 2 + direction as u64;
        let mut random = Rng::with_seed(self.shared.seed.wrapping_add(lane));
        let mut buffer = vec![0; CHUNK];
        let mut last_due = Instant::now();
        loop {
            let what = match read(from, &mut buffer).await {
                Ok(0) => What::End,
                Ok(length) => What::Bytes(buffer[..length].to_vec()),
                Err(_) => What::Broken,
            };
            if direction == Direction::Replies && self.doomed.load(Ordering::SeqCst) {
                self.shared.replies_lost.fetch_add(1, Ordering::SeqCst);
                recording::strikes(self.shared.target, "a reply is lost");
                return Err(End::Cut);
            }
            let takes = takes(&self.shared.settings.borrow(), direction, &mut random);
            last_due = last_due.max(Instant::now() + takes);
            let is_last = !matches!(what, What::Bytes(_));
            if queue.send(Parcel { due: last_due, what }).await.is_err() || is_last {
                return Ok(());
            }
        }
    }

    async fn hand_out(
        &self,
        direction: Direction,
        to: &TcpStream,
        mut queue: mpsc::Receiver<Parcel>,
    ) -> Result<(), End> {
        let mut settings = self.shared.settings.subscribe();
        let passed = &self.shared.passed[direction as usize];
        let mut counted = Counted::default();
        while let Some(parcel) = queue.recv().await {
            sleep_until(parcel.due).await;
            until(&mut settings, |now| !now.ways[direction as usize].silent).await;
            match parcel.what {
                What::Bytes(bytes) => {
                    if direction == Direction::Requests && counted.is_the_one(&self.shared) {
                        self.doomed.store(true, Ordering::SeqCst);
                    }
                    self.pass_on(direction, &bytes, to, &mut settings).await?;
                    passed.chunks.fetch_add(1, Ordering::SeqCst);
                }
                // The other side may be gone, which it learns by itself.
                What::End => return shutdown(to, Shutdown::Write).or(Ok(())),
                What::Broken => return Err(End::Cut),
            }
        }
        Ok(())
    }

    /// Writes all, as slowly as the bandwidth asks for.
    async fn pass_on(
        &self,
        direction: Direction,
        mut rest: &[u8],
        to: &TcpStream,
        settings: &mut watch::Receiver<Settings>,
    ) -> Result<(), End> {
        while !rest.is_empty() {
            let bandwidth = settings.borrow().bandwidth;
            let length = match bandwidth {
                Some(rate) => {
                    let piece = (rate / PIECES_A_SECOND).max(1);
                    let length = rest.len().min(usize::try_from(piece).unwrap_or(usize::MAX));
                    let share = u32::try_from(length).unwrap_or(u32::MAX);
                    sleep_until(Instant::now() + Duration::from_secs(1) * share / rate).await;
                    length
                }
                None => rest.len(),
            };
            until(settings, |now| !now.ways[direction as usize].silent).await;
            write_all(to, &rest[..length]).await.map_err(|_| End::Cut)?;
            self.shared.passed[direction as usize].bytes.fetch_add(length as u64, Ordering::SeqCst);
            rest = &rest[length..];
        }
        Ok(())
    }

    async fn end(&self, end: End, streams: &[&TcpStream]) {
        match end {
            End::Cut => streams.iter().for_each(|stream| cut(stream)),
            End::Closed => {
                for stream in streams {
                    // Already ended is as good.
                    shutdown(stream, Shutdown::Write).unwrap_or_default();
                }
                for stream in streams {
                    // Closing with something unread would be a reset.
                    let mut rest = vec![0; CHUNK];
                    while read(stream, &mut rest).await.is_ok_and(|length| length > 0) {}
                }
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How many chunks a connection has seen since an answer was last marked as to be lost.
#[derive(Default)]
struct Counted {
    arming: u64,
    chunks: u32,
}

impl Counted {
    /// Counts one more. Whether its answer is the one to be lost.
    fn is_the_one(&mut self, shared: &Shared) -> bool {
        let mut armed = shared.armed();
        let Some(wanted) = *armed else { return false };
        if self.arming != wanted.arming {
            *self = Self { arming: wanted.arming, chunks: 0 };
        }
        self.chunks += 1;
        let is_the_one = self.chunks == wanted.nth;
        if is_the_one {
            *armed = None;
        }
        is_the_one
    }
}

/// How long a chunk is under way.
fn takes(settings: &Settings, direction: Direction, random: &mut Rng) -> Duration {
    let (least, most) = (*settings.jitter.start(), *settings.jitter.end());
    let spread = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(u64::MAX);
    settings.ways[direction as usize].delay + least + Duration::from_micros(random.u64(..=spread))
}

/// Waits until the settings are like this.
async fn until(
    settings: &mut watch::Receiver<Settings>,
    condition: impl Fn(&Settings) -> bool + Send + Sync,
) {
    // There is an error only if nobody is left who could change them, and then this task goes too.
    settings.wait_for(|now| condition(now)).await.map(drop).unwrap_or_default();
}

/// Has the connection end with a reset once it is dropped.
fn cut(stream: &TcpStream) {
    // A socket that is there takes this.
    set_socket_linger(stream, Some(Duration::ZERO)).unwrap_or_default();
}

async fn read(from: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        from.readable().await?;
        match from.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

async fn write_all(to: &TcpStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        to.writable().await?;
        match to.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_jitter() {
        let shared = Shared::new(0, recording::Target::Line(0));
        let (least, most) = (Duration::from_millis(10), Duration::from_millis(40));
        shared.settings.send_modify(|settings| settings.jitter = least..=most);
        let draw = |seed| {
            let mut random = Rng::with_seed(seed);
            let settings = shared.settings.borrow();
            (0..20).map(|_| takes(&settings, Direction::Replies, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).iter().all(|time| (least..=most).contains(time)));
    }
}
