//! The proxy between real sockets: every fault, from the client's side and from the store's.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "all of this file is a test, its helpers too")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use locks_conformance::proxy::{Direction, Proxy};

/// Long enough for anything that happens at all.
const LONG: Duration = Duration::from_secs(20);

/// Long enough to notice most things that happen and should not.
const SHORT: Duration = Duration::from_millis(100);

/// One line, with both of its ends.
struct Ends {
    proxy: Proxy,
    listener: TcpListener,
    client: TcpStream,
    store: TcpStream,
}

impl Ends {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
        let (client, store) = connect(&proxy, &listener);
        Self { proxy, listener, client, store }
    }

    /// Asks and answers once; what the store got and what the client got.
    fn exchange(&mut self) {
        self.client.write_all(b"ask").unwrap();
        assert_eq!(get(&mut self.store, 3).unwrap(), b"ask");
        self.store.write_all(b"answer").unwrap();
        assert_eq!(get(&mut self.client, 6).unwrap(), b"answer");
    }
}

fn connect(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = dial(proxy);
    let (store, _) = listener.accept().unwrap();
    store.set_read_timeout(Some(LONG)).unwrap();
    (client, store)
}

fn dial(proxy: &Proxy) -> TcpStream {
    let client = TcpStream::connect(proxy.address()).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client
}

fn get(from: &mut TcpStream, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).map(|()| bytes)
}

/// Nothing comes, and no end either.
fn is_silent(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(SHORT)).unwrap();
    let heard = stream.read(&mut [0; 16]).map_err(|error| error.kind());
    assert_eq!(heard, Err(ErrorKind::WouldBlock));
    stream.set_read_timeout(Some(LONG)).unwrap();
}

fn is_reset(stream: &mut TcpStream) {
    let heard = stream.read(&mut [0; 16]).map_err(|error| error.kind());
    assert_eq!(heard, Err(ErrorKind::ConnectionReset));
}

fn is_ended(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LONG, "{what}");
        thread::yield_now();
    }
}

#[test]
fn what_is_said_arrives_and_is_counted() {
    let mut ends = Ends::new();
    ends.exchange();
    ends.exchange();
    assert_eq!((ends.proxy.connections(), ends.proxy.accepted()), (1, 1));
    eventually("the second answer is counted", || ends.proxy.replies() == 2);
    assert_eq!(ends.proxy.requests(), 2);
    assert_eq!((ends.proxy.bytes(Direction::Requests), ends.proxy.bytes(Direction::Replies)), (6, 12));
    drop(ends.client);
    is_ended(&mut ends.store);
    drop(ends.store);
    eventually("the connection is gone", || ends.proxy.connections() == 0);
}

#[test]
fn a_half_that_is_said_to_the_end_leaves_the_other_open() {
    let mut ends = Ends::new();
    ends.client.shutdown(std::net::Shutdown::Write).unwrap();
    is_ended(&mut ends.store);
    ends.store.write_all(b"bye").unwrap();
    assert_eq!(get(&mut ends.client, 3).unwrap(), b"bye");
}

#[test]
fn much_arrives_in_order() {
    let ends = Ends::new();
    let sent: Vec<u8> = (0..4_000_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
    let (mut client, mut store) = (ends.client, ends.store);
    let expected = sent.clone();
    let sending = thread::spawn(move || client.write_all(&sent).map(|()| client));
    assert!(get(&mut store, expected.len()).unwrap() == expected);
    sending.join().unwrap().unwrap();
}

#[test]
fn a_black_hole_is_silent_and_delivers_late() {
    let mut ends = Ends::new();
    ends.exchange();
    ends.proxy.black_hole();
    ends.client.write_all(b"late question").unwrap();
    ends.store.write_all(b"late answer").unwrap();
    is_silent(&mut ends.store);
    is_silent(&mut ends.client);
    // New ones are accepted and get no further.
    let mut other = dial(&ends.proxy);
    other.write_all(b"?").unwrap();
    is_silent(&mut other);
    assert_eq!(ends.proxy.requests(), 1);
    ends.proxy.restore();
    assert_eq!(get(&mut ends.store, 13).unwrap(), b"late question");
    assert_eq!(get(&mut ends.client, 11).unwrap(), b"late answer");
    let (mut store, _) = ends.listener.accept().unwrap();
    assert_eq!(get(&mut store, 1).unwrap(), b"?");
}

#[test]
fn a_black_hole_hides_ends_and_breaks() {
    let mut ends = Ends::new();
    ends.proxy.black_hole();
    drop(ends.client);
    is_silent(&mut ends.store);
    ends.proxy.restore();
    is_ended(&mut ends.store);
}

#[test]
fn what_a_black_hole_holds_is_gone_after_a_cut() {
    let mut ends = Ends::new();
    ends.proxy.black_hole();
    ends.client.write_all(b"lost").unwrap();
    is_silent(&mut ends.store);
    ends.proxy.reset();
    ends.proxy.restore();
    is_reset(&mut ends.store);
    is_reset(&mut ends.client);
}

#[test]
fn half_open_lines_pass_one_way() {
    let mut ends = Ends::new();
    ends.proxy.half_open(Direction::Replies);
    ends.client.write_all(b"ask").unwrap();
    assert_eq!(get(&mut ends.store, 3).unwrap(), b"ask");
    ends.store.write_all(b"answer").unwrap();
    is_silent(&mut ends.client);
    ends.proxy.restore();
    assert_eq!(get(&mut ends.client, 6).unwrap(), b"answer");

    ends.proxy.half_open(Direction::Requests);
    ends.store.write_all(b"push").unwrap();
    assert_eq!(get(&mut ends.client, 4).unwrap(), b"push");
    ends.client.write_all(b"ask").unwrap();
    is_silent(&mut ends.store);
    ends.proxy.restore();
    assert_eq!(get(&mut ends.store, 3).unwrap(), b"ask");
}

#[test]
fn a_reset_cuts_all_and_new_ones_pass() {
    let mut ends = Ends::new();
    let (mut client, mut store) = connect(&ends.proxy, &ends.listener);
    ends.proxy.reset();
    for stream in [&mut ends.client, &mut ends.store, &mut client, &mut store] {
        is_reset(stream);
    }
    eventually("the connections are gone", || ends.proxy.connections() == 0);
    (ends.client, ends.store) = connect(&ends.proxy, &ends.listener);
    ends.exchange();
}

#[test]
fn closing_is_an_orderly_end() {
    let mut ends = Ends::new();
    ends.client.write_all(b"ask").unwrap();
    assert_eq!(get(&mut ends.store, 3).unwrap(), b"ask");
    ends.proxy.close();
    is_ended(&mut ends.client);
    is_ended(&mut ends.store);
    drop((ends.client, ends.store));
    eventually("the connection is gone", || ends.proxy.connections() == 0);
}

#[test]
fn refused_ones_are_reset_and_open_ones_go_on() {
    let mut ends = Ends::new();
    ends.proxy.refuse();
    is_reset(&mut dial(&ends.proxy));
    ends.exchange();
    assert_eq!(ends.proxy.accepted(), 1);
    ends.proxy.restore();
    (ends.client, ends.store) = connect(&ends.proxy, &ends.listener);
    ends.exchange();
}

#[test]
fn without_a_store_connections_are_reset() {
    let ends = Ends::new();
    drop(ends.listener);
    is_reset(&mut dial(&ends.proxy));
}

#[test]
fn delays_add_up_both_ways() {
    const DELAY: Duration = Duration::from_millis(60);
    let mut ends = Ends::new();
    ends.proxy.delay(DELAY);
    let began = Instant::now();
    ends.exchange();
    assert!(began.elapsed() >= DELAY * 2);
    ends.proxy.delay(Duration::ZERO);
    ends.proxy.delay_one_way(Direction::Replies, DELAY);
    let began = Instant::now();
    ends.client.write_all(b"ask").unwrap();
    assert_eq!(get(&mut ends.store, 3).unwrap(), b"ask");
    ends.store.write_all(b"answer").unwrap();
    assert_eq!(get(&mut ends.client, 6).unwrap(), b"answer");
    assert!(began.elapsed() >= DELAY);
}

#[test]
fn jitter_takes_its_time_and_keeps_the_order() {
    const LEAST: Duration = Duration::from_millis(30);
    let mut ends = Ends::new();
    ends.proxy.jitter(LEAST..=LEAST * 2);
    let began = Instant::now();
    ends.exchange();
    assert!(began.elapsed() >= LEAST * 2);
    ends.proxy.jitter(Duration::ZERO..=Duration::from_millis(20));
    let expected: Vec<u8> = (0..50).collect();
    for number in &expected {
        ends.client.write_all(&[*number]).unwrap();
        thread::yield_now();
    }
    assert_eq!(get(&mut ends.store, 50).unwrap(), expected);
}

#[test]
fn little_bandwidth_takes_its_time() {
    let mut ends = Ends::new();
    ends.proxy.bandwidth(2_000);
    let began = Instant::now();
    ends.client.write_all(&[7; 1_000]).unwrap();
    assert_eq!(get(&mut ends.store, 1_000).unwrap(), [7; 1_000]);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(450), "{took:?}");
    // One that is still under way goes fast once the line is good again.
    ends.proxy.bandwidth(1);
    ends.client.write_all(&[8; 1_000]).unwrap();
    ends.proxy.restore();
    assert_eq!(get(&mut ends.store, 1_000).unwrap(), [8; 1_000]);
}

#[test]
fn the_nth_answer_is_lost_after_its_request_arrived() {
    for nth in 1..=3 {
        let mut ends = Ends::new();
        ends.exchange();
        ends.proxy.lose_reply(nth);
        for _ in 1..nth {
            ends.exchange();
        }
        ends.client.write_all(b"ask").unwrap();
        assert_eq!(get(&mut ends.store, 3).unwrap(), b"ask");
        assert_eq!(ends.proxy.replies_lost(), 0);
        ends.store.write_all(b"answer").unwrap();
        is_reset(&mut ends.client);
        is_reset(&mut ends.store);
        assert_eq!(ends.proxy.replies_lost(), 1);
        // Once only.
        (ends.client, ends.store) = connect(&ends.proxy, &ends.listener);
        ends.exchange();
    }
}

#[test]
fn each_connection_counts_for_itself_and_restoring_forgets() {
    let mut ends = Ends::new();
    let (mut client, mut store) = connect(&ends.proxy, &ends.listener);
    ends.proxy.lose_reply(2);
    ends.exchange();
    (client, ends.client) = (ends.client, client);
    (store, ends.store) = (ends.store, store);
    ends.exchange();
    ends.proxy.restore();
    ends.exchange();
    drop((client, store));
    assert_eq!(ends.proxy.replies_lost(), 0);
}

#[test]
fn with_the_last_clone_everything_is_gone() {
    let mut ends = Ends::new();
    let clone = ends.proxy.clone();
    drop(ends.proxy);
    ends.client.write_all(b"ask").unwrap();
    assert_eq!(get(&mut ends.store, 3).unwrap(), b"ask");
    let address = clone.address();
    clone.black_hole();
    drop(clone);
    is_ended(&mut ends.client);
    is_ended(&mut ends.store);
    assert!(TcpStream::connect(address).is_err());
}
