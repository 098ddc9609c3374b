//! As much of the protocol of MariaDB and MySQL as it takes to ask a question.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a server may be silent.
const LIMIT: Duration = Duration::from_secs(60);

/// The version of the protocol, with which the server's greeting begins.
const VERSION: u8 = 10;

/// What a packet begins with in an answer, if it is not the number of columns.
const OK: u8 = 0x00;
const REFUSED: u8 = 0xff;
/// The end of columns or rows, or during the log-in another way to do that.
const END: u8 = 0xfe;

/// What we can do: long passwords, a database, protocol 4.1, transactions, secure log-in, several statements, several results, ways to log
/// in.
const CAPABILITIES: u32 = 0x1 | 0x8 | 0x200 | 0x2000 | 0x8000 | 0x1_0000 | 0x2_0000 | 0x8_0000;

/// `utf8mb4_general_ci`, which both have.
const CHARACTER_SET: u8 = 45;

/// In the status: another result follows.
const MORE_RESULTS: u16 = 8;

/// Whether this is how a server receives a client, after the length and the number of the packet: it greets, or refuses one that it should not
/// have.
pub(crate) fn is_reception(said: &[u8]) -> bool {
    matches!(said, [_, _, _, 0, VERSION | REFUSED, ..])
}

/// The rows of all answers, as text.
pub(super) fn ask(address: SocketAddr, statements: &str) -> io::Result<Vec<Vec<Option<String>>>> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut connection = Connection { stream, number: 0 };
    connection.log_in()?;
    connection.command(b'\x03', statements.as_bytes())?;
    let mut rows = Vec::new();
    while connection.read_result(&mut rows)? & MORE_RESULTS != 0 {}
    connection.command(b'\x01', b"")?;
    Ok(rows)
}

struct Connection {
    stream: TcpStream,
    /// Of the next packet, on either side.
    number: u8,
}

impl Connection {
    /// As `root` without a password, with the database `test`.
    fn log_in(&mut self) -> io::Result<()> {
        if self.read()?.first() != Some(&VERSION) {
            return Err(nonsense());
        }
        let mut answer = CAPABILITIES.to_le_bytes().to_vec();
        answer.extend(0x0100_0000_u32.to_le_bytes());
        answer.push(CHARACTER_SET);
        answer.extend([0; 23]);
        answer.extend(b"root\0\0test\0mysql_native_password\0");
        self.send(&answer)?;
        loop {
            match self.read()?.first() {
                Some(&OK) => return Ok(()),
                // Without a password all ways are the same.
                Some(&END) => self.send(b"")?,
                // A remark on the way that was taken.
                Some(1) => {}
                _ => return Err(nonsense()),
            }
        }
    }

    fn command(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        self.number = 0;
        self.send(&[&[kind], body].concat())
    }

    /// Adds the rows of one result, if it has some, and tells the status.
    fn read_result(&mut self, rows: &mut Vec<Vec<Option<String>>>) -> io::Result<u16> {
        let head = self.read()?;
        if head.first() == Some(&OK) {
            let mut rest = head.get(1..).unwrap_or_default();
            // How many rows it has touched, and the number that it has given to the last one.
            take_number(&mut rest)?;
            take_number(&mut rest)?;
            return status(rest);
        }
        let columns = take_number(&mut &head[..])?.ok_or_else(nonsense)?;
        for _ in 0..columns {
            self.read()?;
        }
        self.read_end()?.ok_or_else(nonsense)?;
        loop {
            let packet = self.read()?;
            if let Some(status) = end(&packet)? {
                return Ok(status);
            }
            rows.push(row(&packet, columns)?);
        }
    }

    fn read_end(&mut self) -> io::Result<Option<u16>> {
        end(&self.read()?)
    }

    /// The next packet. A refusal is an error.
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        let [low, middle, high, number] = head;
        if number != self.number {
            return Err(nonsense());
        }
        self.number = number.wrapping_add(1);
        let length = u32::from_le_bytes([low, middle, high, 0]);
        let mut body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.stream.read_exact(&mut body)?;
        match body.split_first() {
            Some((&REFUSED, refusal)) => Err(io::Error::other(message(refusal))),
            _ => Ok(body),
        }
    }

    fn send(&mut self, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let [low, middle, high, 0] = length.to_le_bytes() else {
            return Err(io::Error::other("a question of more than one packet"));
        };
        let packet = [&[low, middle, high, self.number], body].concat();
        self.number = self.number.wrapping_add(1);
        self.stream.write_all(&packet)
    }
}

/// The status, if this is the end of columns or rows. A row that begins so is longer.
fn end(packet: &[u8]) -> io::Result<Option<u16>> {
    match packet {
        // Two bytes for warnings are before it.
        [END, _, _, rest @ ..] if packet.len() < 9 => status(rest).map(Some),
        _ => Ok(None),
    }
}

fn status(bytes: &[u8]) -> io::Result<u16> {
    bytes.first_chunk().map(|status| u16::from_le_bytes(*status)).ok_or_else(nonsense)
}

/// "\x7a\x04#42S02Table 'test.x' doesn't exist": code, state, and what is said of it. Who is refused at the door gets no state.
fn message(refusal: &[u8]) -> String {
    let (code, rest) = refusal.split_first_chunk().unwrap_or((&[0; 2], refusal));
    let text = String::from_utf8_lossy(rest);
    let text =
        text.split_at_checked(6).filter(|(state, _)| state.starts_with('#')).map_or(&*text, |(_, text)| text);
    format!("{} {text}", u16::from_le_bytes(*code))
}

/// For each column its length and its text, or a mark for null.
fn row(mut packet: &[u8], columns: u64) -> io::Result<Vec<Option<String>>> {
    let mut row = Vec::new();
    for _ in 0..columns {
        let text = match take_number(&mut packet)? {
            Some(length) => {
                let length = usize::try_from(length).map_err(io::Error::other)?;
                Some(String::from_utf8_lossy(take(&mut packet, length)?).into_owned())
            }
            None => None,
        };
        row.push(text);
    }
    Ok(row)
}

/// A number of one byte, or of as many as the first one says. `None` is null.
fn take_number(rest: &mut &[u8]) -> io::Result<Option<u64>> {
    let bytes = match take(rest, 1)? {
        [0xfb] => return Ok(None),
        [0xfc] => take(rest, 2)?,
        [0xfd] => take(rest, 3)?,
        [0xfe] => take(rest, 8)?,
        byte => byte,
    };
    Ok(Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> io::Result<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length).ok_or_else(nonsense)?;
    *rest = after;
    Ok(taken)
}

fn nonsense() -> io::Error {
    io::Error::other("it is no MariaDB server")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_texts_and_nulls() {
        let long = "x".repeat(300);
        let packet = [&b"\x02ab\xfb\0\xfc\x2c\x01"[..], long.as_bytes()].concat();
        let expected = [Some("ab".to_owned()), None, Some(String::new()), Some(long)];
        assert_eq!(row(&packet, 4).unwrap(), expected);
        row(&packet[..40], 4).unwrap_err();
        row(b"", 1).unwrap_err();
    }

    #[test]
    fn a_row_is_told_from_the_end() {
        assert_eq!(end(b"\xfe\0\0\x0a\0").unwrap(), Some(10));
        assert_eq!(end(b"\xfe\0\0\0\0\0\0\0\0\0").unwrap(), None);
        assert_eq!(end(b"\x01x").unwrap(), None);
        end(b"\xfe\0\0").unwrap_err();
    }

    #[test]
    fn a_refusal_has_its_code_and_its_message() {
        assert_eq!(message(b"\x7a\x04#42S02no such table"), "1146 no such table");
        assert_eq!(message(b"\x10\x04Too many connections"), "1040 Too many connections");
    }

    #[test]
    fn greetings_and_refusals_are_known() {
        assert!(is_reception(b"\x5c\0\0\0\x0a10.11.19-MariaDB\0"));
        assert!(is_reception(b"\x17\0\0\0\xff\x10\x04Too many connections"));
        assert!(!is_reception(b"+PONG\r\n"));
    }
}
