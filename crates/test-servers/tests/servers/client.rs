//! As much of a Redis client as the tests need.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use locks_test_servers::Redis;

const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    pub(crate) fn of(redis: &Redis) -> Self {
        Self { stream: TcpStream::connect(redis.address()).unwrap() }
    }

    pub(crate) fn send(&mut self, command: &str) {
        self.stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    }

    /// The reply as it came, without its last line break. Replies here are short and come in one piece.
    pub(crate) fn reply_within(&mut self, limit: Duration) -> Option<String> {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        let mut reply = [0; 16 * 1024];
        match self.stream.read(&mut reply) {
            Ok(length) => Some(String::from_utf8_lossy(&reply[..length]).trim_end().to_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            // A time limit on a socket turns off that the kernel goes on after a signal by itself.
            Err(error) if error.kind() == ErrorKind::Interrupted => self.reply_within(limit),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.reply_within(LIMIT).expect("a reply")
    }
}
