//! Ports that nobody has and that no outgoing connection gets.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use crate::error::Error;

/// Below what Linux and the other systems give to outgoing connections. A server that is down for a while keeps its port, and a client
/// that tries to reach it meanwhile is never connected to itself.
const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;

/// How many ports are tried.
const TRIES: u16 = 1_000;

/// A port of this machine on which nobody listens at the moment. Somebody may do so at the next.
pub(crate) fn free() -> Result<u16, Error> {
    let start = RandomState::new().hash_one(std::process::id());
    for step in 0..TRIES {
        let offset = (start % u64::from(COUNT) + u64::from(step)) % u64::from(COUNT);
        let port = FIRST + u16::try_from(offset).unwrap_or(0);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::failed(format!("no free port among {TRIES}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let mut taken = Vec::new();
        for _ in 0..50 {
            let port = free().unwrap();
            assert!((FIRST..FIRST + COUNT).contains(&port));
            // Another test may have been quicker.
            taken.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        }
        assert!(taken.len() > 40, "{}", taken.len());
    }
}
