//! A TCP proxy that makes a good line bad: silent, slow, cut, or losing one certain answer.
//!
//! It forwards what comes, in user space and without privileges, on a thread of its own, so that a starved runtime
//! of the caller does not slow it down. Faults are brought about while connections are open.

mod line;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::watch;

use crate::recording::{self, Target};

/// Which way something goes over the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Direction {
    /// From the client to the store.
    Requests,
    /// From the store to the client.
    Replies,
}

impl Direction {
    const BOTH: [Self; 2] = [Self::Requests, Self::Replies];
}

/// A proxy before one address. Cloning is cheap and gives the same proxy; with the last clone its thread, its
/// listener and its connections are gone.
///
/// Faults add up until [`restore`](Self::restore) ends them. A *chunk* is what one read brought: with a client that waits for each
/// answer, a request.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::{TcpListener, TcpStream};
///
/// use locks_conformance::proxy::Proxy;
///
/// let store = TcpListener::bind("127.0.0.1:0")?;
/// let proxy = Proxy::start(store.local_addr()?)?;
/// let mut client = TcpStream::connect(proxy.address())?;
/// let (mut served, _) = store.accept()?;
/// proxy.black_hole();
/// client.write_all(b"anybody there?")?;
/// proxy.reset();
/// assert!(client.read(&mut [0; 8]).is_err());
/// assert!(served.read(&mut [0; 8]).is_err());
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy on a free port of the loopback interface that forwards to `upstream`. Its jitter is always the same.
    ///
    /// # Errors
    ///
    /// If there is no port, thread or descriptor to be had.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        Self::start_seeded(upstream, 0)
    }

    /// The same, with a jitter that follows from `seed`.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_seeded(upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(seed, Target::Line(address.port())));
        let (started, result) = mpsc::sync_channel(1);
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("wire-proxy".into())
            .spawn(move || run(listener, upstream, &theirs, &started))?;
        let inner = Inner { address, shared, thread: Some(thread) };
        result.recv().map_err(io::Error::other)??;
        Ok(Self(Arc::new(inner)))
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Ends all faults. What was held back arrives now, late; what is delayed arrives when it is due.
    pub fn restore(&self) {
        recording::ends(self.target());
        *self.0.shared.armed() = None;
        self.change(|settings| {
            settings.ways = Default::default();
            settings.refuses = false;
            settings.jitter = Duration::ZERO..=Duration::ZERO;
            settings.bandwidth = None;
        });
    }

    /// Nothing passes any more, either way, not even that a connection has ended. Open connections stay open, new ones are accepted.
    pub fn black_hole(&self) {
        recording::begins(self.target(), "silent both ways");
        self.change(|settings| Direction::BOTH.map(|way| settings.ways[way as usize].silent = true));
    }

    /// Nothing passes this way any more, while the other way is as it was.
    pub fn half_open(&self, silent: Direction) {
        recording::begins(
            self.target(),
            match silent {
                Direction::Requests => "requests don't arrive",
                Direction::Replies => "replies don't arrive",
            },
        );
        self.change(|settings| settings.ways[silent as usize].silent = true);
    }

    /// Cuts all connections to either side with a reset. What was held back is gone.
    pub fn reset(&self) {
        recording::strikes(self.target(), "reset");
        self.change(|settings| settings.cuts += 1);
    }

    /// Cuts every new connection at once with a reset. Open ones go on.
    pub fn refuse(&self) {
        recording::begins(self.target(), "new connections are refused");
        self.change(|settings| settings.refuses = true);
    }

    /// Ends all connections to either side in good order. What was held back is gone.
    pub fn close(&self) {
        recording::strikes(self.target(), "closed");
        self.change(|settings| settings.closes += 1);
    }

    /// Each chunk takes so much longer, each way.
    pub fn delay(&self, time: Duration) {
        recording::begins(self.target(), "slow");
        self.change(|settings| Direction::BOTH.map(|way| settings.ways[way as usize].delay = time));
    }

    /// Each chunk that goes this way takes so much longer.
    pub fn delay_one_way(&self, direction: Direction, time: Duration) {
        recording::begins(self.target(), "slow one way");
        self.change(|settings| settings.ways[direction as usize].delay = time);
    }

    /// Each chunk takes longer again, by a time from this range. Chunks of one connection keep their order.
    pub fn jitter(&self, range: RangeInclusive<Duration>) {
        recording::begins(self.target(), "unsteady");
        self.change(|settings| settings.jitter = range);
    }

    /// Each connection carries at most so many bytes a second, each way. Zero counts as one.
    pub fn bandwidth(&self, bytes_per_second: u32) {
        recording::begins(self.target(), "narrow");
        self.change(|settings| settings.bandwidth = Some(bytes_per_second.max(1)));
    }

    /// Swallows the answer to the `nth` chunk from now that a client sends, and cuts that connection with a reset, so
    /// that the client can't know whether its request was carried out. Each connection counts for itself, and the first that gets there
    /// is the only one. The answer is whatever the store says next on the connection. Zero counts as one.
    pub fn lose_reply(&self, nth: u32) {
        recording::strikes(self.target(), "will lose a reply");
        let arming = self.0.shared.armings.fetch_add(1, Ordering::Relaxed) + 1;
        *self.0.shared.armed() = Some(Armed { arming, nth: nth.max(1) });
    }

    /// How many connections are open, seen from the clients.
    pub fn connections(&self) -> usize {
        self.0.shared.open.load(Ordering::SeqCst)
    }

    /// How many connections were ever accepted, without those refused.
    pub fn accepted(&self) -> u64 {
        self.0.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many chunks have reached the store.
    pub fn requests(&self) -> u64 {
        self.0.shared.passed[Direction::Requests as usize].chunks.load(Ordering::SeqCst)
    }

    /// How many chunks have reached a client.
    pub fn replies(&self) -> u64 {
        self.0.shared.passed[Direction::Replies as usize].chunks.load(Ordering::SeqCst)
    }

    /// How many bytes have gone this way.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.0.shared.passed[direction as usize].bytes.load(Ordering::SeqCst)
    }

    /// How many answers [`lose_reply`](Self::lose_reply) has swallowed.
    pub fn replies_lost(&self) -> u64 {
        self.0.shared.replies_lost.load(Ordering::SeqCst)
    }

    /// What records of faults call it.
    fn target(&self) -> Target {
        self.0.shared.target
    }

    fn change<T>(&self, how: impl FnOnce(&mut Settings) -> T) {
        self.0.shared.settings.send_modify(|settings| {
            how(settings);
        });
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address())
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.settings.send_modify(|settings| settings.stopped = true);
        if let Some(thread) = self.thread.take() {
            // It has said on standard error why it panicked, if it did.
            thread.join().unwrap_or_default();
        }
    }
}

/// What clones of a proxy and its thread share.
#[derive(Debug)]
struct Shared {
    seed: u64,
    target: Target,
    settings: watch::Sender<Settings>,
    armed: Mutex<Option<Armed>>,
    armings: AtomicU64,
    open: AtomicUsize,
    accepted: AtomicU64,
    passed: [Passed; 2],
    replies_lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Passed {
    chunks: AtomicU64,
    bytes: AtomicU64,
}

/// How bad the line is.
#[derive(Clone, Debug)]
struct Settings {
    /// By [`Direction`].
    ways: [Way; 2],
    refuses: bool,
    jitter: RangeInclusive<Duration>,
    bandwidth: Option<u32>,
    /// A connection that was made before one of these counts grew is ended.
    cuts: u64,
    closes: u64,
    stopped: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Way {
    silent: bool,
    delay: Duration,
}

/// The answer to the `nth` chunk of a connection is to be lost.
#[derive(Clone, Copy, Debug)]
struct Armed {
    arming: u64,
    nth: u32,
}

impl Shared {
    fn new(seed: u64, target: Target) -> Self {
        let settings = Settings {
            ways: Default::default(),
            refuses: false,
            jitter: Duration::ZERO..=Duration::ZERO,
            bandwidth: None,
            cuts: 0,
            closes: 0,
            stopped: false,
        };
        Self {
            seed,
            target,
            settings: watch::Sender::new(settings),
            armed: Mutex::default(),
            armings: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            passed: Default::default(),
            replies_lost: AtomicU64::new(0),
        }
    }

    fn armed(&self) -> MutexGuard<'_, Option<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread of a proxy.
fn run(
    listener: std::net::TcpListener,
    upstream: SocketAddr,
    shared: &Arc<Shared>,
    started: &mpsc::SyncSender<io::Result<()>>,
) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        // Whoever started the thread waits for this.
        Err(error) => return started.send(Err(error)).unwrap_or_default(),
    };
    runtime.block_on(async {
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                started.send(Ok(())).unwrap_or_default();
                line::serve(&listener, upstream, shared).await;
            }
            Err(error) => started.send(Err(error)).unwrap_or_default(),
        }
    });
}
