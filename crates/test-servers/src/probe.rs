//! Whether a server answers, each in its own language: a few bytes there, a few bytes back.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use crate::mariadb::is_reception;
use crate::postgres::STARTUP;
use crate::technology::Technology;

/// Whether the server at this URL takes connections within this time and, if they are not encrypted, speaks its language.
pub(crate) fn answers(technology: Technology, url: &str, limit: Duration) -> io::Result<()> {
    let address = address(url, technology.default_port())?;
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    if url.starts_with("rediss:") || url.starts_with("etcds:") {
        return Ok(());
    }
    if speaks(technology, &mut stream)? {
        Ok(())
    } else {
        Err(io::Error::other("it is still loading, or is something else"))
    }
}

/// Whether the server that wrote this log is ready and answers at this address.
pub(crate) fn is_ready(technology: Technology, address: SocketAddr, log: &str) -> bool {
    // An answer alone might come from somebody else's server on the port. The server may die any time, which its keeper reports.
    ready_words(technology).iter().any(|words| log.contains(words)) && is_up(technology, address, ANSWER)
}

/// Whether the server that wrote this log ended because somebody else has its port.
pub(crate) fn is_port_taken(log: &str) -> bool {
    // Go has it without the capital letter.
    log.contains("ddress already in use")
}

/// How long one answer may take while a server comes up.
const ANSWER: Duration = Duration::from_secs(2);

/// Said by a server when it has its port.
fn ready_words(technology: Technology) -> &'static [&'static str] {
    match technology {
        Technology::Redis => &["Ready to accept connections"],
        // The second is a standby's.
        Technology::Postgres => {
            &["system is ready to accept connections", "system is ready to accept read-only connections"]
        }
        Technology::PgBouncer => &["process up: "],
        Technology::Etcd => &["ready to serve client requests"],
        Technology::MariaDb => &[": ready for connections"],
    }
}

/// Whether the server at this address takes connections within this time and answers.
pub(crate) fn is_up(technology: Technology, address: SocketAddr, limit: Duration) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        speaks(technology, &mut stream)
    };
    ask().unwrap_or(false)
}

/// Whether the etcd node at this address answers and leads its cluster.
pub(crate) fn leads(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        ask_for_all(&mut stream, b"POST /v3/maintenance/status HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
    };
    let status = ask().unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    // {"header":{"cluster_id":"1","member_id":"2",..},..,"leader":"2",..}
    let number = |name| status.split_once(name)?.1.split('"').next();
    let (member, leader) = (number("\"member_id\":\""), number("\"leader\":\""));
    member.is_some() && member == leader
}

/// The address that a URL names: "redis://user:password@host:port/0". Of several hosts it is the first one's.
pub(crate) fn address(url: &str, default_port: u16) -> io::Result<SocketAddr> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or(authority);
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let host = hosts.split(',').next().unwrap_or(hosts);
    let has_port = host.rsplit_once(':').is_some_and(|(name, port)| {
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && (!name.contains(':') || name.ends_with(']'))
    });
    let with_port = if has_port { host.to_owned() } else { format!("{host}:{default_port}") };
    let none = || io::Error::new(io::ErrorKind::NotFound, "its host has no address");
    with_port.to_socket_addrs()?.next().ok_or_else(none)
}

/// Whether a server of this technology at the other end answers, be it that it wants a password first.
fn speaks(technology: Technology, stream: &mut TcpStream) -> io::Result<bool> {
    match technology {
        Technology::Redis => {
            let answer = ask(stream, b"PING\r\n")?;
            Ok([&b"+PONG"[..], b"-NOAUTH", b"-NOPERM"].iter().any(|known| answer.starts_with(known)))
        }
        Technology::Postgres => {
            let answer = ask(stream, STARTUP)?;
            // "Cannot connect now": it comes up or goes down. Any other refusal is one to a client that should have known better.
            let not_yet = answer.windows(CANNOT_CONNECT_NOW.len()).any(|part| part == CANNOT_CONNECT_NOW);
            Ok(matches!(answer.first(), Some(b'R' | b'E')) && !not_yet)
        }
        // Whether it speaks TLS is a question that it answers alone; for others it needs the server behind it.
        Technology::PgBouncer => Ok(matches!(ask(stream, TLS)?.first(), Some(b'N' | b'S'))),
        Technology::Etcd => {
            let answer = ask_for_all(stream, b"GET /health HTTP/1.0\r\n\r\n")?;
            // {"health":"true"}, and "false" without a leader.
            let answer = String::from_utf8_lossy(&answer);
            Ok(answer.starts_with("HTTP/1.") && answer.contains("\"health\"") && answer.contains("true"))
        }
        // It is the server that speaks first.
        Technology::MariaDb => Ok(is_reception(&ask(stream, b"")?)),
    }
}

/// The length of all, and the code of the question.
const TLS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

/// The field of an error that has its code, of which this one means that the server is not ready.
const CANNOT_CONNECT_NOW: &[u8] = b"C57P03\0";

/// What comes back first.
fn ask(stream: &mut TcpStream, question: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(question)?;
    let mut answer = [0; 1024];
    let length = loop {
        match stream.read(&mut answer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    Ok(answer.get(..length).unwrap_or_default().to_vec())
}

/// All that comes back, up to a limit that only a stranger exceeds.
fn ask_for_all(stream: &mut TcpStream, question: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(question)?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    Ok(answer)
}

/// In bytes.
const LONGEST: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener};
    use std::thread::{self, JoinHandle};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Takes one connection, says this, and listens until the other end goes. Some would wait for a question that does not come.
    fn says(answer: &'static [u8]) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(answer).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            // Whoever has heard enough may leave without having heard all.
            stream.read_to_end(&mut Vec::new()).ok();
        });
        (address, server)
    }

    fn answer_counts(technology: Technology, answer: &'static [u8]) -> bool {
        let (address, server) = says(answer);
        let is_up = is_up(technology, address, LIMIT);
        server.join().unwrap();
        is_up
    }

    #[test]
    fn addresses_are_found_in_urls() {
        let found = |url| address(url, 6379).unwrap().to_string();
        assert_eq!(found("redis://127.0.0.1"), "127.0.0.1:6379");
        assert_eq!(found("redis://u:p@127.0.0.1:7000/3?a=b@c:1"), "127.0.0.1:7000");
        assert_eq!(found("rediss://[::1]:7000"), "[::1]:7000");
        assert_eq!(found("rediss://[::1]/"), "[::1]:6379");
        assert_eq!(found("etcd://127.0.0.1:7001,127.0.0.2:7002/x"), "127.0.0.1:7001");
        assert!(address("redis://", 6379).is_err() || found("redis://").ends_with(":6379"));
    }

    #[test]
    fn a_server_of_another_kind_does_not_answer() {
        for technology in Technology::ALL {
            assert!(!answer_counts(technology, b"HTTP/1.1 400 Bad Request\r\n\r\n"), "{technology:?}");
            assert!(!answer_counts(technology, b""), "{technology:?}");
        }
        let (address, server) = says(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let error = answers(Technology::Redis, &format!("redis://{address}"), LIMIT).unwrap_err();
        assert!(error.to_string().contains("something else"), "{error}");
        server.join().unwrap();
        answers(Technology::Redis, &format!("redis://{address}"), LIMIT).unwrap_err();
    }

    #[test]
    fn one_that_comes_up_does_not_count_as_up() {
        let refusal = |code| format!("E\0\0\0\x50SFATAL\0VFATAL\0C{code}\0Mbecause\0\0").into_bytes().leak();
        assert!(!answer_counts(Technology::Postgres, refusal("57P03")));
        assert!(answer_counts(Technology::Postgres, refusal("28000")));
        assert!(!answer_counts(
            Technology::Etcd,
            b"HTTP/1.0 503 Service Unavailable\r\n\r\n{\"health\":\"false\"}"
        ));
    }

    #[test]
    fn one_that_wants_a_password_counts_as_up() {
        assert!(answer_counts(Technology::Redis, b"-NOAUTH Authentication required.\r\n"));
        assert!(answer_counts(Technology::Postgres, b"R\0\0\0\x08\0\0\0\x03"));
        assert!(answer_counts(Technology::MariaDb, b"\x5c\0\0\0\x0a10.11.19-MariaDB\0"));
    }
}
